"""What an event must hold before anything is computed from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fpcli.settings.metrics import find_measured, list_metrics

OF_MODEL = ("round", "real_s", "params", "macs")
"""Numbers of an epoch, or of a pruning."""

OF_ROUND = (*OF_MODEL, "clock_s", "total_down_bytes", "total_up_bytes", "coverage")
"""Numbers of a federated round."""

_OF_CLIENT = (
    "client", "num_examples", "params", "macs", "pruning_error", "down_bytes", "up_bytes",
    "compute_s", "down_s", "up_s",
)  # fmt: skip


def find_problems(event: Mapping[str, Any], numbers: Sequence[str] = OF_ROUND) -> Iterator[str]:
    """Yield in words what is wrong with an event that should hold some numbers."""
    for key in numbers:
        if not is_finite_number(event.get(key)):
            yield f"`{key}` is not a number"
    for split in ("validation", "test"):
        score = event.get(split)
        if score and not (isinstance(score, Mapping) and list_metrics(score)):
            yield f"`{split}` has no metric"
        elif score and not all(map(is_number_or_none, score.values())):
            yield f"`{split}` has a value that is no number"
    if bool(event.get("validation")) != bool(event.get("test")):
        yield "only one of `validation` and `test` is there"
    if not isinstance(event.get("notes"), Mapping):
        yield "`notes` is not there"
    if not _has_values_of_clients(event.get("personal") or {}):
        yield "`personal` is not a mapping of metrics to numbers of clients"
    if not is_number_or_none(event.get("loss")):
        yield "`loss` is not a number"
    for key in ("rejected", "dropped"):
        if not all(isinstance(reply, Mapping) for reply in event.get(key) or ()):
            yield f"`{key}` is not a list of replies"
    if not isinstance(event.get("clients"), list):
        yield "`clients` is not a list of clients"
    for client in event.get("clients") or ():
        if not (isinstance(client, Mapping) and isinstance(client.get("notes"), Mapping)):
            yield "`clients` is not a list of clients"
        elif wrong := [key for key in _OF_CLIENT if not is_finite_number(client.get(key))]:
            yield f"client {client.get('client')}: `{wrong[0]}` is not a number"


def is_finite_number(value: Any) -> bool:
    """Tell whether a value is a number that can be computed with."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # a whole one may be larger; NaN is not


def _has_values_of_clients(personal: Any) -> bool:
    return isinstance(personal, Mapping) and all(
        find_measured(str(name))
        and isinstance(values, Mapping)
        and values
        and all(map(is_number_or_none, values.values()))
        for name, values in personal.items()
    )


def has_metrics_only(values: Any) -> bool:
    """Tell whether something is a mapping of known metrics to numbers."""
    return isinstance(values, Mapping) and all(
        list_metrics([str(name)]) and is_finite_number(value) for name, value in values.items()
    )


def is_number_or_none(value: Any) -> bool:
    """Tell whether a value is such a number, or missing."""
    return value is None or is_finite_number(value)
