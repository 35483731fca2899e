from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from histories import event, names, texts

from fpcli.errors import NeedError
from fpcli.report.plots import draw_fit, draw_run


def test_both_pictures(tmp_path: Path) -> None:
    history = [event(n, (0.1, 0.5, 0.2, 0.6)) for n in range(1, 9)]
    paths = draw_run(history, tmp_path)
    assert names(paths) == ["curves.png", "curves.svg", "ratios.png", "ratios.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names(paths)
    curves, ratios = texts(paths[1]), texts(paths[3])
    for text in ("test accuracy after round 8", "traffic down + up (MB)", "simulated time (min)"):
        assert text in curves
    assert "6 7 8 round" in " ".join(curves.split())  # the axis goes as far as the rounds
    for text in ("clients 0, 2", "speed 1, mean ratio 0.15", "clients 1, 3", "speed 0.25"):
        assert text in ratios
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_no_ratios_no_picture_of_them(tmp_path: Path) -> None:
    paths = draw_run([event(1, (None, None)), event(2, (None, None))], tmp_path)
    assert names(paths) == ["curves.png", "curves.svg"]


@pytest.mark.parametrize(
    "history",
    [
        [],
        [event(1, (0.3,))],
        [event(1, (0.3, 0.3), is_judged=False)],
        [event(n, (0.3, 0.4), is_judged=n % 5 == 0) for n in range(1, 11)],
        [event(1, (0.3, 0.4)), event(2, (0.3,)), {"event": "other", "round": 2}],
        [event(1, [i / 40 for i in range(40)])],
    ],
    ids=["nothing", "one round", "not judged", "judged at times", "absent clients", "40 clients"],
)
def test_odd_histories(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    assert all(path.stat().st_size > 1000 for path in draw_run(history, tmp_path))


@pytest.mark.parametrize("epochs", [0, 3])
def test_plain_training(tmp_path: Path, epochs: int) -> None:
    history: list[dict[str, Any]] = [{"event": "other", "round": 1}]
    for number in range(1, epochs + 1):
        score = {"accuracy": 1 - 0.3 / number, "loss": 1 / number}
        history.append(
            {"event": "epoch", "round": number, "loss": 0.5, "lr": 0.1, "validation": score}
            | {"test": score}
        )
    paths = draw_fit(history, tmp_path)
    assert names(paths) == ["curves.png", "curves.svg"]
    words = texts(paths[1])
    title = "90.00% test accuracy after epoch 3" if epochs else "no epoch was evaluated"
    for text in (title, "accuracy (%)" * bool(epochs), "loss", "learning rate"):
        assert text in words


def test_errors_and_ranks_have_their_own_axis(tmp_path: Path) -> None:
    """A value that is no number, null in JSON, is left out."""
    history = [event(n, (None,)) for n in (1, 2, 3)]
    for one, mae in zip(history, (50.0, None, 44.0), strict=True):
        one["validation"] = one["test"] = {"mae": mae, "r2": 0.5, "loss": 1.0}
    draw_run(history, tmp_path)
    words = texts(tmp_path / "curves.svg")
    assert "44.0000 test MAE after round 3" in words and "%" not in words
    assert "test at best validation" in words
    history[-1]["test"] = history[1]["test"]
    draw_run(history, tmp_path)
    assert "no number as test MAE after round 3" in texts(tmp_path / "curves.svg")
    for one in history:
        one["validation"] = one["test"] = {"ndcg@10": 0.25, "hr@10": 0.5}
    draw_run(history, tmp_path)
    assert "0.2500 test NDCG@10 after round 3" in texts(tmp_path / "curves.svg")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    history = [event(n, (0.1, 0.5)) for n in range(1, 4)]
    first = [path.read_bytes() for path in draw_run(history, tmp_path)]
    assert first == [path.read_bytes() for path in draw_run(history, tmp_path)]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        draw_run([event(1, (None,))], tmp_path / "none")


def test_curves_can_be_read_in_one_column(tmp_path: Path) -> None:
    """At 3.3 inches, the width of a column, the text of 9.5 points is still 7."""
    most = 9.5 / 7 * 3.3 * 150
    long = tmp_path / "-".join(["a long name of a run"] * 5)
    long.mkdir()
    for paths in (draw_run([event(1, (None,))], long), draw_fit([], long)):
        assert struct.unpack(">II", paths[0].read_bytes()[16:24])[0] <= most
