"""Simulated seconds that a plan or an answer brings itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from toys import Timed

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.timing import work_seconds
from fpcli.engine.types import Plan, Probe, Support, Timing
from fpcli.errors import ClientError
from fpcli.run.setup import Setup, prepare


def setup_of(tmp_path: Path, **changes: Any) -> Setup:
    return prepare(toy_recipe("toys:Timed", rounds=1, **changes), tmp_path)


def test_a_plan_is_taken_at_its_word(tmp_path: Path) -> None:
    """Client k takes k + 1, 0.5 and 0.25 seconds, whatever its device and its bytes."""
    setup = setup_of(tmp_path)
    state, totals = server.begin(setup.fed, setup.values, Inline(setup.site))
    _, record = next(server.play(setup.fed, state, Inline(setup.site), totals))
    seconds = [(c.compute_s, c.down_s, c.up_s) for c in record.clients]
    assert seconds == [(client + 1.0, 0.5, 0.25) for client in range(4)]
    assert record.clock_s == 4.75
    assert all(client.down_bytes > 1000 for client in record.clients)


def test_whoever_drops_out_of_such_a_plan_is_waited_for(tmp_path: Path) -> None:
    changes = {"fleet__dropout": 0.5, "fleet__dropout_when": "training"}
    setup = setup_of(tmp_path, **changes)
    state, totals = server.begin(setup.fed, setup.values, Inline(setup.site))
    _, record = next(server.play(setup.fed, state, Inline(setup.site), totals))
    gone = {refusal.client for refusal in record.refusals}
    assert 0 < len(gone) < 4
    assert record.clock_s == max(k + (1.5 if k in gone else 1.75) for k in range(4))


def test_a_plan_without_seconds_leaves_them_to_the_clock(tmp_path: Path) -> None:
    fed = setup_of(tmp_path).fed
    plan = Plan(0, Support(), fed.local)
    compute_s, down_s, up_s = work_seconds(fed, plan, 1, 1000, 2000)
    device = fed.fleet.at(1, 0)
    assert (down_s, up_s) == (8000 / device.down_bps, 16000 / device.up_bps)
    assert compute_s > 0
    timed = dataclasses.replace(plan, time=Timing(1.0, 2.0, 3.0))
    assert work_seconds(fed, timed, 1, 1000, 2000) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("told", [{}, {"compute_s": 7.0}, {"down_s": 5.0, "up_s": 6.0}])
def test_an_answer_says_what_it_knows_and_the_clock_the_rest(
    told: dict[str, float], tmp_path: Path
) -> None:
    fed = setup_of(tmp_path).fed
    usual = dict(
        zip(
            ("compute_s", "down_s", "up_s"),
            work_seconds(fed, Probe(1, "x"), 0, 99, 98),
            strict=True,
        )
    )
    found = work_seconds(fed, Probe(1, "x"), 0, 99, 98, told)
    assert found == tuple((usual | told).values())


def test_answers_count_with_their_own_seconds(tmp_path: Path, monkeypatch: Any) -> None:
    setup = setup_of(tmp_path)
    _, totals = server.begin(setup.fed, setup.values, Inline(setup.site))
    assert totals.clock_s == 33.0  # the slowest of 30, 31, 32 and 33
    monkeypatch.setattr(Timed, "offset_s", -40.0)
    with pytest.raises(ClientError, match="-10 s of work"):
        server.begin(setup.fed, setup.values, Inline(setup.site))
