"""The shares of channels that an unlearning tried, as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEYS, STAGES = ("forget_accuracy", "retain_accuracy"), ("original", "pruned", "finetuned")

HEAD = (
    "share", "class before", "pruned", "tuned", "others before", "pruned", "tuned", "left",
    "outcome",
)  # fmt: skip


def trial_rows(trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row below ``HEAD`` for each trial (``run.ratio_search.Trial``), by share."""
    return [
        (
            f"{trial['ratio']:.1%}",
            *(f"{trial[key][stage]:.1%}" for key in KEYS for stage in STAGES),
            f"{trial['left']:.1%}",
            str(trial["outcome"]),
        )
        for trial in sorted(trials, key=lambda trial: float(trial["ratio"]))
    ]
