from __future__ import annotations

from pathlib import Path

from folders import client, event, ranking, regression, rounds, write_run

from fpcli.report.compare import ComparedRow, compare_runs
from fpcli.report.curves import (
    Chart,
    draw_rows,
    draw_run_charts,
    find_quantity,
    group_by_data,
    list_quantities,
)
from fpcli.report.runs import Run, read_run


def rows(tmp_path: Path) -> tuple[ComparedRow, ...]:
    write_run(tmp_path / "a-s0", [event(1, 0.5, 0.4), event(2, 0.7, 0.8), event(3, 0.9, 0.9)])
    write_run(tmp_path / "a-s1", [event(1, 0.5, 0.6), event(2, 0.7, 0.6)], seed=1, rounds=3)
    write_run(tmp_path / "b", rounds(0.3), local__lr=0.5)
    return compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]).rows


def by_title(charts: list[Chart]) -> dict[str, Chart]:
    return {chart.title: chart for chart in charts}


def test_means_and_ranges_over_seeds(tmp_path: Path) -> None:
    """Round 3 of one seed only is left out."""
    charts = by_title(list(draw_rows(rows(tmp_path))))
    assert list(charts) == [
        "Test accuracy by round", "Test accuracy by traffic", "Test accuracy by simulated time",
        "Test accuracy by real time", "Training loss", "Test loss",
    ]  # fmt: skip
    first, second = charts["Test accuracy by traffic"].lines
    assert (first.label, first.number, second.label, second.number) == ("a", 0, "b", 1)
    assert first.points == [(15_000.0, 0.5), (30_000.0, 0.7)]
    assert first.band == [(15_000.0, 0.4, 0.6), (30_000.0, 0.6, 0.8)]
    assert (second.points, second.band) == ([(15_000.0, 0.3)], ())
    assert charts["Training loss"].lines[0].points == [(1.0, 2.0), (2.0, 1.0)]


def test_one_row_shows_more_of_itself(tmp_path: Path) -> None:
    charts = by_title(list(draw_rows(rows(tmp_path)[:1])))
    assert [line.label for line in charts["Accuracy by round"].lines] == ["test", "validation"]
    assert [line.label for line in charts["Loss"].lines] == ["test", "training"]


def test_other_metrics_have_their_own_names_and_axes(tmp_path: Path) -> None:
    history = regression(60.0, 44.0)
    history[1]["personal"] = {"mae": {"0": 50.0, "1": 40.0}, "r2": {"0": 0.5, "1": 0.5}}
    write_run(tmp_path / "number", history)
    found = compare_runs([read_run(tmp_path / "number")]).rows
    charts = by_title(list(draw_rows(found)))
    assert list(charts)[0::3] == ["MAE by round", "MAE by real time"]
    error = charts["MAE by round"]
    assert error.y == ("MAE", "number", None, None)
    assert [line.points for line in error.lines] == [
        [(1.0, 59.0), (2.0, 43.0)], [(1.0, 60.0), (2.0, 44.0)],
    ]  # fmt: skip
    assert charts["MAE of the clients"].lines[0].points == [(2.0, 45.0)]
    assert "logits" not in charts["MAE of the clients"].note


def test_ranking_shows_hit_rates_too(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        write_run(tmp_path / f"lr{lr}", ranking(0.1, 0.2), local__lr=lr)
    found = compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]).rows
    charts = by_title(list(draw_rows(found)))
    assert charts["Test NDCG@10 by traffic"].y.kind == "number"
    rate = charts["Test HR@10 by round"]
    assert (rate.y.kind, rate.y.high, rate.lines[1].points) == (
        "percent", 1.02, [(1.0, 0.2), (2.0, 0.4)],
    )  # fmt: skip


def test_what_can_be_drawn() -> None:
    known = list_quantities(["ndcg@10", "hr@10"])
    assert {"hr@10", "validation_ndcg@10", "clients_hr@10", "loss", "bytes"} <= {*known}
    assert all(find_quantity(name) for name in known)
    assert find_quantity("best_hr@10") is find_quantity("params") is None


def test_rows_of_other_tasks_share_no_axis(tmp_path: Path) -> None:
    write_run(tmp_path / "a", rounds(0.5), task__data="csv:x.csv")
    write_run(tmp_path / "b", regression(44.0), task__data="csv:x.csv", local__lr=0.5)
    write_run(tmp_path / "c", rounds(0.5), local__lr=0.5)
    write_run(tmp_path / "d", [], task__data="csv:x.csv", local__lr=0.7)
    found = compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]).rows
    groups = {
        data: [row.label for row in members] for data, members in group_by_data(found).items()
    }
    assert groups == {
        "csv:x.csv, accuracy": ["a", "d"], "csv:x.csv, mae": ["b"], "digits": ["c"],
    }  # fmt: skip


def test_accuracy_on_withheld_classes(tmp_path: Path) -> None:
    history = [event(n, 0.5, 0.5) | {"withheld": {"accuracy": 0.4 / n}} for n in (1, 2)]
    found = compare_runs([read_run(write_run(tmp_path / "a", history))]).rows
    (line,) = by_title(list(draw_rows(found)))["Accuracy on withheld classes"].lines
    assert line.points == [(1.0, 0.4), (2.0, 0.2)]


def test_losses_that_are_not_finite_leave_gaps(tmp_path: Path) -> None:
    history = [*rounds(0.5), event(2, 0.4, 0.4, loss=None)]
    found = compare_runs([read_run(write_run(tmp_path / "a", history))]).rows
    assert [len(line.points) for line in by_title(list(draw_rows(found)))["Loss"].lines] == [2, 1]


def run(tmp_path: Path, **more: object) -> Run:
    history = [event(number, 0.5, 0.5) | more for number in (1, 2)]
    return read_run(write_run(tmp_path / "a", history))


def test_a_plain_run_has_no_charts_of_its_own(tmp_path: Path) -> None:
    assert list(draw_run_charts(run(tmp_path))) == []


def test_ratios_by_speed_of_the_device(tmp_path: Path) -> None:
    clients = [
        client(number, compute_s=1.0 + 9 * (number % 2), notes={"ratio": 0.1 * number})
        for number in range(4)
    ]
    (chart,) = draw_run_charts(run(tmp_path, clients=clients))
    fast, slow = chart.lines
    assert (fast.label, slow.label) == ("clients 0, 2, speed 1", "clients 1, 3, speed 0.1")
    assert fast.points[0] == (1, 0.1)
    assert fast.band[0] == (1, 0.0, 0.2)


def test_layers_coverage_and_overlap(tmp_path: Path) -> None:
    notes = {"density": {"conv": 0.5, "fc": 1.0}, "overlap": 0.9, "overlap_shared_labels": 0.95}
    clients = [client(0, pruning_error=0.2, params=500), client(1)]
    charts = by_title(
        list(draw_run_charts(run(tmp_path, notes=notes, clients=clients, coverage=1)))
    )
    assert list(charts) == [
        "Density per layer", "Clients that hold the least covered parameter",
        "Size of the clients' models", "Overlap of the clients' masks",
    ]  # fmt: skip
    assert [line.label for line in charts["Density per layer"].lines] == ["conv", "fc"]
    overlaps = charts["Overlap of the clients' masks"].lines
    assert {line.label: line.points[0] for line in overlaps} == {
        "all pairs": (1, 0.9), "a label in common": (1, 0.95),
    }  # fmt: skip
    (sizes,) = charts["Size of the clients' models"].lines
    assert (sizes.points[0], sizes.band[0]) == ((1, 0.75), (1, 0.5, 1.0))


def test_clients_own_accuracy(tmp_path: Path) -> None:
    found = compare_runs([run(tmp_path, personal={"0": 0.7, "1": 0.9}, local={"0": 0.7})]).rows
    assert by_title(list(draw_rows(found)))["Accuracy of the clients"].lines[0].points[1] == (
        2,
        0.8,
    )


def test_local_accuracy(tmp_path: Path) -> None:
    """One run has it beside the accuracy of its clients, several have a chart of their own."""
    scores = {"accuracy": {"0": 0.7}, "local_accuracy": {"0": 0.9}}
    one, other = run(tmp_path / "a", format=2, personal=scores), run(tmp_path / "b")
    chart = by_title(list(draw_rows(compare_runs([one]).rows)))["Accuracy of the clients"]
    assert {line.label: line.points[0] for line in chart.lines} == {
        "mean of the clients": (1, 0.7), "local": (1, 0.9),
    }  # fmt: skip
    assert "logits of its other classes set to 0" in chart.note
    charts = by_title(list(draw_rows(compare_runs([one, other]).rows)))
    assert "logits" not in charts["Accuracy of the clients"].note
    assert [len(line.points) for line in charts["Local accuracy"].lines] == [2, 0]
