from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from folders import ranking, regression, rounds, write_fit, write_pruning, write_run

from fpcli.report.compare import Comparison, compare_runs
from fpcli.report.measures import Budget
from fpcli.report.runs import read_run
from fpcli.report.text_tables import (
    format_comparison,
    list_notes,
    make_item,
    to_csv,
    to_data,
    to_markdown,
)


def comparison(folder: Path, **more: object) -> Comparison:
    write_run(folder / "a|b-s0", rounds(0.5, 0.9))
    write_run(folder / "a|b-s1", rounds(0.5, 0.8), seed=1)
    write_run(folder / "c", rounds(0.6, 0.7), local__lr=0.2)
    return compare_runs([read_run(path) for path in sorted(folder.iterdir())], **more)  # type: ignore[arg-type]


def test_a_table(tmp_path: Path) -> None:
    headers, rows, right = format_comparison(comparison(tmp_path))
    assert headers == [
        "run", "seeds", "test acc last", "at best val", "rounds", "down+up", "clock", "params",
        "multiply-adds", "differs in",
    ]  # fmt: skip
    assert right == list(range(1, 9))
    # t(1) * s / sqrt(2) = 12.7062 * 0.0707 / 1.4142 = 0.6353
    assert rows[0] == [
        "a|b", "2", "85.00% ± 63.53", "85.00% ± 63.53", "2", "30.0 kB", "4.0 s", "1,000", "5,000",
        "(reference) local.lr=0.1",
    ]  # fmt: skip
    assert rows[1][-1] == "local.lr=0.2"


def test_targets_and_budgets_stand_in_the_header(tmp_path: Path) -> None:
    found = comparison(tmp_path, target={"accuracy": 0.85}, budgets=[Budget("clock_s", 2.0)])
    headers, rows, _ = format_comparison(found)
    assert headers[4:8] == [
        "test acc at clock 2.0 s", "rounds to 85% val acc", "down+up to 85% val acc",
        "clock to 85% val acc",
    ]  # fmt: skip
    assert rows[0][4:8] == ["50.00%", "1 of 2 seeds", "1 of 2 seeds", "1 of 2 seeds"]
    assert rows[1][4:8] == ["60.00%", "-", "-", "-"]


def test_metrics_of_other_tasks_have_columns_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "class", rounds(0.5, 0.9))
    write_run(tmp_path / "next", ranking(0.1, 0.2), task__data="csv:a.csv")
    write_run(tmp_path / "number", regression(50.0, 46.0), task__data="csv:b.csv")
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    goal = {"hr@10": 0.3, "mae": 48.5}
    found = compare_runs(runs, target=goal, budgets=[Budget("rounds", 1)])
    headers, rows, _ = format_comparison(found)
    assert headers[2:11] == [
        "test acc last", "acc at best val", "test ndcg@10 last", "ndcg@10 at best val",
        "test hr@10 last", "test mae last", "mae at best val",
        "test acc or ndcg@10 or mae at round 1", "rounds to 30% val hr@10 and 48.5 val mae",
    ]  # fmt: skip
    assert [row[2:11] for row in rows] == [
        ["90.00%", "90.00%", "-", "-", "-", "-", "-", "50.00%", "-"],
        ["-", "-", "0.2000", "0.2000", "40.00%", "-", "-", "0.1000", "-"],
        ["-", "-", "-", "-", "-", "45.0000", "45.0000", "49.0000", "-"],
    ]
    alone = format_comparison(compare_runs(runs[2:], target={"mae": 48.5}))
    assert alone.headers[2:5] == ["test mae last", "at best val", "rounds to 48.5 val mae"]
    assert alone.rows[0][2:5] == ["45.0000", "45.0000", "2"]
    data = to_data(found)["runs"]
    assert (data[1]["hr@10"], data[1]["mae"], data[2]["r2"]) == (0.4, None, 0.25)


def test_only_shares_of_samples_are_left_to_chance_so(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        write_run(tmp_path / f"lr{lr}", regression(50.0), local__lr=lr)
    found = compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())])
    assert len(list_notes(found)) == 1


def test_markdown_has_no_markup_of_names(tmp_path: Path) -> None:
    lines = to_markdown(comparison(tmp_path)).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("| --- | ---: |")
    assert lines[2].startswith(r"| a\|b | 2 |")


def test_csv_holds_plain_numbers(tmp_path: Path) -> None:
    first, second = csv.DictReader(io.StringIO(to_csv(comparison(tmp_path))))
    assert (first["run"], first["seeds"], first["local.lr"]) == ("a|b", "0 1", "0.1")
    assert float(first["accuracy"]) == pytest.approx(0.85)
    assert float(first["accuracy_interval"]) == pytest.approx(0.6353, abs=1e-4)
    assert (second["bytes"], second["accuracy_interval"], second["local.lr"]) == (
        "30000",
        "",
        "0.2",
    )


def test_plain_data(tmp_path: Path) -> None:
    found = comparison(tmp_path, target={"accuracy": 0.7})
    data = to_data(found)
    assert (data["reference"], data["target"], data["budgets"]) == ("a|b", {"accuracy": 0.7}, [])
    one = make_item(found.rows[1])
    assert (one["run"], one["method"], one["seeds"]) == ("c", "fedavg", [0])
    assert one["differs"] == {"local.lr": 0.2}
    assert (one["target_rounds"], one["interval"]["target_rounds"]) == (2, None)


def test_what_a_reader_must_know(tmp_path: Path) -> None:
    interval, chance = list_notes(comparison(tmp_path))
    assert "95 % interval of the mean over seeds" in interval
    # 100 * 1.96 * sqrt(2 * 0.9 * 0.1 / 100)
    assert "below 8.3 points" in chance
    single = compare_runs([read_run(tmp_path / "c")])
    assert list_notes(single) == []
    one_each = compare_runs([read_run(tmp_path / "c"), read_run(tmp_path / "a|b-s0")])
    assert "one seed each" in list_notes(one_each)[0]


def test_latencies_of_different_calls_are_said_to_be(tmp_path: Path) -> None:
    write_fit(tmp_path / "fit", 0.9)
    write_pruning(tmp_path / "p3", 0.3, 0.8, source="fit", latency=True)
    note = "latencies are of different calls; `fp bench` times models side by side"
    assert note not in list_notes(
        compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())])
    )
    write_pruning(tmp_path / "p5", 0.5, 0.8, source="fit", latency=True)
    assert note in list_notes(compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]))
