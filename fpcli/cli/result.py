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
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store.events import Events
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import Cost, count_cost
from fpcli.structure.support import Support
from fpcli.train.run_summary import Summary
from fpcli.train.setup import prepare_run
from fpcli.units import format_bytes, format_seconds


def closing_table(folder: RunFolder, summary: Summary, history: Events) -> str:
    """Return names and values of a run's results, one per line."""
    clients = [client for event in history for client in event["clients"]]
    best = max(_select_judged(history), key=lambda e: e["validation"]["accuracy"], default=None)
    when = f" (round {best['round']})" if best else ""
    down, up = format_bytes(summary.down_bytes), format_bytes(summary.up_bytes)
    rows = [
        ("test accuracy, last", f"{summary.accuracy:.2%} (round {summary.rounds})"),
        ("at best validation", f"{summary.best_accuracy:.2%}{when}"),
        ("test loss", f"{summary.loss:.4f}"),
        ("sent to clients", down + _spread(clients, "down_bytes")),
        ("sent by clients", up + _spread(clients, "up_bytes")),
        ("simulated clock", format_seconds(summary.clock_s)),
        ("real time", format_seconds(summary.real_s)),
        ("global model", f"{summary.params:,} params, {summary.macs:,.0f} multiply-adds"),
    ]
    of_clients = {
        "accuracy per client": summary.clients_accuracy,
        "local accuracy": summary.local_accuracy,
    }
    rows[2:2] = [
        (name, f"{of['mean']:.2%} mean, {of['std']:.2%} deviation, {of['min']:.2%} lowest")
        for name, of in of_clients.items()
        if of
    ]
    if span := ratio_span(client["notes"] for client in clients):
        rows.append(("pruning ratios", f"{span[0]:.2f} to {span[1]:.2f}"))
    rows.append(("run folder", str(folder.path)))
    rows.append(("model", str(folder.final / "model.safetensors")))
    rows += [("picture", str(path)) for path in sorted(folder.path.glob("*.png"))]
    return show.align(("", ""), rows)


def _select_judged(history: Events) -> Events:
    return [event for event in history if event.get("validation")]


def _spread(clients: Events, key: str) -> str:
    """Return the lowest and the highest sum of one number over the clients."""
    sums: dict[int, int] = {}
    for client in clients:
        sums[client["client"]] = sums.get(client["client"], 0) + client[key]
    if not sums:
        return ""
    return f" ({format_bytes(min(sums.values()))} to {format_bytes(max(sums.values()))} per client)"


def check_target(recipe: Recipe | FitRecipe, history: Events, *, hint: str) -> CheckError | None:
    """Return an error if the run ended below the validation accuracy that was asked for."""
    target = recipe.target_accuracy
    best = max((event["validation"]["accuracy"] for event in _select_judged(history)), default=0.0)
    if target is None or best >= target:
        return None
    return CheckError(
        f"validation accuracy reached {best:.2%}, {target:.2%} was asked for",
        hint=hint,
        where="--target",
    )


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
