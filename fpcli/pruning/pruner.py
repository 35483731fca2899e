"""Pruner: what a published method for pruning one trained model says, and what it may know.

A pruner is a stateless class. Its hook ``cut`` gets a model and a target and returns the cut model;
``steps`` may say in which portions. Retraining in between, judging and writing are the same for all
methods and are done around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.errors import NeedError
from fpcli.rng import stream
from fpcli.settings.learning import FitConfig
from fpcli.settings.tasks import Augment
from fpcli.structure.support import Support

Measure = Literal["ratio", "params", "macs", "bytes"]


@dataclass(frozen=True)
class PruneTarget:
    """How much is to go.

    Attributes:
        measure: ``ratio``: the method's own ratio; ``params``, ``macs`` or ``bytes``.
        removed: share that goes, in [0, 1), of the model that the whole pruning started from.
    """

    measure: Measure
    removed: float


@dataclass(frozen=True)
class NoPrunerOptions:
    """Options of a pruner that has none."""


@dataclass(frozen=True, eq=False)
class PruneContext:
    """What a pruner may know and use.

    Attributes:
        found: the data where it is there, see :attr:`dataset`.
        options: the method's own options.
        retraining: how the model is trained, by methods that prune while they train.
        augment: how training images are changed then.
        seed: of every random stream.
        start: what was alive when the whole pruning began; every ratio and share is of that.
        ignore: groups that nothing may be removed from.
        rates: group -> ratio, where a group has its own; all others have the target's.
        round_to: kept channels of a group are a multiple of this where its width allows.
        recalibrate: training batches that batch norm is measured again on after each cut.
        device: where to compute.
        tell: takes one line about what is going on.
        log: takes what the history should keep: ``px.log(event="mask", step=100, kept=12)``.
    """

    found: Dataset | None
    options: Any
    retraining: FitConfig
    seed: int
    start: Support = field(default_factory=Support)
    ignore: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    round_to: int = 1
    augment: Augment = "none"
    recalibrate: int = 0
    device: str = "cpu"
    tell: Callable[[str], None] = print
    log: Callable[..., None] = field(default=lambda **values: None)

    @property
    def dataset(self) -> Dataset:
        """The data; its validation split may decide, its test split never.

        Raises:
            NeedError: the data is not there, as it may be under ``--dry-run``.
        """
        if self.found is None:
            raise NeedError(
                "this way of pruning looks at the data, which is not there",
                hint="say where it is: --data NAME --data-dir DIR",
                where="--data",
            )
        return self.found

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose."""
        return stream(self.seed, f"prune/{purpose}")


class Pruner:
    """Base of all pruners; see the module docstring."""

    source: ClassVar[str] = ""
    """Paper, venue and year."""
    is_structured: ClassVar[bool] = True
    """False where single weights go and the model keeps its shape."""
    Options: ClassVar[type] = NoPrunerOptions

    def decides(self, options: Any) -> bool:
        """Tell whether the options alone say how much goes, so that no target is needed."""
        return False

    def trains(self, options: Any) -> bool:
        """Tell whether :meth:`cut` trains the model, so that it is no mere plan."""
        return False

    def steps(
        self, px: PruneContext, trained: Trained, target: PruneTarget, num_steps: int
    ) -> list[tuple[PruneContext, PruneTarget]]:
        """Return what :meth:`cut` is called with, one after the other, with retraining behind each.

        By default every ratio and share grows evenly; the last step is the whole target.
        """
        shares = [number / num_steps for number in range(1, num_steps + 1)]
        return [
            (
                replace(px, rates={group: rate * share for group, rate in px.rates.items()}),
                replace(target, removed=target.removed * share),
            )
            for share in shares
        ]

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        """Return the model with a smaller support; its values may have been trained too.

        Args:
            trained: may have been cut before, in an earlier step; what is gone stays gone.
            target: what must hold for the result, against the model of the first step.

        Raises:
            CheckError: the target cannot be met; says how close the method came.
        """
        raise NotImplementedError
