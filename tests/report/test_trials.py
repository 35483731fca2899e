from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from folders import rounds, write_run

from fpcli.errors import DataError
from fpcli.report.compare import compare_runs
from fpcli.report.page import make_page
from fpcli.report.runs import read_run
from fpcli.report.trials import HEAD, list_trials


def trial(ratio: float, outcome: str = "remembered") -> dict[str, Any]:
    return {
        "ratio": ratio,
        "left": 0.25,
        "outcome": outcome,
        "forget_accuracy": {"original": 0.8, "pruned": 0.7, "finetuned": 0.2},
        "retain_accuracy": {"original": 0.9, "pruned": 0.6, "finetuned": 0.85},
    }


def searched(path: Path, *trials: dict[str, Any]) -> Path:
    write_run(path, rounds(0.5, 0.6))
    search = {"ratio": None, "max_ratio": 0.5, "trials": trials, "cost": {}}
    (path / "search.json").write_text(json.dumps(search))
    return path


def test_rows_are_sorted_by_share() -> None:
    rows = list_trials([trial(0.3, "forgotten"), trial(0.15)])
    assert [row[0] for row in rows] == ["15.0%", "30.0%"]
    assert rows[1] == ("30.0%", "80.0%", "70.0%", "20.0%", "90.0%", "60.0%", "85.0%", "25.0%",
                       "forgotten")  # fmt: skip
    assert len(rows[0]) == len(HEAD)


def test_a_page_tells_what_was_tried(tmp_path: Path) -> None:
    run = read_run(searched(tmp_path / "a", trial(0.3, "<b>")))
    assert len(run.rounds) == 2
    shown = make_page(compare_runs([run]))
    assert "Shares of channels that were tried" in shown
    assert "30.0%" in shown and "&lt;b&gt;" in shown
    assert "Shares of channels" not in make_page(
        compare_runs([read_run(write_run(tmp_path / "b", rounds(0.5)))])
    )


@pytest.mark.parametrize(
    "change", [{"ratio": "x"}, {"left": None}, {"forget_accuracy": {}}, {"outcome": 3}]
)
def test_a_trial_that_is_not_whole(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="a trial of a share of channels is not whole"):
        read_run(searched(tmp_path / "a", trial(0.3) | change))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "search.json: "),
        ("[]", "is missing"),
        ("3", "search.json: "),
        ('{"ratio": 1}', "`cost`"),
    ],
)
def test_a_damaged_search(tmp_path: Path, text: str, problem: str) -> None:
    folder = searched(tmp_path / "a")
    (folder / "search.json").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_run(folder)
