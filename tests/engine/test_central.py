from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nets import tiny
from torch import Tensor, nn

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.split import Split
from fpcli.engine.central import Epoch, Momentum, lr_at, train_centrally
from fpcli.errors import DivergedError
from fpcli.settings.learning import FitConfig
from fpcli.tasks.learning_task import Batch


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", None, seed=0)


def few(dataset: Dataset, count: int = 200) -> Split:
    return dataset.train.take(torch.arange(count))


def model() -> nn.Module:
    torch.manual_seed(0)
    return tiny((1, 8, 8), 10).to(memory_format=torch.channels_last)


def bits(net: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in net.state_dict().items()}


def test_the_learning_rate_by_hand() -> None:
    """Half a cosine over 8 steps: 0.4 * (1 + cos(pi * k / 8)) / 2, so 0.2 in the middle."""
    cosine = FitConfig(lr=0.4)
    assert lr_at(cosine, 0, 8) == 0.4
    assert lr_at(cosine, 2, 8) == pytest.approx(0.4 * (1 + 0.5**0.5) / 2)
    assert lr_at(cosine, 4, 8) == pytest.approx(0.2)
    assert lr_at(cosine, 7, 8) == pytest.approx(0.4 * (1 - 0.9238795) / 2)
    steps = FitConfig(lr=0.4, schedule="steps", drop_at=(0.5, 0.75))
    assert [lr_at(steps, step, 8) for step in (0, 3, 4, 5, 6, 7)] == pytest.approx(
        [0.4, 0.4, 0.04, 0.04, 0.004, 0.004]
    )
    assert lr_at(FitConfig(lr=0.4, schedule="constant"), 7, 8) == 0.4


def test_every_step_gets_its_learning_rate(dataset: Dataset) -> None:
    """Take 5 steps of 40 samples in each of 2 epochs; the last one is at 0.9 of the cosine."""
    config = FitConfig(epochs=2, batch_size=40, lr=0.1)
    seen: list[int] = []
    epochs = list(
        train_centrally(
            model(), dataset, config, seed=0, split=few(dataset), before_step=seen.append
        )
    )
    assert seen == list(range(10))
    assert [(e.number, e.num_steps, e.num_samples) for e in epochs] == [(1, 5, 200), (2, 5, 200)]
    assert [e.lr for e in epochs] == [lr_at(config, 4, 10), lr_at(config, 9, 10)]


def test_two_steps_by_hand(dataset: Dataset) -> None:
    """Train one weight w with the loss w², lr 0.1, momentum 0.5, weight decay 0.2.

    The gradient is 2 w + 0.2 w = 2.2 w. From w = 1: v = 2.2, w = 0.78; then g = 1.716,
    v = 0.5 * 2.2 + 1.716 = 2.816, w = 0.4984. The losses 1 and 0.6084 have the mean 0.8042.
    """
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)

    def square(net: nn.Module, batch: Batch) -> Tensor:
        (weight,) = net.parameters()
        return (weight**2).sum()

    config = FitConfig(
        epochs=1, batch_size=2, lr=0.1, momentum=0.5, weight_decay=0.2, schedule="constant"
    )
    (epoch,) = train_centrally(net, dataset, config, seed=0, split=few(dataset, 4), loss=square)
    assert net.weight.item() == pytest.approx(0.4984, abs=1e-6)
    assert epoch.momentum.buffers["weight"].item() == pytest.approx(2.816, abs=1e-6)
    assert epoch.loss == pytest.approx(0.8042, abs=1e-6)


def start(net: nn.Module, dataset: Dataset, **more: Any) -> Iterator[Epoch]:
    config = FitConfig(epochs=3, batch_size=50, lr=0.05)
    return train_centrally(net, dataset, config, seed=3, split=few(dataset), **more)


def test_training_in_pieces_ends_in_the_same_bits(dataset: Dataset) -> None:
    """The network has dropout and batch norm; its momentum lies in memory as on a disk."""
    whole, first, second = model(), model(), model()
    last = list(start(whole, dataset))[-1]
    epoch = next(iter(start(first, dataset)))
    second.load_state_dict(first.state_dict())
    stored = {name: buffer.contiguous() for name, buffer in epoch.momentum.buffers.items()}
    rest = list(start(second, dataset, done=1, momentum=Momentum(stored)))
    assert [e.number for e in rest] == [2, 3]
    assert bits(second) == bits(whole)
    assert rest[-1].loss == last.loss
    for name, buffer in last.momentum.buffers.items():
        assert torch.equal(rest[-1].momentum.buffers[name], buffer)
    assert list(start(second, dataset, done=3)) == []


def test_an_epoch_keeps_its_own_momentum(dataset: Dataset) -> None:
    running = start(model(), dataset)
    first = next(running)
    before = {name: buffer.clone() for name, buffer in first.momentum.buffers.items()}
    next(running)
    assert all(torch.equal(first.momentum.buffers[name], buffer) for name, buffer in before.items())


def test_random_numbers_depend_on_seed_and_purpose_and_leave_others_alone(
    dataset: Dataset,
) -> None:
    nets = [model() for _ in range(3)]
    torch.manual_seed(5)
    for net, more in zip(nets, ({}, {}, {"purpose": "retrain"}), strict=True):
        torch.rand(1)
        list(start(net, dataset, **more))
    drawn = torch.rand(1)
    assert bits(nets[0]) == bits(nets[1]) != bits(nets[2])
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4)[3:], drawn)


def test_what_a_mask_cuts_stays_exactly_zero(dataset: Dataset) -> None:
    net = model()
    mask = {"hidden.weight": torch.rand(12, 32) < 0.5, "stem.weight": torch.rand(8, 1, 3, 3) < 0.5}
    with torch.no_grad():
        for name, alive in mask.items():
            net.get_parameter(name).mul_(alive)
    list(start(net, dataset, mask=mask))
    for name, alive in mask.items():
        value = net.get_parameter(name)
        assert not value[~alive].any()
        assert value[alive].all()


@pytest.mark.parametrize("place", ["loss", "buffer"])
def test_what_is_not_finite_ends_the_training(dataset: Dataset, place: str) -> None:
    net = model()

    def spoil(step: int) -> None:
        with torch.no_grad():
            if place == "loss":
                net.get_parameter("out.bias")[0] = torch.nan
            else:
                net.get_buffer("norm.running_var")[0] = torch.inf

    with pytest.raises(DivergedError, match="after epoch 1") as caught:
        list(start(net, dataset, before_step=spoil))
    assert caught.value.hint == "lower the learning rate (it starts at 0.05)"
