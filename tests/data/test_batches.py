from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpcli.data.batches import batches, evaluation_batches, num_processed
from fpcli.data.split import Split
from fpcli.rng import stream


def numbered(count: int) -> Split:
    """Return images whose every pixel is the number of the sample."""
    labels = torch.arange(count)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return Split(images, labels)


def double(images: Tensor) -> Tensor:
    return images * 2.0


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (6, 3, [3, 3]),
        (8, 3, [3, 3, 2]),
        (7, 3, [3, 4]),
        (2, 3, [2]),
        (3, 3, [3]),
        (4, 3, [4]),
        (1, 3, [1]),
        (3, 1, [1, 1, 1]),
        (0, 3, []),
    ],
)
def test_sizes_never_end_in_a_single_sample(count: int, size: int, expected: list[int]) -> None:
    epoch = batches(
        numbered(9), torch.arange(count), double, batch_size=size, generator=stream(0, "x")
    )
    assert [len(labels) for _, labels in epoch] == expected


def test_epoch_covers_the_indices_once_in_a_seeded_order() -> None:
    split, indices = numbered(50), torch.arange(10, 40)

    def order(seed: int | None) -> list[int]:
        generator = None if seed is None else stream(seed, "x")
        epoch = batches(split, indices, double, batch_size=8, generator=generator)
        return torch.cat([labels for _, labels in epoch]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == order(None) == list(range(10, 40))


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_normalised_and_belong_to_their_labels(channels_last: bool) -> None:
    for images, labels in batches(
        numbered(20),
        torch.arange(20),
        double,
        batch_size=6,
        generator=stream(0, "x"),
        channels_last=channels_last,
    ):
        assert images.dtype == torch.float32
        assert images.is_contiguous() is not channels_last
        assert images.is_contiguous(memory_format=torch.channels_last) is channels_last
        assert images[:, 1, 2, 3].equal(2.0 * labels)


@pytest.mark.parametrize("count", [1, 12, 13, 15])
@pytest.mark.parametrize("max_steps", [0, 1, 3, 5, 99])
def test_counted_samples_are_those_of_the_batches(count: int, max_steps: int) -> None:
    epoch = batches(numbered(count), torch.arange(count), double, batch_size=4, generator=None)
    sizes = [len(labels) for _, labels in epoch] * 2
    assert num_processed(count, 4, 2, max_steps) == sum(sizes[: max_steps or None])


@pytest.mark.parametrize("channels_last", [False, True])
def test_evaluation_keeps_order_and_single_samples(channels_last: bool) -> None:
    split = numbered(7)
    epoch = list(evaluation_batches(split, double, batch_size=3, channels_last=channels_last))
    assert [labels.tolist() for _, labels in epoch] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.cat([images for images, _ in epoch]).equal(2.0 * split.images)


def test_negatives_stand_behind_the_label_where_a_model_is_judged() -> None:
    columns = torch.tensor([[7, 8], [9, 10], [11, 12]])
    split = Split(torch.ones(3, 4, dtype=torch.int16), torch.tensor([1, 2, 3]), negatives=columns)
    epoch = evaluation_batches(split, torch.Tensor.long, batch_size=2)
    assert [labels.tolist() for _, labels in epoch] == [[[1, 7, 8], [2, 9, 10]], [[3, 11, 12]]]
    (drawn,) = batches(split, torch.arange(3), torch.Tensor.long, batch_size=3, generator=None)
    assert drawn[1].tolist() == [1, 2, 3]


def test_rows_of_a_table_have_no_channels_to_move() -> None:
    split = Split(torch.arange(12.0).view(6, 2), torch.arange(6))
    for rows, labels in evaluation_batches(split, double, batch_size=4, channels_last=True):
        assert rows[:, 0].tolist() == (labels * 4.0).tolist()
