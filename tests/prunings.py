"""What tests about pruning one trained model share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import DataKey, Trained
from fpcli.models.build import build
from fpcli.pruning.filters import Options
from fpcli.pruning.pruner import PruneContext
from fpcli.settings.learning import FitConfig
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify


def trained_of(model: nn.Module, shape: Sequence[int], classes: int = 10) -> Trained:
    """Return a network with the values that it has."""
    layout = trace(model, torch.zeros(1, *shape))
    state = model.state_dict()
    values = {name: state[name].detach().clone() for name in layout.tensors}
    key = DataKey("digits", 0.1, 0)
    return Trained(
        "a model", model, layout, Support(), values, tuple(shape), Classify(classes), key
    )


@cache
def named(name: str, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10) -> Trained:
    """Return a network by name with its initial values; each is traced once."""
    return replace(
        trained_of(build(name, shape, Classify(classes), seed=0), shape, classes), model=name
    )


def context(dataset: Dataset | None = None, *, epochs: int = 0, **more: Any) -> PruneContext:
    """Return a context of the method `filters`."""
    options = Options(
        **{key: more.pop(key) for key in list(more) if key in Options.__dataclass_fields__}
    )
    retraining = FitConfig(epochs=epochs, lr=0.02, schedule="constant")
    fields: dict[str, Any] = {"tell": lambda text: None} | more
    return PruneContext(dataset, options, retraining, 0, **fields)
