"""`fp plot`: runs as one figure for a paper."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fpcli.cli import compare_command as c
from fpcli.cli.report_command import check_output_file
from fpcli.errors import UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.flags import Flag
from fpcli.settings.options import PlotChoice

if TYPE_CHECKING:
    from fpcli.report.compare import Comparison

_SIDES = (0.5, 40.0)
"""Shortest and longest side of a figure, in inches."""

FigureFile = Annotated[
    Path, Flag("-o/--output FILE", "Where the figure goes; its ending says pdf, svg or png")
]


def run_plot(
    ctx: typer.Context,
    run: c.RunPaths,
    choice: PlotChoice,
    output: FigureFile = Path("plot.pdf"),
    force: o.ReplaceFile = False,
    runs: o.Runs = Path("runs"),
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Draw runs or pruned models as one figure for a paper.

    Runs that differ in their seed only are one line with a band; each data set has a panel.
    """
    kind = output.suffix.removeprefix(".").lower()
    if kind not in ("pdf", "svg", "png"):
        raise UsageError(
            f"-o: `{output.name}` ends in none of .pdf, .svg and .png",
            hint=f"for example `-o {output.stem or 'plot'}.pdf`",
            where="-o",
        )
    inches = _read_size(choice.size)
    check_output_file(output, force=force)
    comparison = c.load_comparison(run, runs, target=None)
    from fpcli.files import write_atomic
    from fpcli.report.paper_plot import plot_rows

    choice = _name_measures(choice, comparison)
    picture, missing = plot_rows(comparison.rows, choice, kind, inches)
    write_atomic(output, picture)
    ctx.obj.warnings += (*comparison.warnings, *missing)
    ctx.obj.warn()
    about: dict[str, Any] = {"figure": str(output), "bytes": len(picture)}
    ctx.obj.finish(about | {"x": choice.x, "y": choice.y}, f"wrote {output}")


def _read_size(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    sides = re.fullmatch(r"(\d+(?:\.\d+)?)\s*x\s*(\d+(?:\.\d+)?)\s*(?:in)?", text.strip())
    width, height = map(float, sides.groups()) if sides else (0.0, 0.0)
    if not (_SIDES[0] <= min(width, height) and max(width, height) <= _SIDES[1]):
        raise UsageError(
            f"--size: `{text}` is not WIDTHxHEIGHT in inches, from {_SIDES[0]:g} to {_SIDES[1]:g}",
            hint="for example `--size 3.3x2.4`",
            where="--size",
        )
    return width, height


def _name_measures(choice: PlotChoice, comparison: Comparison) -> PlotChoice:
    """Return a choice with the full names of what is drawn.

    Raises:
        UsageError: there is no such measure, or no such pair of them.
    """
    from fpcli.report.compare import list_primaries
    from fpcli.report.curves import BANDS, EFFORT_AXES, find_quantity, list_quantities
    from fpcli.report.measures import SHORT
    from fpcli.report.size_curves import SIZE_AXES

    def find(option: str, word: str, allowed: list[str]) -> str:
        name = SHORT.get(word, word)
        if name not in allowed:
            short = {full: word for word, full in SHORT.items()}
            words = [short.get(full, full) for full in allowed]
            hint = suggest(word, words) or f"known: {', '.join(words)}"
            raise UsageError(f"{option}: unknown word `{word}`", hint=hint, where=option)
        return name

    rows = comparison.rows
    is_pruned = any(run.command == "prune" for row in rows for run in row.runs)
    x = choice.x or ("macs" if is_pruned else "rounds")
    x = find("--x", x, [*EFFORT_AXES, *SIZE_AXES])
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics)) or ["accuracy"]
    known = [*metrics, "loss"] if x in SIZE_AXES else list_quantities(metrics)
    y = choice.y or next(iter(list_primaries(rows)), metrics[0])
    if x in SIZE_AXES or not find_quantity(SHORT.get(y, y)):
        y = find("--y", y, known)
    y = SHORT.get(y, y)
    return replace(choice, x=x, y=y, band=find("--band", choice.band, [*BANDS]))
