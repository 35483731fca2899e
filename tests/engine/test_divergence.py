from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from faults import Tampering, losing
from replies import plain, rounds

from fpcli.engine import server
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import ServerState
from fpcli.errors import DivergedError
from fpcli.train.setup import Setup, prepare_run


def toy(tmp_path: Path, method: str = "fedavg", **changes: Any) -> Setup:
    return prepare_run(toy_recipe(method, **changes), tmp_path / "memory")


@pytest.mark.parametrize(
    ("lr", "problem"), [(1e6, "the validation loss"), (1e12, "all 4 clients diverged")]
)
def test_divergence_ends_the_run_within_its_round(tmp_path: Path, lr: float, problem: str) -> None:
    """One client survives the lower rate with a finite, useless model: it takes only two steps."""
    setup = toy(tmp_path, local__lr=lr)
    executor = Tampering(setup.site, losing())
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    before = plain(state)
    with pytest.raises(DivergedError, match=f"{problem}.* round 1") as caught:
        next(server.play(setup.fed, state, executor, totals))
    assert caught.value.exit_status == 7
    assert "local.lr" in caught.value.hint
    assert executor.num_runs == 1, "it is not tried again"
    assert plain(state) == before


def test_clients_notice_a_buffer_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"`norm\.running_mean` is not finite"):
        next(rounds(toy(tmp_path, "faults:Broken")))


@pytest.mark.parametrize("fault", ["nan_buffer", "diverge", "fail"])
def test_one_client_in_trouble_does_not_stop_the_others(tmp_path: Path, fault: str) -> None:
    counted = tmp_path / "tries"
    counted.mkdir()
    options = {"method__fault": fault, "method__folder": str(counted)}
    setup = toy(tmp_path, "faults:Faulty", rounds=2, **options)
    *_, (state, record) = rounds(setup)
    assert [(r.client, r.code) for r in record.refusals] == [(1, "F408")]
    assert "\n" not in record.refusals[0].reason
    assert [client.client for client in record.clients] == [0, 2, 3]
    healthy = toy(tmp_path, "faults:Faulty", rounds=2)
    losses = Tampering(healthy.site, losing(1, runs=[2]))
    *_, (expected, _) = rounds(healthy, losses)
    assert plain(state) == plain(expected)


def test_a_result_that_cannot_be_sent_is_the_client_s_failure(tmp_path: Path) -> None:
    _, record = next(rounds(toy(tmp_path, "faults:Unsendable")))
    ((client, code, reason),) = [(r.client, r.code, r.reason) for r in record.refusals]
    assert (client, code) == (1, "F408")
    assert reason.startswith("failed: ")
    assert "ratio" in reason


@pytest.mark.parametrize("name", ["norm.running_var", "out.bias"])
@pytest.mark.parametrize("hook", ["aggregate", "absorb"])
def test_a_model_that_is_not_finite_on_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hook: str
) -> None:
    setup = toy(tmp_path, "toys:Asking")
    original = getattr(type(setup.fed.method), hook)

    def poisoned(self: Any, ctx: RoundContext, state: ServerState, replies: Any) -> ServerState:
        new = original(self, ctx, state, replies)
        bad = new.values[name].clone()
        bad[-1] = torch.nan
        return replace(new, values={**new.values, name: bad})

    monkeypatch.setattr(type(setup.fed.method), hook, poisoned)
    with pytest.raises(DivergedError, match=f"`{name}` of the global model is not finite"):
        next(rounds(setup))
