"""FedProx: the proximal term and the amounts of work by hand; FedAvg without both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from replies import rounds
from torch import Tensor, nn

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.types import TRAIN, Fitted, LocalConfig, Task
from fpcli.errors import RecipeError
from fpcli.methods.fedprox import FedProx, Options, draw_epochs
from fpcli.train.setup import prepare_run


@dataclass
class Client:
    """As much of a client's context as the method needs: two batches of x = 1, y = 0."""

    options: Options
    received: dict[str, Tensor]
    local: LocalConfig
    task: Task
    mask: Any = ()
    torch_device: torch.device = torch.device("cpu")  # noqa: RUF009

    def batches(self, epoch: int, *, samples: None) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(torch.ones(1, 1), torch.zeros(1, 1))] * 2)

    def result(self, model: nn.Module, fitted: Fitted) -> tuple[float, Fitted]:
        return model.get_parameter("weight").item(), fitted


def squared(cx: Any, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return ((model(x) - y) ** 2).mean()


@pytest.mark.parametrize(
    ("mu", "max_steps", "weight", "loss"),
    [(0.0, 0, 0.64, 0.82), (0.5, 0, 0.65, 0.82), (0.5, 1, 0.8, 1.0)],
)
def test_two_steps_by_hand(
    mu: float, max_steps: int, weight: float, loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train one weight on the loss w², from w_t = 1 at lr 0.1.

    The first gradient is 2 + mu (1 - 1) = 2, so w = 0.8. The second is 1.6 + mu (0.8 - 1), that is
    1.6 or, with mu = 0.5, 1.5: w = 0.64 or 0.65. The reported loss is (1 + 0.64) / 2 in both.
    """
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    monkeypatch.setattr(FedProx, "loss", lambda self, *arguments: squared(*arguments))
    task = Task(0, TRAIN, max_steps=max_steps)
    cx = Client(Options(mu), {"weight": torch.ones(1, 1)}, LocalConfig(lr=0.1), task)
    trained, fitted = FedProx().train(cx, net)  # type: ignore[arg-type, misc]
    assert trained == pytest.approx(weight, abs=1e-6)
    assert fitted.loss == pytest.approx(loss, abs=1e-6)
    assert fitted.num_steps == (max_steps or 2)


def test_slow_devices_do_five_eighths_and_the_clock_counts_that(tmp_path: Path) -> None:
    """Odd clients compute 4 times slower; half of four clients are slow.

    All work takes t, 4 t, t, 4 t seconds; the median is 2.5 t, of which 4 t is 5/8. An epoch of
    320 to 324 samples is 6 batches of 64 (the last is small), of which floor(3.75) = 3 are done:
    192 samples, of 10,872 multiply-adds each (see tests/engine/test_server.py).
    """
    flags = {"task__partition__kind": "iid", "fleet__variation": 0.0}
    setup = prepare_run(toy_recipe("fedprox", rounds=1, **flags), tmp_path / "memory")
    _, record = next(rounds(setup))
    fast, slow = record.clients[::2], record.clients[1::2]
    for client in slow:
        assert client.num_steps == 3
        assert client.notes == {"work": 0.5}
        assert client.compute_s == pytest.approx(6 * 10872 * 192 / 5e9, rel=1e-12)
    for client in fast:
        assert client.num_steps == 6
        assert client.notes == {"work": 1.0}
        assert client.compute_s == pytest.approx(6 * 10872 * client.num_examples / 20e9, rel=1e-12)


def test_the_fastest_sets_the_pace_where_that_is_asked(tmp_path: Path) -> None:
    """Slow clients then do floor(6 / 4) steps of 6, and whoever does least does one step."""
    flags = {"task__partition__kind": "iid", "fleet__variation": 0.0, "method__pace": 0.0}
    setup = prepare_run(toy_recipe("fedprox", **flags), tmp_path / "memory")
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    asks = setup.fed.method.plan(replace(ctx, cohort=(0, 1)), state)
    assert [ask.max_steps for ask in asks] == [0, 1]


def test_stragglers_draw_their_epochs(tmp_path: Path) -> None:
    flags = {"method__work": "random", "local__epochs": 4, "task__clients": 8}
    setup = prepare_run(toy_recipe("fedprox", **flags), tmp_path / "memory")
    ctx = replace(setup.fed.context(1, "round", lambda *_, **__: None), cohort=tuple(range(8)))
    draws = [draw_epochs(replace(ctx, round=number)) for number in range(1, 60)]
    everything = [draw[client] for draw in draws for client in range(8)]
    assert set(everything) == {1, 2, 3, 4}
    assert all(sum(epochs == 4 for epochs in draw.values()) >= 4 for draw in draws)
    # Of the stragglers, half of everybody, a quarter each draws 1, 2, 3 and 4.
    assert everything.count(1) / len(everything) == pytest.approx(1 / 8, abs=0.04)
    assert len({tuple(sorted(draw.items())) for draw in draws}) > 50
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    for ask in setup.fed.method.plan(ctx, state):
        assert ask.local == replace(ctx.local, epochs=draws[0][ask.client])
        assert ask.record == {"work": draws[0][ask.client] / 4}


def test_a_draw_without_a_choice_is_refused(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("fedprox", method__work="random"), tmp_path / "memory")
    with pytest.raises(RecipeError, match=r"local\.epochs is 1"):
        server.begin_training(setup.fed, setup.values, Inline(setup.site))


def test_without_both_it_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for method, options in (("fedavg", {}), ("fedprox", {"mu": 0.0, "work": "all"})):
        flags = {f"method__{key}": value for key, value in options.items()}
        setup = prepare_run(toy_recipe(method, rounds=2, **flags), tmp_path / method)
        *_, (state, _) = rounds(setup)
        ends.append(state.values)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
