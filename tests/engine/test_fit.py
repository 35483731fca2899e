from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpcli.engine.fit import fit
from fpcli.engine.types import LocalConfig, Task
from fpcli.errors import DivergedError
from fpcli.tasks.classify import cross_entropy


@dataclass
class Client:
    """As much of a client's context as training needs: the same batches in every epoch."""

    local: LocalConfig
    data: list[tuple[Tensor, Tensor]]
    mask: Mapping[str, Tensor] = field(default_factory=dict)
    max_steps: int = 0

    @property
    def task(self) -> Task:
        return Task(0, "train", max_steps=self.max_steps)

    def batches(
        self, epoch: int, *, samples: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.data)


def train(model: nn.Module, client: Client) -> Any:
    return fit(model, client, lambda cx, model, batch: cross_entropy(model, batch))  # type: ignore[arg-type]


def data(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 6, generator=rng), torch.randint(3, (n,), generator=rng)) for n in sizes
    ]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def squared(cx: Any, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return ((model(x) - y) ** 2).mean()


def test_two_steps_by_hand() -> None:
    """Train one weight w on x = 1, y = 0 with the loss w².

    lr 0.1, momentum 0.5, weight decay 0.2; gradient 2 w + 0.2 w = 2.2 w. From w = 1: v = 2.2,
    w = 0.78; then g = 1.716, v = 0.5 * 2.2 + 1.716 = 2.816, w = 0.4984. Losses 1 and 0.78² of
    batches of 1 and 3 samples: (1 + 3 * 0.6084) / 4 = 0.7063.
    """
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    local = LocalConfig(lr=0.1, momentum=0.5, weight_decay=0.2)
    client = Client(local, [(torch.ones(n, 1), torch.zeros(n, 1)) for n in (1, 3)])
    fitted = fit(net, client, squared)  # type: ignore[arg-type]
    assert net.weight.item() == pytest.approx(0.4984, abs=1e-6)
    assert fitted.loss == pytest.approx(0.7063, abs=1e-6)
    assert (fitted.num_steps, fitted.num_samples) == (2, 4)


def test_samples_and_steps_of_all_epochs_count() -> None:
    fitted = train(model(), Client(LocalConfig(epochs=3), data(4, 4, 2)))
    assert (fitted.num_steps, fitted.num_samples) == (9, 30)


@pytest.mark.parametrize(
    ("max_steps", "counts", "ended"),
    [(4, (4, 14), [1, 2]), (3, (3, 10), [1]), (99, (9, 30), [1, 2, 3])],
)
def test_a_limit_of_steps_ends_training_within_an_epoch(
    max_steps: int, counts: tuple[int, int], ended: list[int]
) -> None:
    client, epochs = Client(LocalConfig(epochs=3), data(4, 4, 2), max_steps=max_steps), []
    entropy = lambda cx, model, batch: cross_entropy(model, batch)  # noqa: E731
    fitted = fit(model(), client, entropy, after_epoch=lambda epoch, _: epochs.append(epoch))  # type: ignore[arg-type]
    assert (fitted.num_steps, fitted.num_samples) == counts
    assert epochs == ended


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_masked_elements_stay_exactly_zero(momentum: float, weight_decay: float) -> None:
    net = model()
    masks = {"0.weight": torch.rand(5, 6) < 0.5, "2.weight": torch.rand(3, 5) < 0.5}
    free = {name: value.clone() for name, value in net.named_parameters()}
    with torch.no_grad():
        for name, mask in masks.items():
            net.get_parameter(name).mul_(mask)
    local = LocalConfig(epochs=4, lr=0.5, momentum=momentum, weight_decay=weight_decay)
    train(net, Client(local, data(8, 8), masks))
    for name, value in net.named_parameters():
        if name in masks:
            assert torch.equal(value[~masks[name]], torch.zeros(int((~masks[name]).sum())))
            assert bool((value[masks[name]] != free[name][masks[name]]).any())
        else:
            assert not torch.equal(value, free[name])


def test_a_full_mask_changes_no_bit() -> None:
    local = LocalConfig(epochs=2, momentum=0.9, weight_decay=0.1)
    plain, masked = model(), model()
    full = {name: torch.ones_like(value).bool() for name, value in masked.named_parameters()}
    train(plain, Client(local, data(8, 8)))
    train(masked, Client(local, data(8, 8), full))
    for one, other in zip(plain.parameters(), masked.parameters(), strict=True):
        assert torch.equal(one, other)


def test_momentum_starts_at_zero_in_every_call() -> None:
    """Two calls with one batch each are plain steps; one call with both has momentum."""
    batches = data(8, 8)
    local = LocalConfig(lr=0.1, momentum=0.9)
    plain = LocalConfig(lr=0.1)
    twice, without, once = model(), model(), model()
    for batch in batches:
        train(twice, Client(local, [batch]))
        train(without, Client(plain, [batch]))
    train(once, Client(local, batches))
    for a, b, c in zip(twice.parameters(), without.parameters(), once.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_a_frozen_parameter_may_be_masked() -> None:
    net = model()
    net.get_parameter("0.weight").requires_grad_(False)
    before = net.get_parameter("0.weight").clone()
    mask = {"0.weight": torch.zeros(5, 6, dtype=torch.bool)}
    train(net, Client(LocalConfig(), data(4), mask))
    assert torch.equal(net.get_parameter("0.weight"), before)


def test_the_model_is_trained_in_train_mode() -> None:
    net = model().eval()
    train(net, Client(LocalConfig(), data(4)))
    assert net.training


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_loss_that_is_not_finite(epochs: int) -> None:
    bad = data(4)
    bad[0][0][0, 0] = torch.nan
    with pytest.raises(DivergedError, match="after epoch 1") as caught:
        train(model(), Client(LocalConfig(epochs=epochs, lr=0.25), bad))
    assert caught.value.hint == "lower local.lr (now 0.25)"
    assert caught.value.exit_status == 7
