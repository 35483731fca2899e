"""Server difference: can an observer of both models name the class from the classifier's rows?

The change of a class's row, weights and bias, is the norm of the difference over the norm that it
had in the original model. ``share`` is the part of the forgotten classes in the sum over all
classes (their number over all classes where rows say nothing), ``rank`` the best place of a
forgotten class, 1 for the row that changed most; equal changes share the better place. Both are
None for models that cannot be compared or do not differ.

A model whose classifier reads less, since channels were removed, is put into the coordinates of the
original by the stage ``pruned``, whose columns are still some of the original's; what is gone
counts as 0.

Source: what is measured follows Zhou et al., "Model Inversion Attack Against Federated Unlearning",
IEEE TIFS 2026; the figures are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fpcli.audit.stage import Audit, AuditData, AuditStage, Figures


def rank_classes(before: Tensor, after: Tensor, classes: Sequence[int]) -> dict[str, float | None]:
    """Return ``share`` and ``rank`` of classes, see the head of this file.

    Args:
        before: a row per class.
        after: of the same shape.
    """
    norms = before.norm(dim=1)
    change = (after - before).norm(dim=1) / norms.clamp(min=1e-12)
    total = float(change.sum())
    if not 0 < total < math.inf:
        return {"share": None, "rank": None}
    forgotten = change[list(classes)]
    return {
        "share": float(forgotten.sum()) / total,
        "rank": 1 + int((change > forgotten.max()).sum()),
    }


def find_columns(before: Tensor, after: Tensor) -> Tensor | None:
    """Return which columns of ``before`` those of ``after`` are, in order, int64; None if they are
    no copies of some.

    >>> find_columns(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0]])).tolist()
    [0, 2]
    """
    kept: list[int] = []
    for column in after.T:
        start = kept[-1] + 1 if kept else 0
        equal = (before[:, start:] == column[:, None]).all(0).nonzero().flatten()
        if not len(equal):
            return None
        kept.append(start + int(equal[0]))
    return torch.tensor(kept, dtype=torch.int64)


def _rows(stage: AuditStage) -> tuple[Tensor, Tensor]:
    """Return weights ``[classes, columns]`` and bias ``[classes, 0 or 1]``."""
    weight = stage.head.get_parameter("weight").detach().double().cpu().flatten(1)
    layers = [
        x.detach().double().cpu() for name, x in stage.head.named_parameters() if name == "bias"
    ]
    return weight, torch.stack(layers, 1) if layers else weight[:, :0]


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    weight, bias = _rows(stages["original"])
    before = torch.cat([weight, bias], 1)
    pruned = _rows(stages["pruned"])[0] if "pruned" in stages else weight
    kept = find_columns(weight, pruned)
    figures: dict[str, Figures] = {}
    for name, stage in stages.items():
        stage_weight, stage_bias = _rows(stage)
        if kept is not None and stage_weight.shape[1] == len(kept) < weight.shape[1]:
            stage_weight = torch.zeros_like(weight).index_copy_(1, kept, stage_weight)
        figures[name] = {"share": None, "rank": None}
        if stage_weight.shape == weight.shape and stage_bias.shape == bias.shape:
            figures[name] = rank_classes(
                before, torch.cat([stage_weight, stage_bias], 1), data.classes
            )
    return figures


SERVER_DIFF = Audit(
    measure=_measure,
    parts=(),
    shown={"share": "share of row changes", "rank": "rank of the row"},
    decisive=("share",),
)
"""Figures: see the head of this file."""
