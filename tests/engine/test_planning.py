"""Plans are of the cohort and of nobody else, and can be foreseen without a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from replies import rounds

from fpcli.engine.federation import Federation
from fpcli.engine.method import Method
from fpcli.engine.planning import foresee, plan_round
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Ask, LocalConfig, ServerState, Support
from fpcli.errors import LayoutError, UsageError
from fpcli.train.setup import Setup, prepare_run


class Planning(Method):
    """Plans for those clients that it is told."""

    def __init__(self, change: Callable[[Sequence[int]], list[int]] = list) -> None:
        self.change = change

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        ctx.log(None, planned=True)
        ctx.server.charge(10)
        return [Ask(client, support=state.support) for client in self.change(ctx.cohort)]


def toy(tmp_path: Path, method: Method, **changes: Any) -> Setup:
    setup = prepare_run(toy_recipe("fedavg", **changes), tmp_path / "memory")
    return replace(setup, fed=replace(setup.fed, method=method))


def context(fed: Federation, *cohort: int) -> RoundContext:
    return replace(fed.context(1, "round", lambda *_, **__: None), cohort=cohort)


@pytest.mark.parametrize(
    ("change", "clients"),
    [
        (lambda cohort: cohort[:-1], "[0]"),
        (lambda cohort: [], "[]"),
        (lambda cohort: [*cohort, 3], "[0, 2, 3]"),
        (lambda cohort: [0, 0], "[0, 0]"),
        (lambda cohort: [0, 1], "[0, 1]"),
        (lambda cohort: cohort[::-1], "[2, 0]"),
    ],
)
def test_a_plan_for_other_clients_than_the_cohort_is_refused(
    tmp_path: Path, change: Any, clients: str
) -> None:
    setup = toy(tmp_path, Planning(change))
    state = ServerState(0, setup.values, Support())
    with pytest.raises(UsageError) as caught:
        plan_round(setup.fed, context(setup.fed, 0, 2), state)
    said = f"method `fedavg` plans for clients {clients}, the cohort is [0, 2]"
    assert caught.value.message == said
    assert "in its order" in caught.value.hint
    with pytest.raises(UsageError, match="plans for clients"):
        next(rounds(setup))


def test_a_question_is_no_plan(tmp_path: Path) -> None:
    class Confused(Method):
        def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
            return [Ask(client, "labels") for client in ctx.cohort]

    with pytest.raises(UsageError, match="method `fedavg` plans `labels` for client 0") as caught:
        next(rounds(toy(tmp_path, Confused())))
    assert "`ask`" in caught.value.hint


@pytest.mark.parametrize("op", [(), ("train",), ("evaluate",)])
def test_what_the_engine_does_itself_is_no_question(tmp_path: Path, op: tuple[str, ...]) -> None:
    class Confused(Method):
        def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
            return [Ask(client, *op) for client in ctx.cohort]

    text = f"method `fedavg` asks client 0 to `{op[0] if op else 'train'}`"
    with pytest.raises(UsageError, match=text) as caught:
        next(rounds(toy(tmp_path, Confused())))
    assert "`plan`" in caught.value.hint


def test_a_sub_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    class Wrong(Method):
        def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
            return [Ask(c, support=Support({"steam": torch.arange(2)})) for c in ctx.cohort]

    with pytest.raises(LayoutError, match="unknown group 'steam'"):
        next(rounds(toy(tmp_path, Wrong())))


def test_a_plan_without_settings_takes_those_of_the_round(tmp_path: Path) -> None:
    """The learning rate drops to a tenth in round 2."""
    own = LocalConfig(epochs=4)

    class Own(Method):
        def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
            return [Ask(0), Ask(1, local=own), *map(Ask, ctx.cohort[2:])]

    setup = toy(tmp_path, Own(), local__lr=0.5, local__lr_drop_at=(2,), local__lr_drop=0.1)
    state = ServerState(1, setup.values, Support())
    first, second, *_ = foresee(setup.fed, state, 2)
    assert first.local == replace(setup.fed.local, lr=pytest.approx(0.05))
    assert second.local == own
    assert foresee(setup.fed, state, 1)[0].local == setup.fed.local


def test_what_is_foreseen_leaves_no_trace(tmp_path: Path) -> None:
    """The cohort of a round with room for two, and the same with somebody else in it."""
    setup = toy(tmp_path, Planning(), clients_per_round=2)
    state = ServerState(0, setup.values, Support())
    expected = next(rounds(setup))[1].cohort
    assert tuple(ask.client for ask in foresee(setup.fed, state, 1)) == expected
    other = next(client for client in range(4) if client not in expected)
    seen = tuple(ask.client for ask in foresee(setup.fed, state, 1, other))
    assert seen == tuple(sorted((expected[0], other)))
    inside = tuple(ask.client for ask in foresee(setup.fed, state, 1, expected[0]))
    assert inside == expected
    charged = setup.fed.server_side.charged
    assert charged.alone_s + charged.beside_s == 0.0
