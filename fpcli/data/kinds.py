"""What is learned from data, and what goes by classes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fpcli.data.image_arrays import wrong_array
from fpcli.data.labels import have_fractions
from fpcli.data.split import array_of
from fpcli.errors import DataError, RecipeError
from fpcli.tasks import TASKS


def choose_kind(source: str, arrays: Mapping[str, Any], wanted: str = "auto") -> str:
    """Return which of ``tasks.TASKS`` is learned.

    Args:
        source: named in errors.
        arrays: under the key ``task`` they may say it; else training labels with fractions are
            numbers to be predicted, and all others classes.
        wanted: a value of ``task.kind``; what the data does not say goes by it.

    Raises:
        DataError: the data says something else, or no task that there is.
    """
    said = str(arrays.get("task", ""))
    if said and said not in TASKS:
        raise wrong_array(source, "task", f"is `{said:.40}`", f"known: {', '.join(TASKS)}")
    if wanted != "auto":
        if said not in ("", wanted):
            raise DataError(
                f"{source}: task.kind is `{wanted}`, and the data is for `{said}`",
                hint="leave task.kind (`--task`) out",
                where="task.kind",
            )
        return wanted
    if said:
        return said
    is_there = "train_labels" in arrays  # else it is refused with what else is missing
    if is_there and have_fractions(array_of(source, "train_labels", arrays)):
        return "regress"
    return "classify"


def require_classes(kind: str, key: str, problem: str, hint: str) -> None:
    """Refuse a setting that goes by classes where none are learned.

    Args:
        kind: what is learned.
        key: the setting.
        problem: what it says, behind its key.

    Raises:
        RecipeError: no classes are learned.
    """
    if kind != "classify":
        raise RecipeError(
            f"{key} {problem}, which goes by classes, and the data's task is `{kind}`",
            hint=hint,
            where=key,
        )
