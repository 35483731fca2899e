from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpcli.data.augment import check_augment, make_augmenter
from fpcli.data.batches import batches
from fpcli.data.split import Split
from fpcli.errors import RecipeError
from fpcli.rng import stream
from fpcli.settings.tasks import Augment


def augmented(name: Augment, images: Tensor, seed: int = 0) -> Tensor:
    change = make_augmenter(name, stream(seed, "x"))
    assert change is not None
    return change(images)


def shifts(before: Tensor, after: Tensor, most: int) -> list[tuple[int, int]]:
    """Return by how much the content of each image has moved; fail where it has not moved so."""
    height, width = before.shape[2:]
    padded = torch.nn.functional.pad(before, (most,) * 4)
    found = []
    for number, image in enumerate(after):
        for top in range(2 * most + 1):
            for left in range(2 * most + 1):
                window = padded[number, :, top : top + height, left : left + width]
                if image.equal(window):
                    found.append((most - top, most - left))
    assert len(found) == len(after)
    return found


@pytest.mark.parametrize(("side", "most"), [(8, 1), (28, 3), (32, 4), (5, 1)])
def test_a_crop_is_a_shift_by_up_to_an_eighth_with_zeros_behind(side: int, most: int) -> None:
    images = torch.randint(1, 256, (200, 2, side, side), dtype=torch.uint8)
    after = augmented("crop", images)
    assert after.dtype == torch.uint8
    found = shifts(images, after, most)
    for axis in (0, 1):
        assert {shift[axis] for shift in found} == set(range(-most, most + 1))


def test_sides_may_differ() -> None:
    images = torch.rand(50, 1, 16, 8) + 1
    after = augmented("crop", images)
    assert after.shape == images.shape
    assert int((after == 0).all(3).sum(2).max()) == 2  # rows of zeros
    assert int((after == 0).all(2).sum(2).max()) == 1  # columns of zeros


def test_half_of_the_images_are_mirrored() -> None:
    """Of 400 fair draws 200 +- 10 (one standard deviation) are true."""
    images = torch.arange(1, 65).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    plain, both = augmented("crop", images), augmented("crop-flip", images)
    same = (plain == both).flatten(1).all(1)
    assert both[~same].equal(plain[~same].flip(3))
    assert 160 < int(same.sum()) < 240


def test_the_generator_decides() -> None:
    images = torch.randint(1, 256, (20, 3, 32, 32), dtype=torch.uint8)
    first, again, other = (augmented("crop-flip", images, seed) for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    assert make_augmenter("none", stream(0, "x")) is None


def test_batches_change_stored_images_and_draw_anew_for_each_batch() -> None:
    """Behind a stored image comes a stored 0, which is normalised to -1 here."""
    split = Split(torch.full((40, 1, 8, 8), 5, dtype=torch.uint8), torch.arange(40))
    for name, values in (("none", {4.0}), ("crop", {4.0, -1.0})):
        epoch = list(
            batches(
                split,
                torch.arange(40),
                lambda images: images.float() - 1,
                batch_size=20,
                generator=None,
                augment=make_augmenter(name, stream(0, "x")),  # type: ignore[arg-type]
            )
        )
        assert {x for images, _ in epoch for x in images.flatten().tolist()} == values
        assert torch.cat([labels for _, labels in epoch]).tolist() == list(range(40))
        assert epoch[0][0].equal(epoch[1][0]) is (name == "none")


def test_only_images_are_augmented() -> None:
    check_augment("none", "table", torch.zeros(3, 4))
    check_augment("crop", "digits", torch.zeros(3, 1, 8, 8))
    with pytest.raises(RecipeError, match="`crop`, but samples of data `table` are no images"):
        check_augment("crop", "table", torch.zeros(3, 4))
