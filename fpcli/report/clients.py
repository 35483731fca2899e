"""What became of every client of a run, and of the replies that were not used."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from fpcli.report import markup
from fpcli.report.plots import name_clients
from fpcli.report.runs import Run
from fpcli.settings.metrics import LOCAL, find_metric
from fpcli.units import format_bytes, format_seconds


def list_clients(run: Run, most: int) -> Iterator[str]:
    """Yield a table with a line per client, of the first ``most`` clients."""
    by_client: dict[int, list[Mapping[str, Any]]] = {}
    for event in run.rounds:
        for record in event["clients"]:
            by_client.setdefault(record["client"], []).append(record)
    if not (by_client and most):
        return
    personal: Mapping[str, Any] = next(
        (e["personal"] for e in run.judged[::-1] if e.get("personal")), {}
    )
    metrics = [find_metric(name) for name in run.metrics[:1] for name in (name, LOCAL + name)]
    metrics = [metric for metric in metrics if metric.name in personal]
    has_ratio = any(
        "ratio" in record["notes"] for records in by_client.values() for record in records
    )
    headers = ["client", "examples", "rounds", "params, mean", "received", "sent", "computing",
               "transfer"]  # fmt: skip
    headers += ["ratio, mean"] * has_ratio
    headers += ["own " * (not x.name.startswith(LOCAL)) + x.title for x in metrics]
    rows = []
    for client in sorted(by_client)[:most]:
        row = _row(client, by_client[client])
        ratios = [
            r["notes"]["ratio"] for r in by_client[client] if _is_number(r["notes"].get("ratio"))
        ]
        if has_ratio:
            row.append(f"{statistics.fmean(ratios):.3f}" if ratios else "-")
        values = [(metric, personal[metric.name].get(str(client))) for metric in metrics]
        row += [metric.format(value) if _is_number(value) else "-" for metric, value in values]
        rows.append(row)
    table = markup.make_table(headers, rows, range(1, len(headers)))
    left = len(by_client) - len(rows)
    more = markup.make_element("p", f"{left} more clients are not shown.", "quiet") if left else ""
    yield markup.fold(f"{len(by_client)} clients took part; seconds are simulated", table + more)


def _row(client: int, records: list[Mapping[str, Any]]) -> list[str]:
    return [
        str(client),
        f"{records[-1]['num_examples']:,}",
        str(len(records)),
        f"{statistics.fmean(record['params'] for record in records):,.0f}",
        format_bytes(sum(record["down_bytes"] for record in records)),
        format_bytes(sum(record["up_bytes"] for record in records)),
        format_seconds(sum(record["compute_s"] for record in records)),
        format_seconds(sum(record["down_s"] + record["up_s"] for record in records)),
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def list_refusals(run: Run) -> list[str]:
    """Return a line per kind of reply that was not used, with its rounds and clients."""
    kinds: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for event in run.rounds:
        for kind in ("rejected", "dropped"):
            for reply in event.get(kind) or ():
                key = (kind, str(reply.get("code")), str(reply.get("reason")))
                kinds.setdefault(key, []).append((event["round"], reply.get("client", -1)))
    lines = []
    for (kind, code, reason), where in kinds.items():
        rounds = [number for number, _ in where]
        clients = name_clients(sorted({client for _, client in where}))
        when = (
            f"round {rounds[0]}" if len({*rounds}) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
        )
        lines.append(f"{len(where)} {kind} ({code} {reason}): {clients}, {when}")
    return lines
