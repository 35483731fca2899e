"""One page about runs: numbers, curves, settings; a single file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.report import curves, markup, text_tables
from fpcli.report.canvas import NUM_STYLES
from fpcli.report.clients import list_clients, list_refusals
from fpcli.report.compare import ComparedRow, Comparison, list_shown
from fpcli.report.curves import group_by_data
from fpcli.report.markup import escape, make_element
from fpcli.report.runs import Run
from fpcli.report.size_curves import chart_sizes
from fpcli.report.style import CSS
from fpcli.report.trials import HEAD, list_trials
from fpcli.settings.metrics import BEST, CLIENTS, LOCAL, find_metric
from fpcli.version import __version__

LIMIT_BYTES = 2_000_000
"""No page is larger; it leaves out clients and then single runs before that happens."""

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""
_TILES = {
    "bytes": "sent, both ways",
    "clock_s": "simulated clock",
    "params": "params of the model",
    "latency_1_ms": "latency of 1",
    "file_bytes": "model file",
}


def make_page(comparison: Comparison) -> str:
    """Return a page as HTML, of at most ``LIMIT_BYTES``; equal runs give an equal page."""
    runs = [run for row in comparison.rows for run in row.runs]
    title = (
        comparison.rows[0].label
        if len(comparison.rows) == 1
        else f"{len(comparison.rows)} settings compared"
    )
    head = f"{_HEAD}<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>"
    above = [head, make_element("h1", escape(title)), *_overview(comparison, runs)]
    charts = {
        row.runs[0].path: _run_charts(row.runs[0], n) for n, row in enumerate(comparison.rows)
    }
    below = [
        make_element("footer", make_element("p", f"fpcli {escape(__version__)}", "quiet")),
        "</body>\n</html>\n",
    ]
    for num_clients, num_runs in ((100, 50), (20, 20), (0, 5), (0, 0)):
        middle = _runs(runs[:num_runs], len(runs), charts, num_clients)
        html = "\n".join([*above, *middle, *below])
        if len(html.encode()) <= LIMIT_BYTES:
            break
    return html


def _overview(comparison: Comparison, runs: Sequence[Run]) -> Iterator[str]:
    rounds = {"rounds": 0, "epochs": 0}
    for run in runs:
        rounds["rounds" if run.command == "train" else "epochs"] += len(run.rounds)
    counts = [f"{count:,} {unit}" for unit, count in rounds.items() if count]
    about = ", ".join([f"{len(runs)} run{'s' * (len(runs) > 1)}", *counts])
    yield make_element("p", escape(about), "quiet")
    yield from _warnings(comparison)
    if len(comparison.rows) == 1:
        yield _tiles(comparison.rows[0])
    yield from _numbers(comparison)
    yield from _charts(comparison)


def _runs(
    shown: Sequence[Run], total: int, charts: Mapping[Path, str], num_clients: int
) -> Iterator[str]:
    for run in shown:
        if drawn := charts.get(run.path):
            of = f" of {run.name}" if total > 1 else ""
            yield make_element("h2", escape(f"Clients and layers{of}"))
            yield make_element("div", drawn, "charts")
    yield make_element("h2", "Every run" if total > 1 else "The run")
    for run in shown:
        yield _details(run, num_clients, is_open=total == 1)
    if left := total - len(shown):
        words = f"{left} more runs are not shown, to keep the page small."
        yield make_element("p", words, "quiet")


def _warnings(comparison: Comparison) -> Iterator[str]:
    refused = sum(
        len(event.get(kind) or ())
        for row in comparison.rows
        for run in row.runs
        for event in run.rounds
        for kind in ("rejected", "dropped")
    )
    texts = list(comparison.warnings)
    if refused:
        texts.append(f"{refused} replies of clients were not used; each run below says why")
    if texts:
        yield markup.make_items(texts, "warnings")


def _name_tiles(row: ComparedRow) -> dict[str, str]:
    titles = {}
    for name in list_shown([row]):
        metric = find_metric(name).title
        titles[name] = f"test {metric}, last"
        if name == row.primary:
            titles[BEST + name] = "at best validation"
            titles[CLIENTS + name] = f"mean {metric} of the clients"
            titles[LOCAL + name] = f"their mean local {metric}"
    return titles | _TILES


def _tiles(row: ComparedRow) -> str:
    tiles = [
        make_element(
            "div",
            make_element("b", escape(text_tables.format_cell(key, value, len(row.runs))))
            + make_element("span", escape(title)),
            "tile",
        )
        for key, title in _name_tiles(row).items()
        if (value := row.values.get(key)) and value.num_known
    ]  # fmt: skip
    return make_element("div", "".join(tiles), "tiles")


def _numbers(comparison: Comparison) -> Iterator[str]:
    if len(comparison.rows) > 1 or comparison.target or comparison.budgets:
        table = text_tables.format_comparison(comparison)
        rows = [row[:-1] for row in table.rows]
        yield markup.make_table(table.headers[:-1], rows, table.right)
    for note in text_tables.list_notes(comparison):
        yield make_element("p", escape(note), "quiet")
    if keys := list(dict.fromkeys(key for row in comparison.rows for key in row.differs)):
        settings = [row.runs[0].important for row in comparison.rows]
        yield make_element("h2", "Settings that differ")
        yield markup.make_table(
            ["setting", *(row.label for row in comparison.rows)],
            [
                [
                    key,
                    *(
                        text_tables.format_setting(setting[key]) if key in setting else "-"
                        for setting in settings
                    ),
                ]
                for key in keys
            ],
        )


def _charts(comparison: Comparison) -> Iterator[str]:
    """Yield curves for each data set, since no two may share an axis."""
    groups = group_by_data(comparison.rows)
    for number, (data, rows) in enumerate(groups.items()):
        of = f", {data}" * (len(groups) > 1)
        yield from _curves(rows, of, f"c{number}-")
        yield from _sizes(rows, of, f"s{number}-")


def _curves(rows: Sequence[ComparedRow], of: str, prefix: str) -> Iterator[str]:
    shown = [row for row in rows if row.runs[0].command != "prune"]
    charts = [
        chart
        for chart in (curves.draw_rows(shown[:NUM_STYLES]) if shown else ())
        if any(line.points for line in chart.lines)
    ]
    if not charts:
        return
    yield make_element("h2", escape(f"Curves{of}"))
    notes = ["lines: means over seeds; bands: lowest to highest seed"] * any(
        len(row.runs) > 1 for row in shown
    )
    notes += [f"only the first {NUM_STYLES} rows are drawn"] * (len(shown) > NUM_STYLES)
    yield from (make_element("p", note, "quiet") for note in notes)
    # Once for all charts, since they have the same lines.
    lines = {line.label: line for chart in charts for line in chart.lines if line.points}
    yield markup.make_legend(lines.values())
    yield _draw(charts, of, prefix, has_legend=False)


def _sizes(rows: Sequence[ComparedRow], of: str, prefix: str) -> Iterator[str]:
    if charts := list(chart_sizes(rows[:NUM_STYLES])):
        yield make_element("h2", escape(f"What pruning leaves{of}"))
        note = "lines: from the model before to the smallest; points: other models"
        yield make_element("p", note, "quiet")
        yield _draw(charts, of, prefix, has_legend=True)


def _draw(charts: Sequence[curves.Chart], of: str, prefix: str, *, has_legend: bool) -> str:
    drawn = (
        markup.make_chart(
            chart._replace(title=f"{chart.title}{of}"), f"{prefix}{n}-", has_legend=has_legend
        )
        for n, chart in enumerate(charts)
    )
    return make_element("div", "\n".join(drawn), "charts")


def _run_charts(run: Run, number: int) -> str:
    drawn = (
        markup.make_chart(chart, f"r{number}-{place}-", has_legend=True)
        for place, chart in enumerate(curves.draw_run_charts(run))
    )
    return "\n".join(drawn)


def _details(run: Run, num_clients: int, *, is_open: bool) -> str:
    settings = [(key, text_tables.format_setting(value)) for key, value in run.settings.items()]
    parts = [
        make_element("p", escape(str(run.path)), "quiet"),
        *([markup.make_items(texts, "warnings")] if (texts := list_refusals(run)) else []),
        *list_clients(run, num_clients),
        *_trials(run),
        markup.fold("All settings", markup.make_facts(settings)),
    ]
    if environment := _environment(run.path / "environment.json"):
        parts.append(markup.fold("Environment", markup.make_facts(environment)))
    if command := _text(run.path / "command.txt"):
        parts.append(markup.fold("Command", markup.make_code(command)))
    if is_open:
        return "\n".join(parts)
    return markup.fold(run.name, "\n".join(parts))


def _trials(run: Run) -> Iterator[str]:
    if run.trials:
        about = "Shares of channels that were tried; accuracy on the clients' training samples"
        table = markup.make_table(HEAD, list_trials(run.trials), range(len(HEAD) - 1))
        yield markup.fold(about, table)


def _environment(path: Path) -> Sequence[tuple[str, str]]:
    try:
        environment = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return ()
    return list(_flat(environment)) if isinstance(environment, Mapping) else ()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", text_tables.format_setting(value)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:  # an old run, or not all of it was copied
        return ""
