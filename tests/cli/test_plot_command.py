from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import ranking, regression, rounds, write_fit, write_pruning, write_run
from histories import texts


@pytest.fixture(autouse=True)
def runs() -> Path:
    """Three seeds of two methods."""
    folder = Path("runs")
    for seed in (0, 1, 2):
        write_run(folder / f"a-s{seed}", rounds(0.5, 0.8 + seed / 100), seed=seed)
        write_run(folder / f"b-s{seed}", rounds(0.4, 0.7, 0.8), seed=seed, method__name="fedmp")
    return folder


def test_a_pdf_of_one_column_with_its_fonts(fp: Callable) -> None:
    done = fp("plot", "runs", "-o", "fig.pdf")
    assert (done.status, done.out) == (0, "wrote fig.pdf\n")
    pdf = Path("fig.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 237.6 172.8 ]" in pdf  # 3.3 x 2.4 inches
    assert b"/CIDFontType2" in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert fp("plot", "runs", "-o", "fig.pdf", "--force").status == 0
    assert Path("fig.pdf").read_bytes() == pdf


def test_the_legend_says_what_the_bands_are(fp: Callable) -> None:
    assert fp("plot", "runs", "-o", "fig.svg").status == 0
    words = texts(Path("fig.svg"))
    band = "mean of 3 seeds; band: lowest to highest"
    for text in ("fedavg", "fedmp", band, "test accuracy (%)"):
        assert text in words
    more = ("--band", "interval", "--x", "bytes", "--y", "loss")
    assert fp("plot", "runs", "-o", "fig.svg", "--force", *more).status == 0
    words = texts(Path("fig.svg"))
    for text in ("band: 95 % interval of the mean", "traffic (kB)", "test loss"):
        assert text in words
    fp("plot", "a-s0", "-o", "one.svg")
    assert "band" not in texts(Path("one.svg"))


def test_the_size_in_inches(fp: Callable) -> None:
    done = fp("plot", "runs", "-o", "fig.PNG", "--size", "2x1.5", "--json")
    data = json.loads(done.out)["data"]
    image = Path("fig.PNG").read_bytes()
    assert data == {"figure": "fig.PNG", "bytes": len(image), "x": "rounds", "y": "accuracy"}
    assert struct.unpack(">II", image[16:24]) == (600, 450)


def test_prunings_over_multiply_adds(fp: Callable) -> None:
    write_fit(Path("models/dense"), 0.5, 0.9)
    for percent in (30, 50, 70):
        write_pruning(Path(f"models/r{percent}"), percent / 100, 1 - percent / 200)
    assert fp("plot", "models", "-o", "fig.svg").status == 0
    words = texts(Path("fig.svg"))
    for text in ("filters", "fit", "multiply-adds (thousands)", "test accuracy (%)"):
        assert text in words
    done = fp("plot", "models", "-o", "fig.svg", "--force", "--x", "rounds")
    assert done.status == 0 and "epoch" in texts(Path("fig.svg"))
    assert "warning: r30 is not drawn: it has no accuracy over rounds" in done.err


def test_data_sets_share_no_axes(fp: Callable) -> None:
    write_run(Path("runs/c"), rounds(0.9, 0.95), task__data="breast-cancer")
    assert fp("plot", "runs", "-o", "fig.pdf").status == 0
    assert b"/MediaBox [ 0 0 475.2 172.8 ]" in Path("fig.pdf").read_bytes()
    fp("plot", "runs", "-o", "fig.svg")
    words = texts(Path("fig.svg"))
    assert len(re.findall(r"\bdigits\b", words)) == len(re.findall("breast-cancer", words)) == 1
    assert words.count("test accuracy (%)") == 2
    assert words.count("fedavg") == 2  # each panel names its lines


def test_what_is_learned_says_what_is_drawn(fp: Callable) -> None:
    write_run(Path("number"), regression(50.0, 46.0), local__lr=0.5)
    write_run(Path("next"), ranking(0.1, 0.2))
    done = fp("plot", "number", "-o", "fig.svg", "--json")
    assert json.loads(done.out)["data"]["y"] == "mae"
    assert "test MAE" in texts(Path("fig.svg"))
    for y, title in (("hr@10", "test HR@10 (%)"), ("validation_mrr", "validation MRR")):
        assert fp("plot", "next", "-o", "fig.svg", "--force", "--y", y).status == 0
        assert title in texts(Path("fig.svg"))
    done = fp("plot", "number", "runs", "-o", "fig.svg", "--force", "--y", "acc")
    assert done.status == 0 and "test accuracy (%)" in texts(Path("fig.svg"))
    assert "warning: number is not drawn: it has no accuracy over rounds" in done.err


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["-o", "fig.jpg"], 2, "ends in none of .pdf, .svg and .png", "-o fig.pdf"),
        (["-o", "fig"], 2, "ends in none of", "-o fig.pdf"),
        (["-o", "no/fig.pdf"], 2, "there is no folder no", "make it first"),
        (["-o", "there.pdf"], 2, "there.pdf exists", "--force"),
        (["--size", "3.3"], 2, "`3.3` is not WIDTHxHEIGHT", "--size 3.3x2.4"),
        (["--size", "300x2"], 2, "from 0.5 to 40", "--size 3.3x2.4"),
        (["--y", "accu"], 2, "unknown word `accu`", "did you mean `acc`?"),
        (["--x", "round"], 2, "unknown word `round`", "did you mean `rounds`?"),
        (["--x", "macs", "--y", "clock"], 2, "unknown word `clock`", "known: acc, loss"),
        (["--y", "mae"], 3, "no run has mae over rounds", "fp compare"),
        (["--x", "macs", "--y", "mae"], 2, "unknown word `mae`", "known: acc, loss"),
        (["--band", "std"], 2, "unknown word `std`", "known: range, interval"),
        (["--y", "local_acc"], 3, "no run has local_accuracy over rounds", "fp compare"),
        (["--x", "macs"], 3, "nothing to draw", "fp compare"),
    ],
)
def test_wrong_words(fp: Callable, words: list[str], status: int, message: str, hint: str) -> None:
    Path("there.pdf").write_text("mine")
    done = fp("plot", "runs", *words)
    assert (done.status, done.out) == (status, "")
    first, _, last = done.err.splitlines()
    assert message in first and hint in last
    assert Path("there.pdf").read_text() == "mine"
    assert not Path("plot.pdf").exists()


def test_runs_without_what_is_drawn_are_named(fp: Callable) -> None:
    write_run(Path("runs/new"), [], local__lr=0.9)
    done = fp("plot", "runs", "-o", "fig.svg")
    assert done.status == 0
    assert "warning: new is not drawn: it has no accuracy over rounds" in done.err
