"""Made-up folders of runs, for what reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpcli.recipe.load import load_recipe, to_yaml


def client(number: int, **more: Any) -> dict[str, Any]:
    return {
        "client": number, "num_examples": 100, "params": 1000, "macs": 5e3, "pruning_error": 0.0,
        "down_bytes": 2000, "up_bytes": 1000, "compute_s": 1.0, "down_s": 0.5, "up_s": 0.5,
        "notes": {},
    } | more  # fmt: skip


def event(number: int, validation: float | None, test: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return a round that brings 10 kB down, 5 kB up, 2 s of the clock and 1 s of real time."""
    found = {
        "event": "round", "round": number, "loss": 2.0 / number, "clock_s": 2.0 * number,
        "real_s": 1.0, "total_down_bytes": 10_000 * number, "total_up_bytes": 5_000 * number,
        "params": 1000, "macs": 5000.0, "coverage": 2, "notes": {},
        "clients": [client(0), client(1)], "rejected": [], "dropped": [],
    }  # fmt: skip
    if validation is not None:
        found["validation"] = {"accuracy": validation, "loss": 1.0, "num_examples": 50}
        found["test"] = {"accuracy": test, "loss": 1.0 / number, "num_examples": 100}
    return found | more


def rounds(*scores: float) -> list[dict[str, Any]]:
    """Return one round per score, the same on validation and test data."""
    return [event(number, score, score) for number, score in enumerate(scores, start=1)]


def write_run(path: Path, history: Sequence[dict[str, Any]], **flags: Any) -> Path:
    """Write a run of as many rounds as there are events; ``__`` in a flag stands for a dot."""
    settings = {key.replace("__", "."): value for key, value in flags.items()}
    recipe = load_recipe(None, flags={"rounds": max(len(history), 1)} | settings)
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(to_yaml(recipe))
    lines = (json.dumps(item) + "\n" for item in history)
    (path / "events.jsonl").write_text("".join(lines))
    return path
