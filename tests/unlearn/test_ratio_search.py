"""The share of channels that forgets: what a trial is judged by, and a search from all sides."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from driver import Listener, begin, digits_file

from fpcli.errors import FpError
from fpcli.report.runs import read_run
from fpcli.report.trials import read_search
from fpcli.store import events
from fpcli.store.run_folder import RunFolder
from fpcli.train import federated_run
from fpcli.train.run_session import Interrupted
from fpcli.unlearn import ratio_search, unlearn_run
from fpcli.unlearn.compared_models import Spending
from fpcli.unlearn.original import read_original
from fpcli.unlearn.ratio_search import NotForgottenError, Trial, judge_trial
from fpcli.unlearn.unlearn_run import Unlearning, read_result

COST = Spending(2, 300, 1.5, 0.5)


def told(*right: list[int]) -> list[torch.Tensor]:
    """Return the counts of three classes with 10, 20 and 20 samples."""
    return [torch.tensor([one, [10, 20, 20]]) for one in right]


@pytest.mark.parametrize(
    ("end", "left", "outcome"),
    [
        ([0, 18, 18], 0.0, "forgotten"),
        ([1, 18, 18], 1 / 8, "remembered"),
        ([0, 9, 9], 0.0, "forgotten"),  # 45 %: guessing is 33 %, and 10 % more is asked for
        ([0, 9, 8], 0.0, "destroyed"),
        ([8, 0, 0], 1.0, "remembered"),
    ],
)
def test_a_trial_is_judged_by_what_clients_count(end: list[int], left: float, outcome: str) -> None:
    found = judge_trial(0.2, told([8, 20, 16], [4, 2, 2], [2, 9, 9], end), (0,), COST)
    assert (found.left, found.outcome) == (pytest.approx(left), outcome)
    assert found.forget_accuracy == {"original": 0.8, "pruned": 0.4, "finetuned": end[0] / 10}
    rest = {"original": 0.9, "pruned": 0.1, "finetuned": (end[1] + end[2]) / 40}
    assert found.retain_accuracy == rest
    assert (found.ratio, found.rounds, found.bytes, found.seconds) == (0.2, 2, 300, 1.5)


def test_of_several_classes_the_one_that_is_known_best_counts() -> None:
    found = judge_trial(0.2, told([10, 20, 20], [0, 0, 20], [0, 5, 20]), (0, 1), COST)
    assert (found.left, found.outcome) == (0.25, "remembered")
    assert found.forget_accuracy["finetuned"] == 5 / 30


@pytest.mark.parametrize("samples", [10, 129, 1070])
def test_exactly_a_tenth_is_forgotten(samples: int) -> None:
    known = samples // 10 * 10
    total = torch.tensor([samples, 20])
    counts = [torch.stack([torch.tensor([x, 20]), total]) for x in (known, known // 2, known // 10)]
    assert judge_trial(0.2, counts, (0,), COST).outcome == "forgotten"
    counts[-1][0, 0] += 1
    assert judge_trial(0.2, counts, (0,), COST).outcome == "remembered"


def test_clients_that_did_not_answer_at_the_end() -> None:
    counts = told([8, 20, 16], [8, 20, 16], [1, 20, 16])
    counts[-1][1] = torch.tensor([2, 20, 20])  # half of two samples, where it was 80 % of ten
    assert judge_trial(0.2, counts, (0,), COST).left == pytest.approx(0.5 / 0.8)
    counts[-1][:, 0] = 0
    found = judge_trial(0.2, counts, (0,), COST)
    assert (found.left, found.outcome) == (1.0, "remembered")


def test_what_was_no_better_than_guessing_is_not_destroyed() -> None:
    found = judge_trial(0.2, told([8, 5, 5], [0, 0, 0], [0, 5, 5]), (0,), COST)
    assert found.outcome == "forgotten"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of the run that is to forget."""
    found = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_run, "draw_run", lambda history, folder: [])
        patch.setattr(ratio_search, "draw_run", lambda history, folder: [])
        patch.setattr(unlearn_run, "draw_forgetting", lambda *_, **__: [])
        begin(found, "run", "fedavg", task__data=digits_file(found), rounds=1)
        yield found


def made(runs: Path, folder: Path, listener: Any = None, **changes: Any) -> Unlearning:
    settings: dict[str, Any] = {
        "task__data": digits_file(runs), "task__start": str(runs / "run"), "task__withhold": [3],
        "method__ratio": "auto", "rounds": 2,
    }  # fmt: skip
    recipe = toy_recipe("unlearn", **(settings | changes))
    original = toy_recipe("fedavg", task__data=digits_file(runs), rounds=1)
    folder.mkdir(exist_ok=True)
    source = read_original(RunFolder(runs / "run"), original)
    return Unlearning(
        RunFolder(folder), recipe, source, lambda _: nullcontext(listener or Listener())
    )


def forgets(monkeypatch: pytest.MonkeyPatch, outcome_at: dict[float, str]) -> None:
    """Let outcomes be those of a table, since the toy run has learned too little to know."""

    def judge(ratio: float, *rest: Any) -> Trial:
        return replace(judge_trial(ratio, *rest), outcome=outcome_at[ratio])

    monkeypatch.setattr(ratio_search, "judge_trial", judge)


BETWEEN = {0.1: "remembered", 0.2: "remembered", 0.35: "forgotten", 0.45: "forgotten"}


def test_the_smallest_share_that_forgets_becomes_the_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgets(monkeypatch, BETWEEN)
    work = made(runs, tmp_path / "new")
    result = work.run()
    found = read_search(work.folder.path)
    assert found is not None and result["search"] == found
    assert [trial["ratio"] for trial in found["trials"]] == [0.35, 0.2]
    assert (found["ratio"], found["max_ratio"]) == (0.35, 0.45)
    # The trial is the run: as if the share had been given, and nothing is played twice.
    other = replace(made(runs, tmp_path / "given", method__ratio=0.35, method__counts_right=True))
    expected = other.run()
    weights = [x / "final/model.safetensors" for x in (work.folder.path, other.folder.path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    one, two = ({**s, "real_s": 0} for s in (result["stages"][2], expected["stages"][2]))
    assert one == two and (one["stage"], one["rounds"]) == ("finetuned", 2)
    chosen, spared = found["trials"]
    assert (chosen["bytes"], chosen["seconds"]) == (one["bytes"], one["seconds"])
    keys = ("rounds", "bytes", "seconds", "real_s")
    assert found["cost"] == {key: spared[key] for key in keys}
    # What is left is an ordinary run, with what was tried beside its rounds.
    assert not (work.folder.path / "search").exists() and work.folder.is_whole
    assert "search.json" in (work.folder.path / "SHA256SUMS").read_text()
    assert read_run(work.folder.path).settings["method.ratio"] == 0.35
    assert [trial["ratio"] for trial in read_run(work.folder.path).trials] == [0.35, 0.2]
    assert events.find_sound(work.folder.events)[:2] == (2, "")
    listener = Listener()
    recipe = toy_recipe("unlearn", **{"task__data": digits_file(runs)})
    assert recipe.method.options["ratio"] != "auto"
    again = replace(made(runs, work.folder.path, listener), recipe=other.recipe).run()
    assert listener.rounds == [] and again["search"] == found


def test_a_search_that_is_stopped_in_every_round(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgets(monkeypatch, BETWEEN)
    made(runs, tmp_path / "whole").run()

    def send(number: int) -> None:
        if number:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = []
    work = made(runs, tmp_path / "cut", Listener(send))
    while len(stopped) < 20:
        try:
            work.run()
            break
        except Interrupted as error:
            stopped.append((error.folder.name, error.round))
    tried = [(name, number) for name in ("0.35", "0.2", "finetune-only") for number in (1, 2)]
    assert stopped == tried
    for name in ("final", "pruned", "finetune-only/final"):
        one, two = (
            (tmp_path / run / name / "model.safetensors").read_bytes() for run in ("whole", "cut")
        )
        assert one == two
    results = [read_result(RunFolder(tmp_path / run))["search"] for run in ("whole", "cut")]
    for found in results:
        found["cost"]["real_s"] = 0
        found["trials"] = [{**trial, "real_s": 0} for trial in found["trials"]]
    assert results[0] == results[1]


@pytest.mark.parametrize("place", ["draw_run", "_adopt", "write_recipe"])
def test_a_kill_between_search_and_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    forgets(monkeypatch, BETWEEN)
    work = made(runs, tmp_path / "new")

    write = RunFolder.write_recipe

    def die(*arguments: Any) -> None:
        if place == "write_recipe" and arguments[0] != work.folder:
            write(*arguments)
        elif place != "write_recipe" or arguments[1].method.options["ratio"] != "auto":
            raise MemoryError("killed")
        else:
            write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder if place == "write_recipe" else ratio_search, place, die)
        with pytest.raises(MemoryError):
            work.run()
    listener = Listener()
    result = made(runs, work.folder.path, listener).run()
    assert listener.rounds == [1, 2]  # of the comparison
    assert result["search"]["ratio"] == 0.35 and work.folder.is_whole


@pytest.mark.parametrize(
    ("outcomes", "tried", "message", "hint"),
    [
        (dict.fromkeys(BETWEEN, "remembered"), [0.35, 0.45], "up to 0.45 makes the model forget",
         "--max-ratio"),
        (dict.fromkeys(BETWEEN, "destroyed"), [0.35, 0.2, 0.1], "and keep the rest: with 0.1",
         "--finetune-rounds 2"),
    ],
)  # fmt: skip
def test_no_share_will_do(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: dict[float, str],
    tried: list[float],
    message: str,
    hint: str,
) -> None:
    forgets(monkeypatch, outcomes)
    work = made(runs, tmp_path / "new", rounds=1)
    for _ in range(2):  # the second time nothing is played
        with pytest.raises(NotForgottenError, match=message) as caught:
            work.run()
        assert hint in caught.value.hint and "task.withhold=[3]" in caught.value.hint
        assert (caught.value.exit_status, caught.value.code) == (8, "F802")
        assert [trial["ratio"] for trial in caught.value.search["trials"]] == tried
        silent = Listener(lambda number: pytest.fail("played"))
        work = made(runs, tmp_path / "new", silent, rounds=1)
    assert caught.value.search["ratio"] is None
    assert not (work.folder.path / "search").exists()


def test_nothing_is_left_of_a_search_that_could_not_begin(runs: Path, tmp_path: Path) -> None:
    work = made(runs, tmp_path / "new", method__max_ratio=0.01)
    with pytest.raises(FpError, match="no share of the channels"):
        work.run()
    assert not work.folder.path.exists()
