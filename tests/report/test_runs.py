from __future__ import annotations

import json
from pathlib import Path

import pytest
from folders import (
    client,
    event,
    judged,
    ranking,
    regression,
    rounds,
    write_fit,
    write_pruning,
    write_run,
)

from fpcli.errors import DataError, RecipeError
from fpcli.report.runs import find_runs, read_run


def test_a_run_is_read(tmp_path: Path) -> None:
    history = [event(1, 0.5, 0.4), event(2, None), event(3, 0.7, 0.6), event(4, 0.7, 0.9)]
    run = read_run(write_run(tmp_path / "mine-s3", history, method__name="fedmp", seed=3))
    assert (run.name, run.method, run.seed) == ("mine-s3", "fedmp", 3)
    assert [item["round"] for item in run.judged] == [1, 3, 4]
    assert run.best and run.best["round"] == 3  # the first of equals, and test data does not decide
    assert run.real_s == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    assert run.important["method.ratio_max"] == 0.8
    assert run.important["local.lr_drop_at"] == []
    assert not {"seed", "executor.workers", "task.data_dir"} & run.important.keys()
    assert run.problem() == ""


@pytest.mark.parametrize(
    ("history", "flags", "problem"),
    [
        ([], {}, "has no round yet"),
        (rounds(0.5, 0.6), {"rounds": 5}, "is unfinished: 2 of 5 rounds"),
        (rounds(0.5, 0.6), {"rounds": 5, "target": {"accuracy": 0.6}}, ""),
        (regression(50.0, 44.0), {"rounds": 5, "target": {"mae": 45}}, ""),
        (
            regression(50.0, 44.0),
            {"rounds": 5, "target": {"mae": 43}},
            "is unfinished: 2 of 5 rounds",
        ),
        (ranking(0.1), {"rounds": 5, "target": {"hr@10": 0.2, "mrr": 0.05}}, ""),
        (
            ranking(0.1),
            {"rounds": 5, "target": {"hr@10": 0.2, "mrr": 0.06}},
            "is unfinished: 1 of 5 rounds",
        ),
        ([event(1, None)], {}, "was never evaluated"),
    ],
)
def test_what_a_run_lacks(tmp_path: Path, history: list, flags: dict, problem: str) -> None:
    assert read_run(write_run(tmp_path / "a", history, **flags)).problem() == problem


def test_runs_of_code_that_is_not_here(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", rounds(0.5))
    text = (path / "recipe.yaml").read_text()
    text = text.replace(
        "name: fedavg", "name: other.package:Method\n  strength: 1e-3\n  kinds: [a]"
    )
    (path / "recipe.yaml").write_text(text)
    run = read_run(path)
    assert run.method == "other.package:Method"
    assert run.settings["method.kinds"] == ["a"]


def test_folders_names_and_folders_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        write_run(tmp_path / "runs" / name, rounds(0.5))
    (tmp_path / "runs" / "notes").mkdir()
    runs = Path("runs")
    assert [run.name for run in find_runs([Path("b"), runs / "a", runs / "b"], runs)] == ["b", "a"]
    assert [run.name for run in find_runs([runs], runs)] == ["a", "b"]


def test_what_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "fedmp-s0", rounds(0.5))
    with pytest.raises(DataError, match="does not exist") as caught:
        find_runs([tmp_path / "fedmp-s1"], tmp_path)
    assert caught.value.hint == "did you mean `fedmp-s0`?"
    (tmp_path / "fedmp-s0" / "recipe.yaml").write_text("[1, 2]")
    with pytest.raises(RecipeError, match="must be a mapping"):
        find_runs([tmp_path / "fedmp-s0"], tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"clock_s": None}, "`clock_s` is not a number"),
        ({"round": "1"}, "`round` is not a number"),
        ({"test": {"loss": 1}}, "`test` has no metric"),
        ({"test": None}, "only one of"),
        ({"test": {"accuracy": 1, "num_examples": "x"}}, "`test` has a value that is no number"),
        ({"test": {"accuracy": 1, "loss": []}}, "`test` has a value that is no number"),
        ({"loss": "x"}, "`loss` is not a number"),
        ({"loss": []}, "`loss` is not a number"),
        ({"real_s": 10**400}, "`real_s` is not a number"),
        ({"clients": [client(1, params=-(10**400))]}, "client 1: `params` is not a number"),
        ({"dropped": ["x"]}, "`dropped` is not a list of replies"),
        ({"notes": 3}, "`notes` is not there"),
        ({"clients": None}, "not a list of clients"),
        ({"clients": [3]}, "not a list of clients"),
        ({"clients": [client(1, params="x")]}, "client 1: `params` is not a number"),
        ({"test": {"loss": 1.0, "best": 1.0}}, "`test` has no metric"),
        ({"test": {"accuracy": "x"}}, "`test` has a value that is no number"),
        ({"personal": {"0": "x"}}, "`personal` is not a mapping of metrics"),
        ({"personal": [0.1]}, "`personal` is not a mapping of metrics"),
        ({"personal": {"0": 0.5}, "local": 3}, "`personal` is not a mapping of metrics"),
        ({"format": 2, "personal": {"0": 0.5}}, "`personal` is not a mapping of metrics"),
        ({"format": 2, "personal": {"mae": {}}}, "`personal` is not a mapping of metrics"),
    ],
)
def test_events_that_are_not_ours(tmp_path: Path, change: dict, problem: str) -> None:
    path = write_run(tmp_path / "a", rounds(0.5))
    broken = event(1, 0.5, 0.5) | change
    (path / "events.jsonl").write_text(json.dumps(broken) + "\n" + json.dumps({"event": "other"}))
    with pytest.raises(DataError, match=problem):
        read_run(path)


def test_what_judges_a_run_and_chooses_its_best_round(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", regression(60.0, 44.0, 44.0, 50.0)))
    assert run.metrics == ("mae", "r2")
    assert run.best and run.best["round"] == 2  # the first of equals
    run = read_run(write_run(tmp_path / "b", ranking(0.1, 0.3, 0.2)))
    assert run.metrics == ("ndcg@10", "hr@1", "hr@10", "mrr")
    assert run.best and run.best["round"] == 2
    assert read_run(write_run(tmp_path / "c", [event(1, None)])).metrics == ()


def test_an_error_that_is_no_number_is_never_best(tmp_path: Path) -> None:
    """JSON has null for it."""
    scores = [None, 40.0, None]
    history = [judged(n, {"mae": x}, {"mae": x}) for n, x in enumerate(scores, start=1)]  # type: ignore[dict-item]
    run = read_run(write_run(tmp_path / "a", history))
    assert run.best and run.best["round"] == 2
    assert read_run(write_run(tmp_path / "b", history[:1])).best is None


@pytest.mark.parametrize("target", ["5", "{accuracy: x}", "{speed: 1}"])
def test_a_target_that_is_not_ours(tmp_path: Path, target: str) -> None:
    path = write_run(tmp_path / "a", rounds(0.5))
    text = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(text.replace("target: {}", f"target: {target}"))
    with pytest.raises(DataError, match="`target` is not a mapping of metrics to numbers"):
        read_run(path)


def test_a_target_of_an_earlier_version(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", rounds(0.5, 0.6), rounds=5)
    text = (path / "recipe.yaml").read_text()
    assert "target: {}" in text
    (path / "recipe.yaml").write_text(text.replace("target: {}", "target_accuracy: 0.6"))
    assert read_run(path).problem() == ""
    (path / "recipe.yaml").write_text(text.replace("target: {}", "target_accuracy: 0.7"))
    assert read_run(path).problem() == "is unfinished: 2 of 5 rounds"


def test_a_recipe_that_is_not_ours(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", rounds(0.5))
    text = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(text.replace("seed: 0", "seed: zero"))
    with pytest.raises(DataError, match="`seed` is not a number"):
        read_run(path)


def test_plain_training_is_read(tmp_path: Path) -> None:
    run = read_run(write_fit(tmp_path / "x", 0.5, 0.9, fit__epochs=3, seed=2))
    assert (run.command, run.method, run.seed, run.data) == ("fit", "fit", 2, "digits")
    assert [event["round"] for event in run.judged] == [1, 2]
    assert run.problem() == "is unfinished: 2 of 3 epochs"
    assert read_run(write_fit(tmp_path / "y", fit__epochs=3)).problem() == "has no epoch yet"
    assert run.file_bytes == 4000


def test_a_pruning_is_read(tmp_path: Path) -> None:
    path = write_pruning(tmp_path / "p", 0.25, 0.8, source="fit-s3", source_seed=3, latency=True)
    (path / "mask.safetensors").write_bytes(bytes(100))
    run = read_run(path)
    assert (run.command, run.method, run.problem()) == ("prune", "filters", "")
    assert (run.important["prune.ratio"], run.important["source"]) == (0.25, "fit")
    assert run.before and run.before["test"]["accuracy"] == 0.9
    (after,) = run.rounds
    assert (after["round"], after["real_s"], after["params"]) == (2, 1.0, 750)
    assert run.latency_ms == {"1": 0.375, "64": 1.5}
    assert run.file_bytes == 3100


def test_runs_and_prunings_in_one_folder(tmp_path: Path) -> None:
    write_pruning(tmp_path / "all" / "p", 0.5, 0.8)
    write_fit(tmp_path / "all" / "fit", 0.9)
    write_run(tmp_path / "all" / "fed", rounds(0.5))
    assert [run.command for run in find_runs([tmp_path / "all"], tmp_path)] == [
        "train",
        "fit",
        "prune",
    ]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("history.jsonl", "", "before or after the pruning is missing"),
        ("history.jsonl", '{"event": "after"}\n{"event": "before"}\n', "`params` is not a number"),
        ("history.jsonl", "[1]\n", "not an event"),
        ("report.json", "[]", "not an object"),
        ("report.json", "{", "report.json: "),
        ("report.json", '{"latency_ms": {"after": {"1": "x"}}}', "no number"),
        ("report.json", '{"latency_ms": {"after": 3}}', "no number"),
        ("report.json", '{"latency_ms": 3}', "not an object"),
        ("report.json", '{"source": []}', "the name or the seed"),
        ("layout.json", '{"data": {"seed": "x"}}', "the name or the seed"),
        ("layout.json", '{"data": [1]}', "not an object"),
    ],
)
def test_a_pruning_that_is_not_ours(tmp_path: Path, file: str, text: str, problem: str) -> None:
    path = write_pruning(tmp_path / "p", 0.5, 0.8)
    (path / file).write_text(text)
    with pytest.raises(DataError, match=problem):
        read_run(path)
