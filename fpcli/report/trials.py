"""The shares of channels that an unlearning tried: their file, and the rows of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.errors import DataError

_KEYS, _STAGES = ("forget_accuracy", "retain_accuracy"), ("original", "pruned", "finetuned")

HEAD = (
    "share", "class before", "pruned", "tuned", "others before", "pruned", "tuned", "left",
    "outcome",
)  # fmt: skip


def search_file(folder: Path) -> Path:
    """Return where the folder of an unlearning keeps what was tried."""
    return folder / "search.json"


def read_search(folder: Path) -> dict[str, Any] | None:
    """Return what a finished search found, see `unlearn.ratio_search`; None if there was none.

    Raises:
        DataError: the file cannot be read, or is not as it was written.
    """
    path = search_file(folder)
    if not path.is_file():
        return None
    try:
        search: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if lacking := {"ratio", "max_ratio", "trials", "cost"} - {*search}:
            raise ValueError(f"`{min(lacking)}` is missing")
        if not all(map(_is_whole, search["trials"])):
            raise ValueError("a trial of a share of channels is not whole")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: {error}",
            hint="restore the file from a copy, or unlearn anew with `--force`",
            where=str(path),
        ) from error
    return search


def _is_whole(trial: Any) -> bool:
    if not isinstance(trial, Mapping) or not isinstance(trial.get("outcome"), str):
        return False
    parts = [trial.get(key) for key in _KEYS]
    numbers = [trial.get("ratio"), trial.get("left")]
    numbers += [
        x.get(stage) if isinstance(x, Mapping) else None for x in parts for stage in _STAGES
    ]
    return all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)


def list_trials(trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row below ``HEAD`` for each trial (``unlearn.ratio_search.Trial``), by share."""
    return [
        (
            f"{trial['ratio']:.1%}",
            *(f"{trial[key][stage]:.1%}" for key in _KEYS for stage in _STAGES),
            f"{trial['left']:.1%}",
            str(trial["outcome"]),
        )
        for trial in sorted(trials, key=lambda trial: float(trial["ratio"]))
    ]
