from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from faults import Tampering, losing
from replies import plain, rounds

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import Evaluation, Totals
from fpcli.errors import ClientError
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Score
from fpcli.train.setup import Setup, prepare_run


def toy(tmp_path: Path, method: str = "fedavg", **changes: Any) -> Setup:
    return prepare_run(toy_recipe(method, **changes), tmp_path / "memory")


class Recording(Inline):
    """Keeps the lengths of all jobs and replies."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.site)
        self.sizes: list[tuple[int, int]] = []

    def run(self, jobs: Any) -> Any:
        jobs = list(jobs)
        for outcome in super().run(jobs):
            assert outcome.reply is not None
            self.sizes.append((len(jobs[outcome.job]), len(outcome.reply)))
            yield outcome


def test_seconds_of_a_client_by_hand(tmp_path: Path) -> None:
    """Compute every second and byte of a round from the network and the device.

    Multiply-adds per sample of the toy network on 8 x 8 images with one channel:
    stem 16 positions * 8 * 9 = 1152; branch 16 * 8 * 72 = 9216; hidden 32 * 12 = 384;
    out 12 * 10 = 120; together 10872. A training step takes three forward passes, and a
    multiply-add is two operations. A device of `uniform` has 20 GFLOP/s and 20 and 10 Mbit/s.
    """
    setup = toy(tmp_path, fleet__profile="uniform", fleet__variation=0.0, local__epochs=2)
    executor = Recording(setup)
    _, record = next(rounds(setup, executor))
    for client, (down, up) in zip(record.clients, executor.sizes, strict=True):
        samples = setup.fed.num_examples[client.client]
        assert client.macs == 10872
        assert client.params == 8 * 9 + 8 + 16 + 8 * 72 + 8 + 32 * 12 + 12 + 120 + 10
        assert client.num_examples == samples
        assert client.compute_s == 3.0 * (2.0 * 10872 * (2 * samples) / 20e9)
        assert (client.down_bytes, client.up_bytes) == (down, up)
        assert client.down_s == 8.0 * down / 20e6
        assert client.up_s == 8.0 * up / 10e6
    totals = [client.compute_s + client.down_s + client.up_s for client in record.clients]
    assert record.clock_s == record.totals.clock_s == max(totals)
    assert record.down_bytes == sum(down for down, _ in executor.sizes)
    assert record.up_bytes == sum(up for _, up in executor.sizes)


def test_the_loss_of_a_round_is_weighted_by_samples(tmp_path: Path) -> None:
    setup = toy(tmp_path)
    _, record = next(rounds(setup))
    samples = setup.fed.num_examples
    assert len(set(samples)) == 4
    assert len({client.loss for client in record.clients}) == 4
    total = math.fsum(client.loss * samples[client.client] for client in record.clients)
    assert record.loss == pytest.approx(total / sum(samples), rel=1e-14)


def test_a_round_with_enough_replies_counts(tmp_path: Path) -> None:
    setup = toy(tmp_path, min_clients=3)
    executor = Tampering(setup.site, losing(2))
    _, record = next(rounds(setup, executor))
    assert (record.attempts, executor.num_runs) == (1, 1)
    assert [client.client for client in record.clients] == [0, 1, 3]
    assert [(r.client, r.code, r.is_dropped) for r in record.refusals] == [(2, "F410", True)]


def test_a_round_with_too_few_replies_is_tried_again(tmp_path: Path) -> None:
    setup = toy(tmp_path, min_clients=3)
    honest_state, honest = next(rounds(setup))
    executor = Tampering(setup.site, losing(0, 2, runs=[1, 2]))
    state, record = next(rounds(setup, executor))
    assert (record.attempts, executor.num_runs) == (3, 3)
    assert [refusal.client for refusal in record.refusals] == [0, 2, 0, 2]
    assert plain(state) == plain(honest_state)
    assert record.down_bytes == 3 * honest.down_bytes
    lost = sum(client.up_bytes for client in honest.clients if client.client in (0, 2))
    assert record.up_bytes == 3 * honest.up_bytes - 2 * lost
    seconds = {c.client: c.compute_s + c.down_s + c.up_s for c in honest.clients}
    assert record.clock_s == 2 * max(seconds[1], seconds[3]) + max(seconds.values())


@pytest.mark.parametrize("retries", [0, 2])
def test_too_few_replies_in_every_attempt(tmp_path: Path, retries: int) -> None:
    setup = toy(tmp_path, min_clients=3, round_retries=retries)
    executor = Tampering(setup.site, losing(0, 2))
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    before = plain(state)
    with pytest.raises(ClientError, match="round 1: 2 usable replies, 3 needed") as caught:
        next(server.play(setup.fed, state, executor, totals))
    assert caught.value.exit_status == 4
    assert "min_clients" in caught.value.hint
    assert executor.num_runs == retries + 1
    assert plain(state) == before


def test_late_clients_are_dropped_and_the_clock_stops_at_the_deadline(tmp_path: Path) -> None:
    free = toy(tmp_path, fleet__variation=0.0)
    _, record = next(rounds(free))
    seconds = {c.client: c.compute_s + c.down_s + c.up_s for c in record.clients}
    slowest_even, fastest_odd = max(seconds[0], seconds[2]), min(seconds[1], seconds[3])
    assert slowest_even < fastest_odd, "odd clients have slow devices"
    deadline_s = (slowest_even + fastest_odd) / 2
    setup = toy(tmp_path, fleet__variation=0.0, fleet__deadline_s=deadline_s)
    state, record = next(rounds(setup))
    assert [client.client for client in record.clients] == [0, 2]
    assert [(r.client, r.code, r.is_dropped) for r in record.refusals] == [
        (1, "F409", True),
        (3, "F409", True),
    ]
    assert record.clock_s == deadline_s
    without, _ = next(rounds(free, Tampering(free.site, losing(1, 3))))
    assert plain(state) == plain(without)


def test_a_deadline_exactly_at_the_slowest_client_drops_nobody(tmp_path: Path) -> None:
    _, record = next(rounds(toy(tmp_path)))
    _, again = next(rounds(toy(tmp_path, fleet__deadline_s=record.clock_s)))
    assert again.refusals == ()
    assert again.clock_s == record.clock_s


def test_a_deadline_that_nobody_meets(tmp_path: Path) -> None:
    setup = toy(tmp_path, fleet__deadline_s=1e-6, round_retries=1)
    with pytest.raises(ClientError, match="the deadline is 1e-06 s") as caught:
        next(rounds(setup))
    assert "fleet.deadline_s" in caught.value.hint


def cohorts(tmp_path: Path, **changes: Any) -> list[tuple[int, ...]]:
    changes = {"clients_per_round": 4, "task__clients": 12, "eval_every": 100} | changes
    return [record.cohort for _, record in rounds(toy(tmp_path, **changes))]


def test_cohorts_are_sorted_and_drawn_anew_in_every_round(tmp_path: Path) -> None:
    drawn = cohorts(tmp_path)
    assert all(list(cohort) == sorted(set(cohort)) for cohort in drawn)
    assert all(len(cohort) == 4 for cohort in drawn)
    assert all(set(cohort) <= set(range(12)) for cohort in drawn)
    assert len(set(drawn)) == 3
    assert cohorts(tmp_path) == drawn
    assert cohorts(tmp_path, local__lr=0.01) == drawn, "training decides no cohort"
    assert cohorts(tmp_path, seed=8) != drawn


def test_a_repeated_round_asks_other_clients(tmp_path: Path) -> None:
    setup = toy(tmp_path, clients_per_round=4, task__clients=12, min_clients=2)
    first, retried = (
        next(rounds(setup, Tampering(setup.site, losing(0, 1, 2, runs=runs))))[1]
        for runs in ([], [1])
    )
    assert retried.attempts == 2
    assert retried.cohort != first.cohort
    assert {r.client for r in retried.refusals} == set(first.cohort[:3])


def test_personal_models_are_judged_on_their_own_test_data(tmp_path: Path) -> None:
    setup = toy(tmp_path, "toys:Personal", rounds=1)
    *_, (state, record) = rounds(setup)
    assert record.evaluation is not None
    scores = record.evaluation.clients
    assert list(scores) == [0, 1, 2, 3]
    assert tuple(s.num_examples for s in scores.values()) == setup.site.test_sizes
    for client, indices in enumerate(setup.site.test_parts):
        trained_on = setup.fed.dataset.train.labels[setup.parts[client]].unique()
        own = setup.fed.dataset.test.labels[indices]
        assert torch.equal(own.unique(), trained_on)
    judged_without_memory = server.judge_models(
        setup.fed, state, Inline(replace(setup.site, home=tmp_path / "nothing"))
    )
    assert judged_without_memory.test == record.evaluation.test
    assert judged_without_memory.clients != scores, "`view` mixes the remembered model in"


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
    """Let the evaluations have these accuracies on validation and test data."""
    left = iter(scores)

    def judge(fed: Any, state: Any, executor: Any) -> Evaluation:
        validation, test = next(left)
        return Evaluation(
            Score(1.0, {"accuracy": validation}, 10), Score(1.0, {"accuracy": test}, 10)
        )

    monkeypatch.setattr(server, "judge_models", judge)


def test_validation_data_chooses_the_best_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [(0.3, 0.9), (0.5, 0.4), (0.5, 0.8), (0.2, 1.0)])
    records = [record for _, record in rounds(toy(tmp_path, rounds=4))]
    best = [(r.totals.best_round, r.totals.best_test["accuracy"]) for r in records]
    assert best == [(1, 0.9), (2, 0.4), (2, 0.4), (2, 0.4)]
    assert records[-1].totals.best_validation == {"accuracy": 0.5}


def test_rounds_without_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [(0.3, 0.9), (0.5, 0.4), (0.4, 0.6)])
    records = [record for _, record in rounds(toy(tmp_path, rounds=5, eval_every=2))]
    assert [record.evaluation is not None for record in records] == [False, True, False, True, True]
    assert [record.totals.best_round for record in records] == [0, 2, 2, 4, 4]


def test_a_model_pruned_on_the_server_is_trained_and_judged_as_what_it_is(tmp_path: Path) -> None:
    setup = toy(tmp_path)
    layout, executor = setup.fed.layout, Inline(setup.site)
    name, group = next(iter(layout.prunable.items()))
    half = Support({name: torch.arange(0, group.width, 2)})
    state, _ = server.begin_training(setup.fed, setup.values, executor)
    pruned = replace(state, support=half)
    noisy = dict(state.values)
    for key, covered in half.scatter(layout, half.gather(layout, state.values))[1].items():
        noisy[key] = torch.where(covered.bool(), state.values[key], 1e9)
    judged = server.judge_models(setup.fed, pruned, executor)
    assert judged == server.judge_models(setup.fed, replace(pruned, values=noisy), executor)
    assert judged.test != server.judge_models(setup.fed, state, executor).test
    new, record = next(server.play(setup.fed, pruned, executor, Totals()))
    assert record.cost == count_cost(layout, half)
    assert torch.equal(new.values["stem.weight"][1::2], state.values["stem.weight"][1::2])
    assert not torch.equal(new.values["stem.weight"], state.values["stem.weight"])
