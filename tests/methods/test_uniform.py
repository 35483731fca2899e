"""Uniform pruning: one ratio, the channels of the highest scores, FedAvg at ratio 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.errors import RecipeError
from fpcli.run.setup import prepare
from fpcli.scores.magnitude import l1


def test_every_client_keeps_the_same_strongest_channels(tmp_path: Path) -> None:
    setup = prepare(toy_recipe("uniform", method__ratio=0.5), tmp_path / "memory")
    state, _ = server.begin(setup.fed, setup.values, Inline(setup.site))
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    plans = [setup.fed.method.plan(ctx, state, client) for client in range(4)]
    scores = l1(setup.fed.layout, state.values)
    for plan in plans:
        assert plan.record == {"ratio": 0.5}
        for name, group in setup.fed.layout.prunable.items():
            kept = plan.support.keep[name]
            assert len(kept) == group.width // 2
            gone = torch.ones(group.width, dtype=torch.bool)
            gone[kept] = False
            assert scores[name][kept].min() >= scores[name][gone].max()


def test_ratio_zero_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for method, options in (("fedavg", {}), ("uniform", {"method__ratio": 0.0})):
        setup = prepare(toy_recipe(method, **options), tmp_path / method)
        executor = Inline(setup.site)
        state, totals = server.begin(setup.fed, setup.values, executor)
        *_, (state, _) = server.play(setup.fed, state, executor, totals)
        ends.append(state.values)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("method", ["uniform", "fedmp"])
def test_a_score_that_needs_data_is_a_wrong_option(tmp_path: Path, method: str) -> None:
    setup = prepare(toy_recipe(method, method__score="taylor"), tmp_path / "memory")
    state, _ = server.begin(setup.fed, setup.values, Inline(setup.site))
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    with pytest.raises(RecipeError, match="a server has not"):
        setup.fed.method.plan(ctx, state, 0)
