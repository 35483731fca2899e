"""Made-up folders of runs, for what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.recipe.load import load_recipe, to_yaml
from fpcli.settings.recipes import FitRecipe, PruneRecipe


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


def judged(
    number: int, validation: Mapping[str, float], test: Mapping[str, float], **more: Any
) -> dict[str, Any]:
    """Return a round of format 2 that is judged by any metrics."""
    scores = {
        split: {**metrics, "loss": 1.0, "num_examples": 50}
        for split, metrics in (("validation", validation), ("test", test))
    }
    return event(number, None, format=2) | scores | more


def regression(*errors: float) -> list[dict[str, Any]]:
    """Return one round per mean absolute error, which is 1 lower on test data."""
    return [
        judged(number, {"mae": mae, "r2": 0.5}, {"mae": mae - 1, "r2": 0.25})
        for number, mae in enumerate(errors, start=1)
    ]


def ranking(*gains: float) -> list[dict[str, Any]]:
    """Return one round per NDCG@10; HR@10 is twice and MRR half of it."""
    return [
        judged(number, metrics, metrics)
        for number, gain in enumerate(gains, start=1)
        for metrics in [{"ndcg@10": gain, "hr@1": gain / 4, "hr@10": 2 * gain, "mrr": gain / 2}]
    ]


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


def write_fit(path: Path, *scores: float, **flags: Any) -> Path:
    """Write a run of `fp fit` with an epoch of half a second per score, and a model of 4,000 B."""
    settings = {key.replace("__", "."): value for key, value in flags.items()}
    recipe = load_recipe(None, flags={"fit.epochs": len(scores)} | settings, cls=FitRecipe)
    lines = []
    for number, score in enumerate(scores, start=1):
        judged = {"accuracy": score, "loss": 1.0 / number, "num_examples": 100}
        lines.append({
            "event": "epoch", "round": number, "loss": 2.0 / number, "lr": 0.1, "real_s": 0.5,
            "params": 1000, "macs": 5000.0, "validation": judged, "test": judged,
        })  # fmt: skip
    (path / "final").mkdir(parents=True)
    (path / "recipe.yaml").write_text(to_yaml(recipe))
    (path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "final" / "model.safetensors").write_bytes(bytes(4000))
    return path


def write_pruning(
    path: Path, ratio: float, score: float, *, source: str = "", source_seed: int = 0,
    latency: bool = False, **flags: Any,
) -> Path:  # fmt: skip
    """Write a result of `fp prune`: of 1,000 parameters of a model with 90 % a share goes, and of
    its 5,000 multiply-adds; two epochs of retraining take 1 s."""
    settings = {key.replace("__", "."): value for key, value in flags.items()}
    recipe = load_recipe(
        None, flags={"prune.ratio": ratio, "retrain.epochs": 2} | settings, cls=PruneRecipe
    )

    def stage(name: str, left: float, accuracy: float) -> dict[str, Any]:
        judged = {"accuracy": accuracy, "loss": 1 - accuracy, "num_examples": 100}
        return {
            "event": name, "params": round(1000 * left), "macs": round(5000.0 * left, 3),
            "bytes": round(4000 * left), "validation": judged, "test": judged,
        }  # fmt: skip

    epochs = [{"event": "epoch", "epoch": n, "loss": 1.0, "real_s": 0.5} for n in (1, 2)]
    history = [stage("before", 1.0, 0.9), *epochs, stage("after", 1 - ratio, score)]
    report: dict[str, Any] = {"source": source} if source else {}
    if latency:
        times = {"1": 0.5, "64": 2.0}
        new = {images: ms * (1 - ratio) for images, ms in times.items()}
        report["latency_ms"] = {"before": times, "after": new}
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(to_yaml(recipe))
    (path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    (path / "report.json").write_text(json.dumps(report))
    (path / "layout.json").write_text(json.dumps({"data": {"seed": source_seed}}))
    (path / "model.safetensors").write_bytes(bytes(round(4000 * (1 - ratio))))
    return path
