from __future__ import annotations

from pathlib import Path

import pytest
from folders import event, ranking, regression, rounds, write_fit, write_pruning, write_run

from fpcli.report.measures import Budget, average_seeds, measure_run
from fpcli.report.runs import Run, read_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    history = [event(1, 0.3, 0.35), event(2, None), event(3, 0.8, 0.7), event(4, 0.6, 0.9)]
    return read_run(write_run(tmp_path / "a", history))


def test_a_whole_run(run: Run) -> None:
    """Four rounds of 10 kB + 5 kB, 2 s and 1 s; round 3 has the best validation accuracy."""
    assert measure_run(run) == {
        "accuracy": 0.9, "best_accuracy": 0.7, "loss": 0.25, "down_bytes": 40_000,
        "up_bytes": 20_000, "bytes": 60_000, "rounds": 4, "clock_s": 8.0, "real_s": 4.0,
        "params": 1000, "macs": 5000.0, "file_bytes": None, "latency_1_ms": None,
        "latency_64_ms": None,
    }  # fmt: skip


def test_the_price_of_a_target_is_decided_by_validation(run: Run) -> None:
    values = measure_run(run, target={"accuracy": 0.6})
    assert [values[f"target_{name}"] for name in ("rounds", "bytes", "clock_s", "real_s")] == [
        3, 45_000, 6.0, 3.0,
    ]  # fmt: skip
    assert (
        measure_run(run, target={"accuracy": 0.85})["target_rounds"] is None
    )  # only test accuracy has that


@pytest.mark.parametrize(
    ("budget", "accuracy"),
    [
        (Budget("rounds", 3), 0.7),
        (Budget("rounds", 2), 0.35),  # round 2 was not evaluated
        (Budget("bytes", 15_000), 0.35),
        (Budget("bytes", 14_999), None),
        (Budget("clock_s", 100.0), 0.9),
    ],
)
def test_accuracy_within_a_budget(run: Run, budget: Budget, accuracy: float | None) -> None:
    assert measure_run(run, budgets=[budget])["at_1"] == accuracy


def test_a_run_without_rounds(tmp_path: Path) -> None:
    values = measure_run(
        read_run(write_run(tmp_path / "a", [])),
        target={"accuracy": 0.5},
        budgets=[Budget("bytes", 1)],
    )
    assert set(values.values()) == {None}


def test_means_of_clients_are_those_of_the_last_round_that_has_them(tmp_path: Path) -> None:
    history = rounds(0.1, 0.2, 0.3)
    for one, value in zip(history, (0.6, 0.8), strict=False):
        clients = {"0": value, "1": value - 0.5}
        one |= {"format": 2, "personal": {"accuracy": clients, "local_accuracy": {"0": 1.0}}}
    values = measure_run(read_run(write_run(tmp_path / "a", history)))
    assert values["clients_accuracy"] == pytest.approx(0.55)
    assert values["local_accuracy"] == 1.0


def test_means_of_clients_of_an_earlier_version(tmp_path: Path) -> None:
    """It had clients' values and their means beside the scores."""
    old = {
        "personal": {"0": 0.25, "1": 0.75}, "local": {"0": 0.5, "1": 1.0},
        "clients_accuracy": {"mean": 0.5, "std": 0.25, "min": 0.25},
        "local_accuracy": {"mean": 0.75, "std": 0.25, "min": 0.5},
    }  # fmt: skip
    values = measure_run(read_run(write_run(tmp_path / "a", [event(1, 0.3, 0.35, **old)])))
    assert (values["clients_accuracy"], values["local_accuracy"]) == (0.5, 0.75)
    assert (values["accuracy"], values["best_accuracy"]) == (0.35, 0.35)


def test_of_an_error_the_lowest_is_best(tmp_path: Path) -> None:
    """Round 2 has the lowest on validation data; its test data chose nothing."""
    run = read_run(write_run(tmp_path / "a", regression(60.0, 44.0, 48.0)))
    target, budget = {"mae": 50.0}, Budget("rounds", 1)
    values = measure_run(run, target, [budget])
    assert (values["mae"], values["best_mae"], values["r2"]) == (47.0, 43.0, 0.25)
    assert (values["target_rounds"], values["at_1"]) == (2, 59.0)
    assert measure_run(run, {"mae": 43.0})["target_rounds"] is None  # only test data has that
    assert "accuracy" not in values


def test_every_metric_of_a_target_counts_in_some_round(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", ranking(0.1, 0.3, 0.2)))
    values = measure_run(run, {"hr@10": 0.2, "ndcg@10": 0.25})
    assert (values["ndcg@10"], values["best_ndcg@10"], values["best_hr@10"]) == (0.2, 0.3, 0.6)
    assert values["target_rounds"] == 2
    assert measure_run(run, {"hr@10": 0.2, "mrr": 0.5})["target_rounds"] is None
    assert measure_run(run, {"mae": 9.0})["target_rounds"] is None


def test_the_interval_over_seeds() -> None:
    """t(1) = 12.7062, s of (1, 3) = sqrt(2): 12.7062 * sqrt(2) / sqrt(2)."""
    value = average_seeds([1.0, 3.0])
    assert value.mean == 2.0
    assert value.half_width == pytest.approx(12.7062, abs=1e-4)
    assert average_seeds([5.0]) == (5.0, None, 1)
    assert average_seeds([None]) == (None, None, 0)


def test_what_plain_training_and_pruning_cost(tmp_path: Path) -> None:
    """Two epochs of half a second, no bytes and no clock; sizes are those of the files."""
    goal = {"accuracy": 0.6}
    fit = measure_run(read_run(write_fit(tmp_path / "fit", 0.5, 0.9)), goal, [Budget("rounds", 1)])
    assert (fit["rounds"], fit["real_s"], fit["target_rounds"], fit["at_1"]) == (2, 1.0, 2, 0.5)
    assert (fit["accuracy"], fit["loss"], fit["file_bytes"]) == (0.9, 0.5, 4000)
    assert {fit[key] for key in ("bytes", "clock_s", "down_bytes", "target_clock_s")} == {None}
    half = measure_run(read_run(write_pruning(tmp_path / "half", 0.5, 0.75, latency=True)))
    assert (half["rounds"], half["real_s"], half["accuracy"], half["loss"]) == (2, 1.0, 0.75, 0.25)
    assert (half["params"], half["macs"], half["file_bytes"]) == (500, 2500.0, 2000)
    assert (half["latency_1_ms"], half["latency_64_ms"]) == (0.25, 1.0)
    clock = measure_run(read_run(tmp_path / "fit"), budgets=[Budget("clock_s", 9.0)])
    assert clock["at_1"] is None
