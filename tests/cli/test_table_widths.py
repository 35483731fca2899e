"""Every table of every command, at widths of terminals: whole names and numbers, nothing silent."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import narrow
from folders import rounds, write_run
from terminals import Stream

from fpcli.cli import show
from fpcli.cli.bench_result import crossover_text
from fpcli.engine.trained import DataKey
from fpcli.export import peak_memory
from fpcli.export.crossover import SPARSITIES, CrossoverRow
from fpcli.report import sensitivity_plots
from fpcli.store.model_folder import write_trained
from fpcli.train import federated_run, fit_run
from fpcli.unlearn import unlearn_run

WIDTHS = (60, 80, 100, 120, 200)
STYLES = re.compile(r"\x1b\[[\d;]*m")
LEFT_OUT = re.compile(r"left out: (`.*`); a wider terminal, a pipe or --json shows all")
LISTS = [
    ("methods",),
    ("methods", "--kind", "pruning"),
    ("methods", "fedmp"),
    ("recipe", "list"),
    ("recipe", "schema"),
    ("recipe", "check", "fedmp/digits", "missing.yaml"),
    ("data", "list"),
    ("data", "show", "digits"),
    ("data", "show", "markov"),
    ("data", "split", "digits", "--clients", "3"),
    ("data", "split", "markov", "--clients", "3"),
    ("data", "split", "digits", "--clients", "3", "--set", "task.server_share=0.1"),
    ("doctor",),
    ("compare", "runs"),
    ("compare", "runs", "--target", "acc=0.8", "--at", "clock=3s"),
    ("train", "--dry-run", "--clients", "3", "--method", "fedmp"),
    ("fit", "--model", "digits-cnn", "--dry-run"),
]
INLINE = ("--executor", "inline")
WORK = [
    (("train", "--clients", "2", "--rounds", "1", "--name", "a", *INLINE), 1),
    (("fit", "--model", "digits-cnn", "--epochs", "1", "--name", "b"), 1),
    (("prune", "model", "--ratio", "0.5"), 2),
    (("sensitivity", "model", "--ratios", "0.1:0.9:0.1"), 1),
    (("export", "model", "--to", "safetensors"), 2),
    (("bench", "model", "--batch", "1,2", "--seconds", "0"), 3),
]
FORGET = ("unlearn", "run", "--class", "3", "--ratio", "0.1", "--finetune-rounds", "1")


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make up what the commands read; nothing is drawn, and no other process measured."""
    monkeypatch.setattr(federated_run, "draw_run", lambda history, folder: [])
    monkeypatch.setattr(fit_run, "draw_fit", lambda history, folder: [])
    monkeypatch.setattr(sensitivity_plots, "draw_sensitivity", lambda *_: [])
    monkeypatch.setattr(unlearn_run, "draw_forgetting", lambda *_, **__: [])
    monkeypatch.setattr(
        peak_memory, "measure_peak", lambda *_: {"peak_bytes": 3_000_000, "own_bytes": 1000}
    )
    write_run(tmp_path / "runs/fedavg-digits-s0", rounds(0.5, 0.8))
    write_run(tmp_path / "runs/fedmp-digits-s0", rounds(0.7, 0.9), method__name="fedmp", seed=3)
    (tmp_path / "model").mkdir()
    write_trained(tmp_path / "model", replace(narrow("digits-cnn"), data=DataKey("digits", 0.1, 0)))


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Collect what is given to `show.table` for a pipe."""
    calls: list[tuple[Any, Any, dict[str, Any]]] = []
    real = show.align

    def table(headers: Any, rows: Any, **more: Any) -> str:
        if not show.is_terminal(sys.stdout):
            calls.append((headers, rows, more))
        return real(headers, rows, **more)

    monkeypatch.setattr(show, "align", table)
    return calls


def check_lines(text: str, width: int) -> None:
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "..." not in text


def check_table(headers: Any, rows: Any, more: dict[str, Any], width: int) -> None:
    """Check one table on a terminal of this width."""
    text = STYLES.sub("", show.align(headers, rows, **more))
    check_lines(text, width)
    note = LEFT_OUT.search(" ".join(text.split()))
    gone = re.findall("`([^`]*)`", note[1]) if note else []
    assert {*gone} <= {headers[position] for position in more.get("leave", ())}
    shown = [position for position, header in enumerate(headers) if header not in gone]
    cells = [headers[position] for position in shown[1:]]  # a block has no room for the first
    cells += [row[position] for row in rows for position in shown]
    assert Counter(word for cell in cells for word in cell.split()) <= Counter(text.split())
    wraps = more.get("text", [len(headers) - 1])
    for row in rows:
        for position in shown:
            assert position in wraps or any(row[position] in line for line in text.splitlines())


def check_all(printed: list[Any], terminal: Callable[[int], Stream], least: int) -> None:
    assert len(printed) >= least
    for width in WIDTHS:
        terminal(width)
        for headers, rows, more in printed:
            check_table(headers, rows, more, width)


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_command_that_lists(
    fp: Callable, printed: list[Any], terminal: Callable[[int], Stream], words: tuple[str, ...]
) -> None:
    assert "left out:" not in fp(*words).out
    check_all(printed, terminal, 1)
    if "--dry-run" not in words:  # prints a recipe, whose lines are copied
        for width in WIDTHS:
            stream = terminal(width)
            fp(*words)
            check_lines(STYLES.sub("", stream.getvalue()), width)


@pytest.mark.parametrize(("words", "count"), WORK, ids=[words[0] for words, _ in WORK])
def test_a_command_that_works(
    fp: Callable, printed: list[Any], terminal: Callable[[int], Stream], words: Any, count: int
) -> None:
    done = fp(*words)
    assert done.status == 0, done.err
    check_all(printed, terminal, count)


def test_unlearning(fp: Callable, printed: list[Any], terminal: Callable[[int], Stream]) -> None:
    assert fp("train", "--clients", "2", "--rounds", "1", "--name", "run", *INLINE).status == 0
    printed.clear()
    assert fp(*FORGET, "--dry-run").status == 0
    done = fp(*FORGET, *INLINE, "--compare-retrain", "--audit", "server-diff")
    assert done.status == 0, done.err
    check_all(printed, terminal, 3)


def test_a_crossover(printed: list[Any], terminal: Callable[[int], Stream]) -> None:
    ratios = {sparsity: 1.25 - sparsity for sparsity in SPARSITIES}
    rows = [CrossoverRow("conv 64x64x3x3", batch, "train", ratios, 0.5) for batch in (1, 128)]
    crossover_text([(2, row) for row in rows])
    check_all(printed, terminal, 1)
