from __future__ import annotations

from pathlib import Path

from fpcli.report.prune_plots import draw_pruning

WIDTHS = {"conv1": (16, 8), "fc1": (64, 24)}


def score(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy}


def test_widths_and_the_way_of_the_accuracy(tmp_path: Path) -> None:
    history = [
        {"event": "before", "validation": score(0.9), "test": score(0.91)},
        {"event": "cut", "step": 1, "validation": score(0.5), "test": score(0.5)},
        {"event": "mask", "step": 1},
        {"event": "epoch", "step": 1, "validation": score(0.8)},
        {"event": "after", "validation": score(0.8), "test": score(0.82)},
    ]
    names = {path.name for path in draw_pruning(WIDTHS, history, tmp_path)}
    assert names == {"widths.png", "widths.svg", "accuracy.png", "accuracy.svg"}
    text = (tmp_path / "accuracy.svg").read_text()
    # Titles are drawn as shapes, whose source text stands in a comment.
    assert "82.0% test accuracy after pruning" in text
    assert "60.0% of all channels removed" in (tmp_path / "widths.svg").read_text()


def test_without_retraining_there_is_no_way_to_draw(tmp_path: Path) -> None:
    cut = {"event": "cut", "step": 1, "validation": score(0.5), "test": score(0.5)}
    names = {path.name for path in draw_pruning(WIDTHS, [cut], tmp_path)}
    assert names == {"widths.png", "widths.svg"}
