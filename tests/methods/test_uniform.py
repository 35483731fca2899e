"""Uniform pruning: one ratio, the channels of the highest scores, FedAvg at ratio 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.planning import foresee
from fpcli.errors import RecipeError
from fpcli.scores.magnitude import l1
from fpcli.train.setup import prepare_run


def test_every_client_keeps_the_same_strongest_channels(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("uniform", method__ratio=0.5), tmp_path / "memory")
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    asks = foresee(setup.fed, state, 1)
    assert [ask.client for ask in asks] == [0, 1, 2, 3]
    scores = l1(setup.fed.layout, state.values)
    for ask in asks:
        assert ask.record == {"ratio": 0.5}
        for name, group in setup.fed.layout.prunable.items():
            kept = ask.support.keep[name]
            assert len(kept) == group.width // 2
            gone = torch.ones(group.width, dtype=torch.bool)
            gone[kept] = False
            assert scores[name][kept].min() >= scores[name][gone].max()


def test_ratio_zero_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for method, options in (("fedavg", {}), ("uniform", {"method__ratio": 0.0})):
        setup = prepare_run(toy_recipe(method, **options), tmp_path / method)
        executor = Inline(setup.site)
        state, totals = server.begin_training(setup.fed, setup.values, executor)
        *_, (state, _) = server.play(setup.fed, state, executor, totals)
        ends.append(state.values)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("method", ["uniform", "fedmp"])
def test_a_score_that_needs_data_is_a_wrong_option(tmp_path: Path, method: str) -> None:
    setup = prepare_run(toy_recipe(method, method__score="taylor"), tmp_path / "memory")
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    with pytest.raises(RecipeError, match="a server has not"):
        foresee(setup.fed, state, 1)
