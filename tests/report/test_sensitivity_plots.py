from __future__ import annotations

from pathlib import Path
from typing import Any

from fpcli.report.sensitivity_plots import draw_sensitivity


def result(scores: list[str], *, has_retrained: bool) -> dict[str, Any]:
    curve = {"accuracy": [0.8, 0.3]} | ({"retrained_accuracy": [0.9, 0.7]} if has_retrained else {})
    group = {**curve, "norms": [1.0, 0.5, 0.25], "curves": dict.fromkeys(scores, curve)}
    return {
        "model": "vgg16",
        "images": 2000,
        "metric": "accuracy",
        "baseline_accuracy": 0.9,
        "ratios": [0.5, 0.9],
        "groups": [group | {"name": name} for name in ("conv1", "conv2")],
    }


def test_every_picture_is_drawn_the_same_twice(tmp_path: Path) -> None:
    found = result(["l1"], has_retrained=True)
    paths = draw_sensitivity(found, tmp_path / "sens")
    assert [path.name for path in paths] == [
        f"sens-{stem}.{kind}"
        for stem in ("norms", "accuracy", "retrained")
        for kind in ("png", "svg")
    ]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in draw_sensitivity(found, tmp_path / "sens")] == before


def test_every_score_has_a_panel_and_every_group_a_line(tmp_path: Path) -> None:
    draw_sensitivity(result(["l1", "l2", "nisp", "random"], has_retrained=False), tmp_path / "sens")
    svg = (tmp_path / "sens-accuracy.svg").read_text("utf-8")
    # Text is drawn as shapes, which keep it as a comment.
    for word in ("conv1", "conv2", "ranked by l1", "ranked by random"):
        assert f"<!-- {word} -->" in svg
    assert not (tmp_path / "sens-retrained.svg").exists()
