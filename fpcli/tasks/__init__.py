"""What is learned: the loss that trains a model, and the metrics that judge it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from fpcli.tasks.classify import Classify
from fpcli.tasks.learning_task import LearningTask
from fpcli.tasks.rank import Rank
from fpcli.tasks.regress import Regress

TASKS: Mapping[str, type[LearningTask]] = {cls.kind: cls for cls in (Classify, Regress, Rank)}
"""Kind -> class."""


def read_task(data: Mapping[str, Any]) -> LearningTask:
    """Return the task that `LearningTask.to_json` wrote, from an untrusted source.

    Raises:
        ValueError: it is none.
    """
    fields = dict(data)
    cls = TASKS.get(str(fields.pop("kind", "")))
    if cls is None:
        raise ValueError(f"`{data.get('kind')}` is no task; known: {', '.join(TASKS)}")
    return TypeAdapter(cls).validate_python(fields)
