"""Local only: clients go on with their own model, and the server's never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import memory, server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.types import ServerState
from fpcli.train.setup import Setup, prepare_run


def play(tmp_path: Path, method: str, **changes: Any) -> tuple[Setup, ServerState, list[Any]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / method)
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    played = list(server.play(setup.fed, state, executor, totals))
    return setup, played[-1][0], [record for _, record in played]


def test_the_server_keeps_its_model_and_gets_no_change(tmp_path: Path) -> None:
    setup, state, _ = play(tmp_path, "local-only")
    for name, value in setup.values.items():
        assert torch.equal(state.values[name], value)
    own = [memory.recall(setup.site.home, client, "model", 99) for client in range(4)]
    for one in own:
        assert one.keys() == setup.values.keys()
        assert not torch.equal(one["out.weight"], setup.values["out.weight"])
    assert not torch.equal(own[0]["out.weight"], own[1]["out.weight"])


def test_a_single_client_alone_is_fedavg_with_one_client(tmp_path: Path) -> None:
    changes = {"task__clients": 1, "task__partition__kind": "iid"}
    _, merged, records = play(tmp_path, "fedavg", eval_clients=True, **changes)
    setup, _, alone = play(tmp_path, "local-only", **changes)
    own = memory.recall(setup.site.home, 0, "model", 99)
    for name, value in merged.values.items():
        assert torch.allclose(own[name], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(records, alone, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-4)
        mine, theirs = b.evaluation.clients[0], a.evaluation.clients[0]
        assert mine.metrics["accuracy"] == pytest.approx(theirs.metrics["accuracy"], abs=0.01)


def test_a_client_that_never_trained_predicts_with_the_initial_model(tmp_path: Path) -> None:
    _, _, records = play(tmp_path, "local-only", clients_per_round=1, rounds=2)
    start = {c: s.metrics["accuracy"] for c, s in records[0].evaluation.clients.items()}
    end = {c: s.metrics["accuracy"] for c, s in records[1].evaluation.clients.items()}
    still = set(range(4)) - set(records[1].cohort)
    assert {c: start[c] for c in still} == {c: end[c] for c in still}
    assert len(start) == 4
