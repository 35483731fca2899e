"""Importance as the server has it: by hand, from changes and from what clients sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch

from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Answer, Ask, LocalConfig, Support, Timing, Traffic, Work
from fpcli.pruning.importance import collect, shows_gradients
from fpcli.structure.layout import Layout, TensorSpec

LAYOUT = Layout(
    {
        "w": TensorSpec((2, 2), True, 1.0),
        "b": TensorSpec((2,), True),
        "mean": TensorSpec((2,), False),
    },
    {},
)
MASK = torch.tensor([[True, False], [False, True]])
PLAIN = {"epochs": 2, "batch_size": 4, "lr": 0.5}


def context(**local: float) -> RoundContext:
    settings = LocalConfig(**{**PLAIN, **local})
    return cast(RoundContext, SimpleNamespace(layout=LAYOUT, local=settings, is_upload_exact=True))


def answer(stats: dict[str, list[float]]) -> Answer:
    """Return what a client with 3 samples and two dead weights answers."""
    ask = Ask(0, support=Support(mask={"w": MASK}))
    change = {
        "w": torch.tensor([[1.0, 0.0], [0.0, -0.5]]),
        "b": torch.tensor([0.0, 2.0]),
        "mean": torch.ones(2),
    }
    sent = {name: torch.tensor(value) for name, value in stats.items()}
    time, traffic = Timing(0.0, 0.0, 0.0), Traffic(0, 0)
    return Answer(ask, Work(change, stats=sent), ask.support, 3, traffic, time, 0.0)


def test_changes_show_what_is_alive_and_clients_send_the_rest() -> None:
    """6 samples times (change / 0.5)^2: 24 for 1, 6 for -0.5, 96 for 2."""
    known = {"w": torch.full((2, 2), 100.0), "b": torch.zeros(2)}
    found = collect(context(), "sum", known, [answer({"w": [7.0, 8.0]}), answer({})])
    assert found.keys() == {"w", "b"}, "buffers have no importance"
    assert found["w"].tolist() == [[148.0, 107.0], [108.0, 112.0]]
    assert found["b"].tolist() == [0.0, 192.0]


@pytest.mark.parametrize("local", [{"momentum": 0.9}, {"lr": 0.0}])
def test_without_plain_sgd_only_what_is_sent_counts(local: dict[str, float]) -> None:
    sent = {"w": [1.0, 2.0, 3.0, 4.0], "b": [5.0]}  # one number too few for the bias
    found = collect(context(**local), "sum", {}, [answer(sent)])
    assert found["w"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found["b"].tolist() == [0.0, 0.0]


def test_what_a_change_shows() -> None:
    assert shows_gradients("sum", LocalConfig(**PLAIN))
    assert not shows_gradients("last", LocalConfig(**PLAIN))
    assert not shows_gradients("step_sq", LocalConfig(**PLAIN))
    for key in ("momentum", "weight_decay", "clip_norm"):
        assert not shows_gradients("sum", LocalConfig(**{**PLAIN, key: 0.1}))
