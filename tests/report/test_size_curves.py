from __future__ import annotations

from pathlib import Path

import pytest
from folders import rounds, write_fit, write_pruning, write_run

from fpcli.report.compare import ComparedRow, compare_runs
from fpcli.report.runs import read_run
from fpcli.report.size_curves import chart_sizes, trace_sizes


def rows_of(folder: Path) -> tuple[ComparedRow, ...]:
    return compare_runs([read_run(path) for path in sorted(folder.iterdir())]).rows


def test_a_line_from_the_whole_model_to_the_smallest(tmp_path: Path) -> None:
    write_fit(tmp_path / "fit", 0.5, 0.9)
    for ratio, score in ((0.3, 0.88), (0.7, 0.6), (0.5, 0.8)):
        write_pruning(tmp_path / f"p{ratio}", ratio, score)
    macs, params = chart_sizes(rows_of(tmp_path))
    line, point = macs.lines
    assert line.label == "filters"
    assert line.points == [
        (1500.0, 0.6), (2500.0, 0.8), (3500.0, 0.88), (5000.0, 0.9),
    ]  # fmt: skip
    assert line.band == ()
    assert (point.label, point.points) == ("fit", [(5000.0, 0.9)])
    assert [at for at, _ in params.lines[0].points] == [300, 500, 700, 1000]


def test_bands_over_seeds(tmp_path: Path) -> None:
    for seed, score in ((0, 0.7), (1, 0.8), (2, 0.9)):
        write_pruning(tmp_path / f"s{seed}", 0.5, score, source_seed=seed)
    (line,) = trace_sizes(rows_of(tmp_path), "macs", "accuracy")
    assert line.points == [(2500.0, pytest.approx(0.8)), (5000.0, pytest.approx(0.9))]
    assert line.band[0] == (2500.0, 0.7, 0.9)
    (line,) = trace_sizes(rows_of(tmp_path), "macs", "accuracy", "interval")
    # t(2) * s / sqrt(3) = 4.3027 * 0.1 / 1.7321 = 0.2484
    assert line.band[0] == pytest.approx((2500.0, 0.5516, 1.0484), abs=1e-4)


def test_ways_of_pruning_are_named_by_what_they_differ_in(tmp_path: Path) -> None:
    for score in ("l1", "random"):
        write_pruning(tmp_path / score, 0.5, 0.8, method__score=score)
    labels = [line.label for line in trace_sizes(rows_of(tmp_path), "macs", "loss")]
    assert labels == ["filters, method.score=l1", "filters, method.score=random"]


def test_without_prunings_there_is_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "fed", rounds(0.5))
    assert list(chart_sizes(rows_of(tmp_path))) == []
