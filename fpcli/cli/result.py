"""What `fp train` prints at the end of a run, and instead of one with ``--dry-run``."""

from __future__ import annotations

import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpcli.cli import show
from fpcli.cli.watch import ratio_span
from fpcli.engine.planning import foresee
from fpcli.engine.types import ServerState
from fpcli.errors import CheckError
from fpcli.recipe.load import to_yaml
from fpcli.settings.metrics import find_metric
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store.events import Events
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import Cost, count_cost
from fpcli.structure.support import Support
from fpcli.train.run_summary import Judged, Summary
from fpcli.train.setup import prepare_run
from fpcli.units import format_bytes, format_seconds


def closing_table(folder: RunFolder, summary: Summary, history: Events) -> str:
    """Return names and values of a run's results, one per line."""
    clients = [client for event in history for client in event["clients"]]
    down, up = format_bytes(summary.down_bytes), format_bytes(summary.up_bytes)
    rows = [
        *list_scores(summary, history, "round"),
        *(
            (
                f"{name} per client",
                "{} mean, {} deviation, {} lowest".format(
                    *(find_metric(name).format(of[key]) for key in ("mean", "std", "min"))
                ),
            )
            for name, of in summary.personal.items()
        ),
        ("sent to clients", down + _spread(clients, "down_bytes")),
        ("sent by clients", up + _spread(clients, "up_bytes")),
        ("simulated clock", format_seconds(summary.clock_s)),
        ("real time", format_seconds(summary.real_s)),
        ("global model", f"{summary.params:,} params, {summary.macs:,.0f} multiply-adds"),
    ]
    if span := ratio_span(client["notes"] for client in clients):
        rows.append(("pruning ratios", f"{span[0]:.2f} to {span[1]:.2f}"))
    rows.append(("run folder", str(folder.path)))
    rows.append(("model", str(folder.final / "model.safetensors")))
    rows += [("picture", str(path)) for path in sorted(folder.path.glob("*.png"))]
    return show.align(("", ""), rows)


def list_scores(summary: Judged, history: Events, unit: str) -> list[tuple[str, str]]:
    """Return how well a model does on test data, at the end and with the best validation value.

    Args:
        unit: what an event is about: a round or an epoch.
    """
    judged = [event for event in history if event.get("validation")]
    if not judged:
        return []
    metrics = {name: find_metric(name) for name in summary.test}
    first = next(iter(metrics.values()))
    best = judged[0]
    for event in judged[1:]:
        if first.exceeds(event["validation"][first.name], best["validation"][first.name]):
            best = event
    rows = [(f"test {name}", metric.format(summary.test[name])) for name, metric in metrics.items()]
    rows[0] = (f"{rows[0][0]}, last", f"{rows[0][1]} ({unit} {judged[-1]['round']})")
    at_best = f"{first.format(summary.best[first.name])} ({unit} {best['round']})"
    rows.insert(1, ("at best validation", at_best))
    return [*rows, ("test loss", f"{summary.loss:.4f}")]


def _spread(clients: Events, key: str) -> str:
    """Return the lowest and the highest sum of one number over the clients."""
    sums: dict[int, int] = {}
    for client in clients:
        sums[client["client"]] = sums.get(client["client"], 0) + client[key]
    if not sums:
        return ""
    return f" ({format_bytes(min(sums.values()))} to {format_bytes(max(sums.values()))} per client)"


def check_target(recipe: Recipe | FitRecipe, history: Events, *, hint: str) -> CheckError | None:
    """Return an error if validation metrics were never as good as was asked for."""
    for name, target in recipe.target.items():
        metric, best = find_metric(name), None
        for event in history:
            value = (event.get("validation") or {}).get(name)
            if value is not None and metric.exceeds(value, best):
                best = value
        if best is None or not metric.reaches(best, target):
            reached = "was never judged" if best is None else f"reached {metric.format(best)}"
            return CheckError(
                f"validation {name} {reached}, {metric.format(target)} was asked for",
                hint=hint,
                where="--target",
            )
    return None


def plan_first_round(recipe: Recipe) -> dict[str, Any]:
    """Build everything and plan round 1, but train nothing and write nothing.

    Returns:
        ``model`` with params, macs and bytes, and ``clients`` with the same for each client of the
        cohort and the class of its simulated ``device``; bytes are those of the tensors, without a
        message's header.
    """
    # No file comes into being there: only clients at work remember things.
    setup = prepare_run(recipe, Path(tempfile.gettempdir()) / f"fp-{uuid.uuid4().hex}")
    fed = setup.fed
    ctx = fed.context(0, "start", lambda client, **values: None)
    state = fed.method.begin(ctx, ServerState(0, setup.values, setup.support))
    return {
        "model": _size(count_cost(fed.layout, Support())),
        "clients": [
            {
                "client": ask.client,
                "device": fed.fleet.level(ask.client).name,
                "num_examples": fed.num_examples[ask.client],
            }
            | _size(count_cost(fed.layout, ask.support))
            | {"notes": dict(ask.record)}
            for ask in foresee(fed, state, 1)
        ],
    }


def _size(size: Cost) -> dict[str, Any]:
    return {"params": size.params, "macs": size.macs, "bytes": size.bytes}


def first_plan_text(recipe: Recipe, plan: Mapping[str, Any]) -> str:
    """Return the recipe and a table of the clients of round 1."""
    noted = sorted({key for item in plan["clients"] for key in item["notes"]})
    rows = [("all", "", *_cells(plan["model"]), *("" for _ in noted))]
    for item in plan["clients"]:
        notes = [item["notes"].get(key, "") for key in noted]
        words = [f"{note:.3f}" if isinstance(note, float) else str(note) for note in notes]
        rows.append((str(item["client"]), f"{item['num_examples']:,}", *_cells(item), *words))
    headers = ("client", "examples", "params", "multiply-adds", "tensors", *noted)
    columns = range(len(headers))
    table = show.align(headers, rows, right=columns, leave=columns[:4:-1])
    devices = Counter(item["device"] for item in plan["clients"])
    fleet = ", ".join(f"{number} {name or 'nameless'}" for name, number in devices.items())
    return (
        f"{to_yaml(recipe)}\ndevices of round 1: {fleet}\n"
        f"round 1, one line per client (`all` is the whole model):\n{table}"
    )


def _cells(size: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{size['params']:,}", f"{size['macs']:,.0f}", format_bytes(size["bytes"])
