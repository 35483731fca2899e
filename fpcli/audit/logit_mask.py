"""The logit mask: the original model without the forgotten logits, which every audit also judges.

It is right on no sample of the forgotten classes and forgot nothing: accuracy does not tell it from
a model that did. A method that an audit finds no nearer to retraining than this has shown nothing
there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch

from fpcli.audit.stage import Audit, AuditData, AuditStage, Figures, Seen


def mask_logits(stage: AuditStage, classes: Sequence[int]) -> AuditStage:
    """Return a stage without the logits of some classes: they are -inf in what it says, and the
    copy of its model has zeros in the classifier's rows, as if they had been handed out empty."""
    forgotten = torch.tensor(list(classes))
    made = AuditStage(copy.deepcopy(stage.model), stage.classifier, {})
    with torch.no_grad():
        for tensor in made.head.parameters():
            tensor[forgotten.to(tensor.device)] = 0
    seen = {
        part: Seen(
            outputs.logits.index_fill(1, forgotten, -torch.inf), outputs.features, outputs.labels
        )
        for part, outputs in stage.seen.items()
    }
    return AuditStage(made.model, stage.classifier, seen)


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    return {
        name: {
            "forget_accuracy": stage.seen["forget_test"].accuracy,
            "retain_accuracy": stage.seen["retain_test"].accuracy,
        }
        for name, stage in stages.items()
    }


LOGIT_MASK = Audit(
    measure=_measure,
    parts=("forget_test", "retain_test"),
    shown={"forget_accuracy": "accuracy, forgotten", "retain_accuracy": "accuracy, others"},
    decisive=("forget_accuracy", "retain_accuracy"),
)
"""Figures: accuracy on test samples, forgotten (``forget_accuracy``) and others
(``retain_accuracy``)."""
