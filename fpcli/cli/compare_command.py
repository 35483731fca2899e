"""`fp compare`: runs side by side, and checks of one against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fpcli.cli.session import Session
from fpcli.errors import CheckError, DataError, FpError, UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.flags import Flag
from fpcli.settings.metrics import BEST, find_measured
from fpcli.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from fpcli.report.compare import ComparedRow, Comparison
    from fpcli.report.measures import Budget

_COSTS = ("bytes", "clock", "rounds")
"""Words of `--by` beside metrics."""

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
        "--target METRIC=X",
        "Show what it took until validation data was judged so well, not what the whole run did: "
        "`acc=0.9`, `mae=45`, `hr@10=0.2,mrr=0.1`",
    ),
]
At = Annotated[
    list[str] | None,
    Flag(
        "--at WHAT=X",
        "Also the test metric at `clock=60s`, `bytes=50MB` or `rounds=20`; may be repeated",
    ),
]
_Reference = Annotated[
    str | None, Flag("--reference NAME", "Run that others are set against", default="the first")
]
By = Annotated[
    str | None,
    Flag(
        "--by WHAT",
        f"Sort by a metric, best first (acc, mae, hr@10), or by {', '.join(_COSTS)}",
        default="as named",
        known=("acc", "mae", "r2", "hr@10", "ndcg@10", "mrr", *_COSTS),
    ),
]
FailIf = Annotated[
    list[str] | None,
    Flag(
        "--fail-if CONDITION",
        "Exit 8 if this holds: `fedmp.bytes > 0.9 * fedavg.bytes`; a name is a run, row or "
        "method; measures: metrics (acc, mae, hr@10; best_mae, clients_acc, local_acc), best, at, "
        "loss, rounds, bytes, clock, real, params, macs, file, latency; may be repeated",
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
    from fpcli.recipe.resolve import Setting, read_target
    from fpcli.report.compare import compare_runs as compare_runs
    from fpcli.report.measures import SHORT
    from fpcli.report.runs import find_runs

    if by is not None and by not in (*_COSTS, "best") and not find_measured(SHORT.get(by, by)):
        known = ("acc", "best", "mae", "hr@10", *_COSTS)
        raise UsageError(
            f"--by: unknown measure `{by}`",
            hint=suggest(by, known) or f"any metric, or one of {', '.join(_COSTS)}",
            where="--by",
        )
    goal = read_target("target", Setting(target, "--target", is_in_file=False))
    budgets = [_budget(word) for word in at or ()]
    return compare_runs(
        find_runs(words, runs_dir), target=goal, budgets=budgets, reference=reference, by=by
    )


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
    bests = [name for name in measures if name.startswith(BEST)]
    before = max((measures.index(name) for name in bests), default=1)
    costs = [*measures[before + 1 : measures.index("params")]][::-1]
    times = [name for name in measures if name.endswith("_ms")][::-1]
    if any(run.command == "prune" for row in comparison.rows for run in row.runs):
        # Sizes are what such a comparison is about.
        order = [*bests, *costs, "seeds", "differs", *times]
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

    broken = []
    for text in conditions:
        verdict = judge_condition(
            text, comparison.names(), lambda name, word: _value(comparison, name, word)
        )
        if verdict.holds:
            values = [
                f"{name} = {_format(comparison, name, value)}"
                for name, value in verdict.values.items()
            ]
            broken.append(f"`{text}` holds ({', '.join(values)})")
    if not broken:
        return None
    return CheckError("; ".join(broken), hint="this is what --fail-if asks for", where="--fail-if")


def _format(comparison: Comparison, reference: str, value: float) -> str:
    from fpcli.report.measures import to_text

    name, _, word = reference.rpartition(".")
    row = _find_row(comparison, name)
    return to_text(row.find_unit(comparison.field(word, row.primary)), value)


def _find_row(comparison: Comparison, name: str) -> ComparedRow:
    rows = comparison.named(name)
    if len(rows) != 1:
        labels = ", ".join(row.label for row in rows or comparison.rows)
        raise UsageError(
            f"`{name}` {'names several rows' if rows else 'names no run of these'}",
            hint=f"choose one: {labels}" if rows else suggest(name, comparison.names()) or labels,
        )
    return rows[0]


def _value(comparison: Comparison, name: str, word: str) -> float:
    """Return a measure for a condition; what a target costs that was not reached is infinite."""
    from fpcli.report.measures import SHORT

    row = _find_row(comparison, name)
    measures = row.values
    field = comparison.field(word, row.primary)
    if field not in measures and not find_measured(field) and field != BEST:
        known_words = [*SHORT, *measures]
        raise UsageError(
            f"unknown measure `{word}`",
            hint=suggest(word, known_words) or f"known: {', '.join(known_words)}",
        )
    value = measures[field].mean if field in measures else None
    if value is not None:
        return value
    if field.startswith("target_"):
        return float("inf")
    metric = find_measured(field)
    is_foreign = metric and row.metrics and metric.name not in row.metrics
    hint = f"it is judged by {', '.join(row.metrics)}" if is_foreign else "was it never evaluated?"
    raise DataError(f"--fail-if: `{name}` has no {word}", hint=hint)
