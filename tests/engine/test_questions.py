"""Who is asked, which answers count, and what becomes of a run where nobody answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from faults import Tampering, losing
from replies import plain, put_together, rounds, take_apart

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.types import Ask
from fpcli.errors import ClientError
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.message import unpack_job


def toy(tmp_path: Path, method: str = "toys:Asking", **changes: Any) -> Setup:
    return prepare_run(toy_recipe(method, **changes), tmp_path / "memory")


def with_fleet(setup: Setup, is_good: Callable[[Setup], bool], **changes: Any) -> Setup:
    """Return the federation with the first seed of its fleet that gives what a test is about."""
    for seed in range(1000):
        fleet = replace(setup.fed.fleet, seed=seed, **changes)
        found = replace(setup, fed=replace(setup.fed, fleet=fleet))
        if is_good(found):
            return found
    raise AssertionError("no seed gives such a fleet")


def there(setup: Setup, round: int, attempt: int = 0) -> list[int]:
    clients = range(len(setup.fed.num_examples))
    return [c for c in clients if setup.fed.fleet.is_available(round, c, attempt)]


class Listening(Inline):
    """Writes down which client was asked what in which round."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.site)
        self.asked: list[tuple[int, str, int]] = []

    def run(self, jobs: Any) -> Any:
        return super().run(self._heard(jobs))

    def _heard(self, jobs: Any) -> Any:
        for data in jobs:
            header = unpack_job(data, limit_bytes=1 << 30).header
            self.asked.append((header.round, header.op, header.client))
            yield data

    def clients(self, round: int, op: str) -> list[int]:
        return [client for number, what, client in self.asked if (number, what) == (round, op)]


def slow_links(setup: Setup) -> Setup:
    """Return the federation with steady devices, the odd ones on very slow links."""
    fleet = setup.fed.fleet
    own = {c: replace(fleet.level(c), down_bps=fleet.level(c).down_bps / 100) for c in (1, 3)}
    return replace(setup, fed=replace(setup.fed, fleet=replace(fleet, variation=0.0, own=own)))


def hurried(setup: Setup, deadline_s: float, **rules: Any) -> Setup:
    rules = {"deadline_s": deadline_s, **rules}
    return replace(setup, fed=replace(setup.fed, rules=replace(setup.fed.rules, **rules)))


DEADLINE_S = 0.1
"""Fast clients answer in 0.003 s and train in 0.009 s; slow links need 0.49 s for the model."""


def test_an_answer_after_the_deadline_does_not_count(tmp_path: Path) -> None:
    free = slow_links(toy(tmp_path))
    setup = hurried(free, DEADLINE_S)
    told: list[str] = []
    state, totals = server.begin_training(
        setup.fed, setup.values, Inline(setup.site), tell=told.append
    )
    assert state.method.phases == (("start", 2),)
    assert sorted(state.method.labels) == [0, 2]
    assert totals.clock_s == DEADLINE_S
    (line,) = told
    assert line.startswith("before round 1: clients 1, 3 dropped (F409 `labels`: ")
    assert line.endswith("; the deadline is 0.1 s)")
    everybody, whole = server.begin_training(free.fed, free.values, Inline(free.site))
    assert everybody.method.phases == (("start", 4),)
    assert whole.clock_s > DEADLINE_S
    assert (totals.down_bytes, totals.up_bytes) == (whole.down_bytes, whole.up_bytes)


def test_a_deadline_exactly_at_the_slowest_answer_drops_nobody(tmp_path: Path) -> None:
    free = toy(tmp_path)
    _, totals = server.begin_training(free.fed, free.values, Inline(free.site))
    setup = toy(tmp_path, fleet__deadline_s=totals.clock_s)
    told: list[str] = []
    state, again = server.begin_training(
        setup.fed, setup.values, Inline(setup.site), tell=told.append
    )
    assert state.method.phases == (("start", 4),)
    assert (again.clock_s, told) == (totals.clock_s, [])


def test_every_exchange_of_a_round_waits_until_the_deadline_and_no_longer(tmp_path: Path) -> None:
    """A question, the training, and a question before the evaluation."""
    setup = hurried(slow_links(toy(tmp_path, rounds=1)), DEADLINE_S)
    state, record = next(rounds(setup))
    assert state.method.phases == (("start", 2), ("round", 2), ("eval", 2))
    assert record.clock_s == pytest.approx(3 * DEADLINE_S)
    assert [client.client for client in record.clients] == [0, 2]
    late = [(r.op, r.client, r.code) for r in record.refusals]
    assert late == [(op, c, "F409") for op in ("labels", "train", "labels") for c in (1, 3)]


def test_a_start_that_nobody_answers_in_time(tmp_path: Path) -> None:
    setup = toy(tmp_path, fleet__deadline_s=1e-6, round_retries=1)
    executor = Tampering(setup.site, losing())
    text = (
        r"before round 1: 0 usable replies, 1 needed: client \d: `labels`: 0[.]\d+ s; the deadline"
    )
    with pytest.raises(ClientError, match=text) as caught:
        server.begin_training(setup.fed, setup.values, executor)
    assert caught.value.hint == "raise fleet.deadline_s"
    assert caught.value.exit_status == 4
    assert executor.num_runs == 2


@pytest.mark.parametrize(("reply", "attempts"), [("lost", 1), ("wrong", 2)])
def test_a_round_goes_on_without_lost_answers_but_not_with_wrong_ones(
    tmp_path: Path, reply: str, attempts: int
) -> None:
    """The first exchange of a round asks, the second one trains."""
    setup = toy(tmp_path, rounds=1)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))

    def tamper(run: int, job: int, data: bytes) -> bytes | None:
        if run > 1:
            return data
        message = take_apart(data)
        message.parts.clear()
        message.header.update(error="failed: no")
        return None if reply == "lost" else put_together(message)

    executor = Tampering(setup.site, tamper)
    new, record = next(server.play(setup.fed, state, executor, totals))
    assert record.attempts == attempts
    assert len(record.clients) == 4
    assert {refusal.op for refusal in record.refusals} == {"labels"}
    phases = [("start", 4), ("round", 4)] if reply == "wrong" else [("start", 4)]
    assert [phase for phase in new.method.phases if phase[0] != "eval"] == phases


def test_who_is_away_is_not_asked(tmp_path: Path) -> None:
    setup = with_fleet(
        toy(tmp_path, rounds=2), lambda s: 0 < len(there(s, 0)) < 4, availability=0.5
    )
    executor = Listening(setup)
    server.begin_training(setup.fed, setup.values, executor)
    assert executor.clients(0, "labels") == there(setup, 0)


def test_a_start_without_anybody_is_tried_again(tmp_path: Path) -> None:
    setup = with_fleet(
        toy(tmp_path), lambda s: not there(s, 0) and bool(there(s, 0, 1)), availability=0.3
    )
    executor = Listening(setup)
    server.begin_training(setup.fed, setup.values, executor)
    assert executor.clients(0, "labels") == there(setup, 0, 1)
    never = replace(setup, fed=replace(setup.fed, rules=replace(setup.fed.rules, round_retries=0)))
    with pytest.raises(ClientError, match="needed: no client was available") as caught:
        server.begin_training(never.fed, never.values, executor)
    assert "fleet.availability" in caught.value.hint
    quiet = toy(tmp_path, "fedavg", round_retries=0)
    alone = replace(quiet.fed, fleet=never.fed.fleet)
    assert server.begin_training(alone, quiet.values, executor)[1].clock_s == 0, (
        "it has nothing to ask"
    )


def test_the_client_that_prunes_first_is_one_that_is_there(tmp_path: Path) -> None:
    passes = {"method__ip_passes": 1, "method__ip_batches": 1}
    setup = with_fleet(
        toy(tmp_path, "prunefl", **passes), lambda s: there(s, 0)[:1] == [2], availability=0.5
    )
    executor = Listening(setup)
    server.begin_training(setup.fed, setup.values, executor)
    assert executor.asked == [(0, "prune", 2)]


def test_heterofl_asks_for_classes_when_a_client_first_takes_part(tmp_path: Path) -> None:
    """Those that were away before the first round tell their classes in a later one, and once."""

    def come_one_after_the_other(setup: Setup) -> bool:
        known: set[int] = set()
        sizes = []
        for number in range(3):
            sizes.append(len(known := known | {*there(setup, number)}))
        return 0 < sizes[0] < sizes[1] < sizes[2] == 4

    setup = with_fleet(
        toy(tmp_path, "heterofl", rounds=2, eval_every=2),
        come_one_after_the_other,
        availability=0.5,
    )
    executor = Listening(setup)
    *_, (state, record) = rounds(setup, executor)
    first, second, third = (there(setup, number) for number in range(3))
    assert executor.clients(0, "classes") == first
    assert executor.clients(1, "classes") == sorted({*second} - {*first})
    assert executor.clients(2, "classes") == sorted({*third} - {*first, *second})
    assert executor.clients(2, "batch_norm") == third == list(record.cohort)
    labels = setup.fed.dataset.train.labels
    for client, part in enumerate(setup.parts):
        own = torch.zeros(10, dtype=torch.bool).index_fill_(0, labels[part].unique(), True)
        assert torch.equal(state.method.classes[client], own)


def test_statistics_that_nobody_gives_in_time_end_the_run(tmp_path: Path) -> None:
    """Without them the model could not be judged, as if no batch norm had ever seen data."""
    setup = toy(tmp_path, "heterofl", rounds=1)

    def tamper(run: int, job: int, data: bytes) -> bytes | None:
        return None if take_apart(data).header["op"] == "batch_norm" else data

    with pytest.raises(ClientError, match=r"round 1: 0 usable replies, 1 needed: client \d: lost"):
        next(rounds(setup, Tampering(setup.site, tamper)))


def test_statistics_of_those_who_answer_in_time(tmp_path: Path) -> None:
    """Lost answers and clients that were never there leave the same statistics."""
    setup = toy(tmp_path, "heterofl", rounds=1)

    def tamper(run: int, job: int, data: bytes) -> bytes | None:
        header = take_apart(data).header
        return None if (header["op"], header["client"]) == ("batch_norm", 1) else data

    state, record = next(rounds(setup, Tampering(setup.site, tamper)))
    assert [(r.client, r.code, r.op) for r in record.refusals] == [(1, "F410", "batch_norm")]
    whole, _ = next(rounds(setup))
    assert plain(state.values["stem.weight"]) == plain(whole.values["stem.weight"])
    mean = state.values["norm.running_mean"]
    assert bool(mean.any())
    assert not torch.equal(mean, whole.values["norm.running_mean"])


def test_a_client_with_withheld_samples_only_tells_of_them_and_never_trains(
    tmp_path: Path,
) -> None:
    """Scores are those of all data together, whoever holds the samples that are to be forgotten."""
    setup = toy(tmp_path, "unlearn", task__withhold=(3,), rounds=1)
    fed, site = setup.fed, setup.site
    parts, withheld = list(site.parts), list(site.withheld_parts)
    taken = torch.cat([parts[1], parts[0]]).sort().values
    parts[0], parts[1] = parts[0][:0], taken
    sizes = tuple(map(len, parts))
    assert fed.num_withheld[0] > 0
    fed = replace(fed, num_examples=sizes)
    moved = replace(
        setup, fed=fed, site=replace(site, indices=torch.cat(parts), num_examples=sizes)
    )
    assert fed.num_seen(Ask(0, "score", sees_withheld=True)) == len(withheld[0])
    executor = Listening(moved)
    state, totals = server.begin_training(moved.fed, moved.values, executor, moved.support)
    assert executor.clients(0, "score-000") == [0, 1, 2, 3]
    _, record = next(server.play(moved.fed, state, executor, totals))
    assert record.cohort == (1, 2, 3)
    (scored,) = state.method.classes
    before, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site), setup.support)
    for layer, value in before.method.classes[0].activations.items():
        assert torch.allclose(scored.activations[layer], value, atol=1e-5)


def test_who_has_no_test_samples_is_not_judged(tmp_path: Path) -> None:
    setup = toy(tmp_path, "toys:Personal", rounds=1)
    tests = [part[:0] if client == 2 else part for client, part in enumerate(setup.site.test_parts)]
    site = replace(
        setup.site, test_indices=torch.cat(tests), test_sizes=tuple(len(part) for part in tests)
    )
    _, record = next(rounds(replace(setup, site=site)))
    assert record.evaluation is not None
    assert sorted(record.evaluation.clients) == [0, 1, 3]
