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
    title = "90.0% test accuracy after epoch 3" if epochs else "no epoch was evaluated"
    for text in (title, "accuracy (%)", "cross-entropy", "learning rate"):
        assert text in words


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
