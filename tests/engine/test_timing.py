"""Simulated seconds that a plan or an answer brings itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from toys import Timed

from fpcli.engine import server
from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.method import Method
from fpcli.engine.planning import foresee
from fpcli.engine.round_context import RoundContext
from fpcli.engine.timing import work_seconds
from fpcli.engine.types import TRAIN, Ask, Link, ServerState, Support, Timing
from fpcli.errors import ClientError
from fpcli.structure.cost import count_cost
from fpcli.train.setup import Setup, prepare_run


def setup_of(tmp_path: Path, **changes: Any) -> Setup:
    return prepare_run(toy_recipe("toys:Timed", rounds=1, **changes), tmp_path)


def test_a_plan_is_taken_at_its_word(tmp_path: Path) -> None:
    """Client k takes k + 1, 0.5 and 0.25 seconds, whatever its device and its bytes."""
    setup = setup_of(tmp_path)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    _, record = next(server.play(setup.fed, state, Inline(setup.site), totals))
    seconds = [(c.compute_s, c.down_s, c.up_s) for c in record.clients]
    assert seconds == [(client + 1.0, 0.5, 0.25) for client in range(4)]
    assert record.clock_s == 4.75
    assert all(client.down_bytes > 1000 for client in record.clients)


def test_whoever_drops_out_of_such_a_plan_is_waited_for(tmp_path: Path) -> None:
    changes = {"fleet__dropout": 0.5, "fleet__dropout_when": "training"}
    setup = setup_of(tmp_path, **changes)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    _, record = next(server.play(setup.fed, state, Inline(setup.site), totals))
    gone = {refusal.client for refusal in record.refusals}
    assert 0 < len(gone) < 4
    assert record.clock_s == max(k + (1.5 if k in gone else 1.75) for k in range(4))


def test_a_plan_without_seconds_leaves_them_to_the_clock(tmp_path: Path) -> None:
    fed = setup_of(tmp_path).fed
    plan = Ask(0)
    compute_s, down_s, up_s = work_seconds(fed, plan, 1, 1000, 2000)
    device = fed.fleet.at(1, 0)
    assert (down_s, up_s) == (8000 / device.down_bps, 16000 / device.up_bps)
    assert compute_s > 0
    doubled = dataclasses.replace(plan, macs=2 * count_cost(fed.layout, Support()).macs)
    found = work_seconds(fed, doubled, 1, 1000, 2000)
    assert found == (pytest.approx(2 * compute_s), down_s, up_s)
    timed = dataclasses.replace(plan, time=Timing(1.0, 2.0, 3.0))
    assert work_seconds(fed, timed, 1, 1000, 2000) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("told", [{}, {"compute_s": 7.0}, {"down_s": 5.0, "up_s": 6.0}])
def test_an_answer_says_what_it_knows_and_the_clock_the_rest(
    told: dict[str, float], tmp_path: Path
) -> None:
    fed = setup_of(tmp_path).fed
    usual = dict(
        zip(("compute_s", "down_s", "up_s"), work_seconds(fed, Ask(1, "x"), 0, 99, 98), strict=True)
    )
    found = work_seconds(fed, Ask(1, "x"), 0, 99, 98, told)
    assert found == tuple((usual | told).values())


def test_answers_count_with_their_own_seconds(tmp_path: Path, monkeypatch: Any) -> None:
    setup = setup_of(tmp_path)
    _, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    assert totals.clock_s == 33.0  # the slowest of 30, 31, 32 and 33
    monkeypatch.setattr(Timed, "offset_s", -40.0)
    with pytest.raises(ClientError, match="-10 s of work"):
        server.begin_training(setup.fed, setup.values, Inline(setup.site))


@pytest.mark.parametrize("op", [TRAIN, "x"])
@pytest.mark.parametrize(
    ("link", "seconds"),
    [
        (Link(down_bps=4000.0, up_bps=500.0), (2.0, 32.0)),
        (Link(up_bps=8000.0), (0.0008, 2.0)),
        (Link(down_bps=8000.0), (1.0, 0.0016)),
        (Link(), (0.0008, 0.0016)),
        (None, (0.0008, 0.0016)),
    ],
)
def test_bytes_travel_at_the_rates_of_the_link_that_is_given(
    op: str, link: Link | None, seconds: tuple[float, float], tmp_path: Path
) -> None:
    """1,000 bytes down and 2,000 up; the device's own link has 10 Mbit/s both ways."""
    fed = setup_of(tmp_path, fleet__variation=0.0).fed
    level = dataclasses.replace(fed.fleet.level(0), down_bps=10e6, up_bps=10e6)
    fed = dataclasses.replace(fed, fleet=dataclasses.replace(fed.fleet, own={0: level}))
    compute_s, *moving_s = work_seconds(fed, Ask(0, op, link=link), 1, 1000, 2000)
    assert moving_s == pytest.approx(seconds)
    assert compute_s == work_seconds(fed, Ask(0, op), 1, 1, 1)[0]
    timed = Ask(0, op, link=link, time=Timing(1.0, 2.0, 3.0))
    assert work_seconds(fed, timed, 1, 1000, 2000) == (1.0, 2.0, 3.0)


class Sharing(Method):
    """Gives client k a link of 1,000 (k + 1) bits per second down, and for training half of that
    up; a question goes up over the client's own link."""

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        links = [Link(down_bps=1000.0 * (client + 1)) for client in ctx.cohort]
        asks = [Ask(i, "labels", link=x) for i, x in zip(ctx.cohort, links, strict=True)]
        return asks if ctx.phase == "start" else []

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        links = [Link(1000.0 * (client + 1), 500.0 * (client + 1)) for client in ctx.cohort]
        return [Ask(i, link=x) for i, x in zip(ctx.cohort, links, strict=True)]


def test_a_round_over_a_shared_channel(tmp_path: Path) -> None:
    """Client 0 has the slowest link, and sending is by far the longest."""
    recipe = toy_recipe("toys:Asking", rounds=1, fleet__variation=0.0)
    setup = prepare_run(recipe, tmp_path)
    fed = dataclasses.replace(setup.fed, method=Sharing())
    state, totals = server.begin_training(fed, setup.values, Inline(setup.site))
    asked_s = 8 * totals.down_bytes / 4 / 1000.0
    assert asked_s < totals.clock_s < asked_s + 1.0
    _, record = next(server.play(fed, state, Inline(setup.site), totals))
    for client in record.clients:
        assert client.down_s == pytest.approx(8 * client.down_bytes / (1000 * client.client + 1000))
        assert client.up_s == pytest.approx(8 * client.up_bytes / (500 * client.client + 500))
    first = record.clients[0]
    assert record.clock_s == first.compute_s + first.down_s + first.up_s
    fleet = dataclasses.replace(fed.fleet, dropout=1.0, dropout_when="training")
    lossy = dataclasses.replace(fed, fleet=fleet)
    brought = exchange(lossy, state, foresee(fed, state, 1), Inline(setup.site), round=1)
    assert brought.lost_s == [c.compute_s + c.down_s for c in record.clients]
