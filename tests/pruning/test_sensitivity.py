"""The result file: what it says, and what `read_rates` makes of files of any origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpcli.engine.trained import Trained
from fpcli.errors import DataError, UsageError
from fpcli.pruning.sensitivity import (
    KIND,
    SWEEP_FORMAT,
    find_largest_ratio,
    order_by_steepness,
    read_rates,
    result,
)
from fpcli.pruning.sweep import BASELINE, SweepConfig, Tally, key_of
from fpcli.scores.magnitude import l1
from fpcli.settings.metrics import find_metric


def content() -> dict[str, Any]:
    groups = [
        {"name": "conv1", "initial_width": 16, "accuracy": [0.91, 0.90, 0.4]},
        {"name": "conv2", "initial_width": 32, "accuracy": [0.80, 0.70, 0.6]},
        {"name": "fc1", "initial_width": 64, "accuracy": [0.88, 0.89, 0.891]},
    ]
    return {
        "format": SWEEP_FORMAT,
        "kind": KIND,
        "baseline_accuracy": 0.9,
        "ratios": [0.1, 0.5, 0.9],
        "groups": groups,
    }


@pytest.mark.parametrize(
    ("max_drop", "want"),
    [
        (0.0, {"conv1": 0.5, "conv2": 0.0, "fc1": 0.0}),
        (1.0, {"conv1": 0.5, "conv2": 0.0, "fc1": 0.9}),
        (10.0, {"conv1": 0.5, "conv2": 0.1, "fc1": 0.9}),
    ],
)
def test_rates_are_the_largest_harmless_ratios(
    cnn: Trained, tmp_path: Path, max_drop: float, want: dict[str, float]
) -> None:
    path = tmp_path / "sens.json"
    path.write_text(json.dumps(content()), "utf-8")
    assert read_rates(path, max_drop, cnn.layout) == want


def _in_group(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda c: c["groups"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.update(format=2), "format 2"),
        (lambda c: c.update(kind="prune"), "no result"),
        (lambda c: c.pop("ratios"), "ratios"),
        (lambda c: c.update(ratios=[0.1, "x", 0.9]), "cannot be read"),
        (lambda c: c.update(ratios=[0.1, 0.5, 2.0]), "out of range"),
        (lambda c: c.update(ratios=[0.1]), "cannot be read"),
        (lambda c: c.update(groups=7), "cannot be read"),
        (lambda c: c.update(baseline_accuracy=None), "cannot be read"),
        (lambda c: c["groups"].pop(), "another network: `fc1`"),
        (_in_group("initial_width", 15), "other widths"),
        (_in_group("name", "conv9"), "another network"),
        (_in_group("accuracy", [0.1, 0.2, None]), "cannot be read"),
    ],
)
def test_other_files_are_refused(
    cnn: Trained, tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    found = content()
    spoil(found)
    path = tmp_path / "sens.json"
    path.write_text(json.dumps(found), "utf-8")
    with pytest.raises(DataError, match=message):
        read_rates(path, 1.0, cnn.layout)


def test_no_file_no_json_and_no_sense(cnn: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_rates(tmp_path / "none.json", 1.0, cnn.layout)
    for text in ("{", "[1]", "\x00", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text, "utf-8")
        with pytest.raises(DataError, match="cannot be read"):
            read_rates(tmp_path / "bad.json", 1.0, cnn.layout)
    for drop in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="cannot be allowed"):
            read_rates(tmp_path / "bad.json", drop, cnn.layout)


def test_rounding_does_not_decide() -> None:
    assert find_largest_ratio([0.5], [0.9 - 0.01], 0.9, 1.0, find_metric("accuracy")) == 0.5
    assert find_largest_ratio([0.5], [0.8899], 0.9, 1.0, find_metric("accuracy")) == 0.0


def test_a_result_has_the_curves_and_the_norms(cnn: Trained) -> None:
    config = SweepConfig(("l1", "random"), (0.5, 0.9))
    tallies = {BASELINE: Tally(10, 9, 1.0)}
    for score, hits in (("l1", 8), ("random", 5)):
        for name, group in cnn.layout.prunable.items():
            tallies[key_of(score, name, group.width // 2)] = Tally(10, hits, 2.0)
            tallies[key_of(score, name, int(group.width * 0.1 + 1e-9))] = Tally(10, 1, 3.0)
    found = result(cnn, config, tallies, max_drop=10, seconds=1.5)
    assert (found["baseline_accuracy"], found["ratios"], found["seconds"]) == (0.9, (0.5, 0.9), 1.5)
    first = found["groups"][0]
    assert (first["name"], first["width"], first["accuracy"], first["kept"]) == (
        "conv1", 16, [0.8, 0.1], [8, 1],
    )  # fmt: skip
    assert first["loss"] == [0.2, 0.3]
    assert first["curves"]["random"]["accuracy"] == [0.5, 0.1]
    assert first["max_ratio"] == 0.5
    sizes = l1(cnn.layout, cnn.values)["conv1"]
    assert first["norms"] == pytest.approx(
        (sizes.sort(descending=True).values / sizes.max()).tolist()
    )
    assert first["norm_area"] == pytest.approx(float(sizes.mean() / sizes.max()))


def test_steep_groups_come_first() -> None:
    areas = {"flat": 0.9, "steep": 0.3, "middle": 0.5}
    groups = [{"name": name, "norm_area": area} for name, area in areas.items()]
    assert order_by_steepness(groups) == ["steep", "middle", "flat"]
