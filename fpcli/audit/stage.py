"""What audits look at: samples of a task, and models with what they say of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.split import Split
from fpcli.errors import DivergedError, LayoutError
from fpcli.scores.producers import find_classifier, reshape_to_maps, watch_input
from fpcli.tasks.classify import judge_top1

AUDIT_PARTS = ("forget_train", "forget_test", "retain_train", "retain_test")
"""The sample sets of `AuditData`."""

Figures = Mapping[str, float | None]
"""Name of a figure -> its value, or None where it has none; never nan."""


@dataclass(frozen=True, eq=False)
class AuditData:
    """A task whose model had to forget some classes.

    Attributes:
        normalise: stored samples -> float32 (``Dataset.normalise``).
        forget_train: training samples of the forgotten classes.
        forget_test: test samples of them.
        retain_train: training samples of the other classes.
        retain_test: test samples of them.
        classes: the forgotten labels.
        num_classes: labels are 0..num_classes-1.
    """

    normalise: Callable[[Tensor], Tensor]
    forget_train: Split
    forget_test: Split
    retain_train: Split
    retain_test: Split
    classes: tuple[int, ...]
    num_classes: int

    @property
    def others(self) -> list[int]:
        """The labels that are not forgotten."""
        return [label for label in range(self.num_classes) if label not in self.classes]


class Seen(NamedTuple):
    """What a model says of ``n`` samples.

    Attributes:
        logits: float64 ``[n, classes]``; may be -inf, but no row is so throughout.
        features: what the classifier reads, float64 ``[n, width]``; maps are averaged.
        labels: int64 ``[n]``.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """Share of samples whose label has the largest logit."""
        return float(judge_top1(self.logits, self.labels).double().mean())


@dataclass(frozen=True, eq=False)
class AuditStage:
    """A model, the name of its classifier, and what it says of some of ``PARTS``."""

    model: nn.Module
    classifier: str
    seen: Mapping[str, Seen]

    @property
    def head(self) -> nn.Module:
        """The classifier."""
        return self.model.get_submodule(self.classifier)


@dataclass(frozen=True)
class Audit:
    """One kind of audit.

    Attributes:
        measure: takes the stages by name, the samples and a seed, and returns stage -> figures.
        parts: of ``PARTS``, what it has to see.
        shown: figure -> its words in a table; not every figure is worth a line.
        decisive: the figures, of one unit, whose largest gap decides who is nearer to retraining.
        margin: differences of gaps up to this are chance, with a thousand samples.
        is_share: the figures are shares of samples, whose noise grows as there are fewer.
        ceiling: what a figure counts as where it is None, because it would be at least that.
        needs_retrained: cannot be made without a model that never saw the classes.
    """

    measure: Callable[[Mapping[str, AuditStage], AuditData, int], Mapping[str, Figures]]
    parts: tuple[str, ...]
    shown: Mapping[str, str]
    decisive: tuple[str, ...]
    margin: float = 0.02
    is_share: bool = True
    ceiling: float | None = None
    needs_retrained: bool = False


@torch.no_grad()
def observe_stage(
    name: str, model: nn.Module, data: AuditData, parts: Collection[str]
) -> AuditStage:
    """Return a model, put in evaluation mode, with what it says of some samples.

    Args:
        name: of the stage, for errors.
        parts: of ``PARTS``.

    Raises:
        LayoutError: the classifier has not one row for each class.
        DivergedError: an output is not a number, or a row has no finite one.
    """
    model.eval()
    device = next(model.parameters()).device
    last = find_classifier(model, data.normalise(data.forget_train.images[:1].to(device)))
    head = model.get_submodule(last)
    rows = len(head.weight) if isinstance(head.weight, Tensor) else 0
    if rows != data.num_classes:
        raise LayoutError(
            f"the last layer of model `{name}`, `{last}`, has {rows} rows for "
            f"{data.num_classes} classes",
            hint="audits need a network whose last layer is its classifier",
        )
    seen = {part: _see(model, last, getattr(data, part), data) for part in parts}
    # The largest value of a row is nan where any is.
    if not all(bool(outputs.logits.amax(1).isfinite().all()) for outputs in seen.values()):
        raise DivergedError(
            f"model `{name}` puts out values that are no numbers", hint="it cannot be audited"
        )
    return AuditStage(model, last, seen)


def _see(model: nn.Module, last: str, split: Split, data: AuditData) -> Seen:
    logits: list[Tensor] = []
    features: list[Tensor] = []
    device, head = next(model.parameters()).device, model.get_submodule(last)

    def see(x: Tensor) -> None:
        features.append(reshape_to_maps(head, x).mean(2).double().cpu())

    with watch_input(model, last, see):
        for x, _ in evaluation_batches(split, data.normalise, device=device, channels_last=True):
            logits.append(model(x).double().cpu())
    return Seen(torch.cat(logits), torch.cat(features), split.labels)
