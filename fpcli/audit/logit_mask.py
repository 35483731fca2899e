"""The logit mask: the original model without the forgotten logits, which every audit also judges.

It is right on no sample of the forgotten classes and forgot nothing: accuracy does not tell it from
a model that did. A method that an audit finds no nearer to retraining than this has shown nothing
there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch

from fpcli.audit.stage import Audit, AuditData, Figures, Seen, Stage


def masked(stage: Stage, classes: Sequence[int]) -> Stage:
    """Return a stage without the logits of some classes: they are -inf in what it says, and the
    copy of its model has zeros in the classifier's rows, as if they had been handed out empty."""
    gone = torch.tensor(list(classes))
    made = Stage(copy.deepcopy(stage.model), stage.classifier, {})
    with torch.no_grad():
        for tensor in made.head.parameters():
            tensor[gone.to(tensor.device)] = 0
    seen = {
        part: Seen(one.logits.index_fill(1, gone, -torch.inf), one.features, one.labels)
        for part, one in stage.seen.items()
    }
    return Stage(made.model, stage.classifier, seen)


def _measure(stages: Mapping[str, Stage], data: AuditData, seed: int) -> dict[str, Figures]:
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
