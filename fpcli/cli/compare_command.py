"""`fp compare`: runs side by side, and checks of one against another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fpcli.cli.session import Session
from fpcli.errors import CheckError, DataError, FpError, UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.flags import Flag
from fpcli.settings.metrics import parse_target
from fpcli.units import parse_bytes, parse_seconds, parse_share, share_hint

if TYPE_CHECKING:
    from fpcli.report.compare import Comparison
    from fpcli.report.measures import Budget

ORDERS = {"acc": "accuracy", "bytes": "bytes", "clock": "clock_s", "rounds": "rounds"}
"""Words of `--by` -> measure."""

RunPaths = Annotated[
    list[Path],
    Flag(
        "RUN",
        "Folders of runs or of results of `fp prune`, or a folder that holds such folders",
        known="runs",
    ),
]
_Target = Annotated[
    str | None,
    Flag(
        "--target acc=X",
        "Show the price of this validation accuracy, a fraction, not that of the whole run",
    ),
]
At = Annotated[
    list[str] | None,
    Flag(
        "--at WHAT=X",
        "Also test accuracy at `clock=60s`, `bytes=50MB` or `rounds=20`; may be repeated",
    ),
]
_Reference = Annotated[
    str | None, Flag("--reference NAME", "Run that others are set against", default="the first")
]
By = Annotated[
    str | None,
    Flag("--by WHAT", f"Sort by {', '.join(ORDERS)}", default="as named", known=(*ORDERS,)),
]
FailIf = Annotated[
    list[str] | None,
    Flag(
        "--fail-if CONDITION",
        "Exit 8 if this holds: `fedmp.bytes > 0.9 * fedavg.bytes`; a name is a run, row or "
        "method; measures: acc, best, clients_acc, local_acc, at, loss, rounds, bytes, clock, "
        "real, params, macs, file, latency; may be repeated",
    ),
]
Markdown = Annotated[bool, Flag("--md", "Print the table as Markdown")]
Csv = Annotated[bool, Flag("--csv", "Print plain numbers as CSV")]


def run_compare(
    ctx: typer.Context,
    run: RunPaths,
    target: _Target = None,
    at: At = None,
    by: By = None,
    reference: _Reference = None,
    fail_if: FailIf = None,
    runs: o.Runs = Path("runs"),
    md: Markdown = False,
    csv: Csv = False,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Set runs side by side: what they reached, and at what cost.

    Runs that differ in their seed only share a row.
    """
    if sum((md, csv, json)) > 1:
        raise UsageError("--md, --csv and --json exclude each other", hint="give one of them")
    from fpcli.report import text_tables

    comparison = load_comparison(run, runs, target=target, at=at, by=by, reference=reference)
    session: Session = ctx.obj
    session.warnings += comparison.warnings
    error = check_conditions(comparison, fail_if or ())
    if md or csv:
        text = text_tables.to_markdown(comparison) if md else text_tables.to_csv(comparison)
    else:
        text = _text(comparison)
    session.warn()
    session.finish(text_tables.to_data(comparison), text, error)


def load_comparison(
    words: Sequence[Path],
    runs_dir: Path,
    *,
    target: str | None,
    at: Sequence[str] | None = None,
    by: str | None = None,
    reference: str | None = None,
) -> Comparison:
    """Read the options that `fp compare` and `fp report` share, and compare the runs.

    Raises:
        UsageError: an option is wrong.
        DataError: a run cannot be read.
    """
    from fpcli.report.compare import compare_runs as compare_runs
    from fpcli.report.runs import find_runs

    if by is not None and by not in ORDERS:
        raise UsageError(
            f"--by: unknown measure `{by}`",
            hint=suggest(by, ORDERS) or f"known: {', '.join(ORDERS)}",
            where="--by",
        )
    goal = None if target is None else _goal(target)
    budgets = [_budget(word) for word in at or ()]
    return compare_runs(
        find_runs(words, runs_dir),
        target=goal,
        budgets=budgets,
        reference=reference,
        by=ORDERS[by] if by else None,
    )


def _goal(text: str) -> float:
    value = next(iter(parse_target(text).values()))
    try:
        goal = parse_share(value)
    except ValueError:
        goal = math.nan
    if not 0 < goal <= 1:
        hint = share_hint(value) or "for example `--target acc=0.98`"
        raise UsageError(f"--target: `{value}` is no accuracy", hint=hint, where="--target")
    return goal


def _budget(word: str) -> Budget:
    from fpcli.report.measures import Budget

    readers: dict[str, tuple[str, Callable[[str], float]]] = {
        "clock": ("clock_s", parse_seconds),
        "bytes": ("bytes", parse_bytes),
        "rounds": ("rounds", float),
    }
    name, equals, text = (part.strip() for part in word.partition("="))
    if not equals or name not in readers:
        hint = suggest(name, readers) if equals else ""
        raise UsageError(
            f"--at {word}: not of the form clock=TIME, bytes=SIZE or rounds=N",
            hint=hint or "for example `--at clock=60s`",
            where="--at",
        )
    effort, read = readers[name]
    try:
        return Budget(effort, read(text))
    except ValueError as error:
        raise UsageError(f"--at {word}: {error}", hint="`--at clock=60s`", where="--at") from error


def _text(comparison: Comparison) -> str:
    from fpcli.cli import show
    from fpcli.report import text_tables

    table = text_tables.format_comparison(comparison)
    leave = _leaving_order(
        comparison, ["run", "seeds", *text_tables.choose_columns(comparison), "differs"]
    )
    lines = show.align(table.headers, table.rows, right=table.right, leave=leave)
    return "\n".join([lines, "", *map(show.prose, text_tables.list_notes(comparison))])


def _leaving_order(comparison: Comparison, measures: Sequence[str]) -> list[int]:
    """Return which columns leave a table that is too wide, the first of them first."""
    costs = [*measures[measures.index("best_accuracy") + 1 : measures.index("params")]][::-1]
    times = [name for name in measures if name.endswith("_ms")][::-1]
    if any(run.command == "prune" for row in comparison.rows for run in row.runs):
        # Sizes are what such a comparison is about.
        order = ["best_accuracy", *costs, "seeds", "differs", *times]
    else:
        sizes = [name for name in ("file_bytes", "macs", "params") if name in measures]
        order = [*times, *sizes, "differs", *costs, "seeds"]
    return [measures.index(name) for name in order]


def check_conditions(comparison: Comparison, conditions: Sequence[str]) -> FpError | None:
    """Return an error if one of the conditions holds.

    Raises:
        UsageError: a condition cannot be read.
        DataError: it speaks of a number that a run does not have.
    """
    from fpcli.report.expression import judge_condition
    from fpcli.report.measures import to_text

    broken = []
    for text in conditions:
        verdict = judge_condition(
            text, comparison.names(), lambda name, word: _value(comparison, name, word)
        )
        if verdict.holds:
            values = [
                f"{name} = {to_text(comparison.field(name.rpartition('.')[2]), value)}"
                for name, value in verdict.values.items()
            ]
            broken.append(f"`{text}` holds ({', '.join(values)})")
    if not broken:
        return None
    return CheckError("; ".join(broken), hint="this is what --fail-if asks for", where="--fail-if")


def _value(comparison: Comparison, name: str, word: str) -> float:
    """Return a measure for a condition; what a target costs that was not reached is infinite."""
    from fpcli.report.measures import SHORT

    rows = comparison.named(name)
    if len(rows) != 1:
        labels = ", ".join(row.label for row in rows or comparison.rows)
        raise UsageError(
            f"`{name}` {'names several rows' if rows else 'names no run of these'}",
            hint=f"choose one: {labels}" if rows else suggest(name, comparison.names()) or labels,
        )
    measures = rows[0].values
    field = comparison.field(word)
    if field not in measures:
        known_words = [*SHORT, *measures]
        raise UsageError(
            f"unknown measure `{word}`",
            hint=suggest(word, known_words) or f"known: {', '.join(known_words)}",
        )
    value = measures[field].mean
    if value is not None:
        return value
    if field.startswith("target_"):
        return float("inf")
    raise DataError(f"--fail-if: `{name}` has no {word}", hint="was it never evaluated?")
