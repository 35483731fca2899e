"""Class membership: do the probabilities of the other classes betray that a class was known?

Of every sample of the forgotten classes, training and test samples alike, only the probabilities of
the *other* classes are looked at, divided by their sum. Removing a logit does not change these.
They are compared with what the retrained model says of the same sample:

``tv``           mean over samples of the total variation distance, half the sum of the differences
``js``           mean over samples of the Jensen-Shannon distance, to base 2
``tv_of_means``  total variation distance of the mean distributions of both models
``js_of_means``  Jensen-Shannon distance of these
``told_apart``   area under the ROC curve of a logistic regression that tells which of both models
                 a distribution comes from; cross-validated, both of one sample in the same fold

All but the last are in [0, 1], 0 for equal models; the last is 0.5 then.

Source: the audit follows arXiv 2506.20893; the choice of distances and their means is ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fpcli.audit.logistic import fit_logistic, split_folds
from fpcli.audit.stage import Audit, AuditData, AuditStage, Figures
from fpcli.data.distances import jensen_shannon, total_variation
from fpcli.errors import DivergedError

_PARTS = ("forget_train", "forget_test")


def compare_models(p: Tensor, q: Tensor) -> dict[str, float]:
    """Return all figures of two models.

    Args:
        p: distributions of one, float64 ``[n, others]``, in random order, n >= 2.
        q: of the other on the same samples.
    """
    means = p.mean(0), q.mean(0)
    return {
        "tv": float(total_variation(p, q).mean()),
        "js": float(jensen_shannon(p, q).mean()),
        "tv_of_means": float(total_variation(*means)),
        "js_of_means": float(jensen_shannon(*means)),
        "told_apart": _tell_apart(p, q),
    }


def _tell_apart(p: Tensor, q: Tensor) -> float:
    xs, fold_scores = (p.numpy(), q.numpy()), []
    for train, test in split_folds(len(p)):
        is_first = np.arange(2 * len(train)) < len(train)
        model = fit_logistic(np.concatenate([x[train] for x in xs]), is_first)
        scores = model.decision_function(np.concatenate([x[test] for x in xs]))
        fold_scores.append(float(roc_auc_score(np.arange(2 * len(test)) < len(test), scores)))
    return statistics.fmean(fold_scores)


def _others(stage: AuditStage, data: AuditData) -> Tensor:
    logits = torch.cat([stage.seen[part].logits for part in _PARTS])
    logits = logits[:, data.others]
    if not bool(logits.amax(1).isfinite().all()):
        raise DivergedError(
            "a model gives the other classes no probability at all", hint="it cannot be audited"
        )
    return logits.softmax(1)


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    retrained = _others(stages["retrained"], data)
    return {name: compare_models(_others(stage, data), retrained) for name, stage in stages.items()}


CLASS_MIA = Audit(
    measure=_measure,
    parts=_PARTS,
    shown={"tv": "total variation", "js": "Jensen-Shannon", "told_apart": "AUC, told apart"},
    decisive=("tv",),
    needs_retrained=True,
)
"""Figures: see the head of this file."""
