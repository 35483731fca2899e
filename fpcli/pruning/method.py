"""Pruner: what a published method for pruning one trained model says, and what it may know.

A pruner is a stateless class with one hook, ``cut``: a model and a target go in, the cut model
comes out. Retraining afterwards, repeating the two in steps, judging and writing are the same for
all methods and are done around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from fpcli.data.datasets import Dataset
from fpcli.engine.central import FitConfig
from fpcli.engine.trained import Trained
from fpcli.rng import stream

Measure = Literal["ratio", "params", "macs", "bytes"]


@dataclass(frozen=True)
class Target:
    """How much is to go.

    Attributes:
        measure: ``ratio``: the method's own ratio. ``params``, ``macs`` and ``bytes``: of the
            model that the whole pruning started from.
        removed: share that goes, in [0, 1).
    """

    measure: Measure
    removed: float


@dataclass(frozen=True)
class NoOptions:
    """Options of a pruner that has none."""


@dataclass(frozen=True, eq=False)
class PruneContext:
    """What a pruner may know and use.

    Attributes:
        dataset: for scores that need data; the validation split may decide, the test split never.
        options: the method's own options.
        retraining: how the model is trained, by methods that prune while they train.
        seed: of every random stream.
        ignore: groups that nothing may be removed from.
        rates: group -> ratio, where each group has its own; empty for the target's one ratio.
        round_to: kept channels of a group are a multiple of this where its width allows.
        device: where to compute.
        tell: takes one line about what is going on.
        log: takes what the history should keep: ``px.log(event="mask", step=100, kept=12)``.
    """

    dataset: Dataset
    options: Any
    retraining: FitConfig
    seed: int
    ignore: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    round_to: int = 1
    device: str = "cpu"
    tell: Callable[[str], None] = print
    log: Callable[..., None] = field(default=lambda **values: None)

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose."""
        return stream(self.seed, f"prune/{purpose}")


class Pruner:
    """Base of all pruners; see the module docstring."""

    source: ClassVar[str] = ""
    """Paper, venue and year."""
    is_structured: ClassVar[bool] = True
    """False where single weights go and the model keeps its shape."""
    needs_target: ClassVar[bool] = True
    """False where the method finds by itself how much goes unless it is told."""
    Options: ClassVar[type] = NoOptions

    def cut(self, px: PruneContext, trained: Trained, target: Target | None) -> Trained:
        """Return the model with a smaller support; its values may have been trained too.

        Args:
            trained: may have been cut before, in an earlier step; what is gone stays gone.
            target: what must hold for the result, against the model of the first step; None only
                where the method needs none.

        Raises:
            CheckError: the target cannot be met; says how close the method came.
        """
        raise NotImplementedError
