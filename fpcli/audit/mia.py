"""Membership inference: can one tell training samples of the forgotten classes from unseen ones?

Members are training samples of these classes, non-members their test samples, as many of each. The
model retrained without the classes has seen neither, so that its figures are those of pure chance
and of whatever else sets the two sets apart; only the gap to it means something.

Attacks by threshold call a sample a member if the largest probability is high (``confidence``), the
cross-entropy low (``loss``) or the entropy low (``entropy``). A fourth, ``model``, is a logistic
regression on the sorted probabilities, cross-validated. Each gives the area under the ROC curve
(``auc``), the balanced accuracy (``balanced``; of a threshold chosen on the other half) and the
share of members found at no more than 1 % false alarms (``tpr1``).

Source: Yeom et al., "Privacy Risk in Machine Learning", CSF 2018 (loss); Salem et al., "ML-Leaks",
NDSS 2019 (confidence, entropy, sorted probabilities); Carlini et al., "Membership Inference Attacks
From First Principles", IEEE S&P 2022 (rate at few false alarms). How they are judged is ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve
from torch import Tensor

from fpcli.audit.logistic import Array, fit_logistic, split_folds
from fpcli.audit.stage import Audit, AuditData, AuditStage, Figures, Seen

FALSE_ALARMS = 0.01
_LEAST_LOG = -1e30
"""Stands for the logarithm of 0, which cannot be ranked by everything that ranks."""


def measure_rates(scores: Array, is_member: Array) -> dict[str, float]:
    """Return ``auc`` and ``tpr1`` of scores that are high for members; equal ones count half.

    Args:
        scores: finite, ``[n]``.
        is_member: bool ``[n]``, both values occur.

    >>> measure_rates(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))
    {'auc': 0.75, 'tpr1': 0.5}
    """
    false, true, _ = roc_curve(is_member, scores, drop_intermediate=False)
    return {
        "auc": float(roc_auc_score(is_member, scores)),
        "tpr1": float(true[false <= FALSE_ALARMS].max()),
    }


def judge_threshold(scores: Array, is_member: Array, is_first: Array) -> float:
    """Return the balanced accuracy on each half under the best threshold of the other, averaged.

    Args:
        scores: see :func:`measure_rates`.
        is_first: bool ``[n]``, which half; both hold members and others.
    """
    accuracies = []
    for judged in (is_first, ~is_first):
        false, true, thresholds = roc_curve(is_member[~judged], scores[~judged])
        called = scores[judged] >= thresholds[np.argmax(true - false)]
        accuracies.append(float(balanced_accuracy_score(is_member[judged], called)))
    return statistics.fmean(accuracies)


def attack_model(members: Seen, others: Seen) -> dict[str, float]:
    """Return all figures of one model.

    Args:
        members: what it says of samples that others were trained on.
        others: of as many samples that nobody was trained on; both in random order, 2 or more.
    """
    count = len(members.labels)
    is_member = np.arange(2 * count) < count
    is_first = np.arange(2 * count) % count < count // 2
    figures: dict[str, float] = {}
    for name, signal in _signals(members, others).items():
        figures |= {
            f"{name}_{kind}": value for kind, value in measure_rates(signal, is_member).items()
        }
        figures[f"{name}_balanced"] = judge_threshold(signal, is_member, is_first)
    return figures | {f"model_{kind}": x for kind, x in _by_model(members, others).items()}


def _signals(members: Seen, others: Seen) -> dict[str, Array]:
    """Return attack -> a number per sample, high for members."""
    logs = torch.cat([members.logits, others.logits]).log_softmax(1)
    labels = torch.cat([members.labels, others.labels])
    signals = {
        "confidence": logs.amax(1).exp(),
        "loss": logs.gather(1, labels[:, None])[:, 0].clamp(min=_LEAST_LOG),
        "entropy": -torch.special.entr(logs.exp()).sum(1),
    }
    return {name: signal.numpy() for name, signal in signals.items()}


def _by_model(members: Seen, others: Seen) -> dict[str, float]:
    xs = [_sort_confidences(seen.logits) for seen in (members, others)]
    figures: list[dict[str, float]] = []
    for train, test in split_folds(len(members.labels)):
        is_member = np.arange(2 * len(train)) < len(train)
        attacker = fit_logistic(np.concatenate([x[train] for x in xs]), is_member)
        scores = attacker.decision_function(np.concatenate([x[test] for x in xs]))
        is_member = np.arange(2 * len(test)) < len(test)
        balanced = float(balanced_accuracy_score(is_member, scores > 0))
        figures.append(measure_rates(scores, is_member) | {"balanced": balanced})
    return {kind: statistics.fmean(fold[kind] for fold in figures) for kind in figures[0]}


def _sort_confidences(logits: Tensor) -> Array:
    return logits.softmax(1).sort(1, descending=True).values.numpy()


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    count = min(len(data.forget_train), len(data.forget_test))
    return {
        name: attack_model(
            *(
                Seen(*(x[:count] for x in stage.seen[part]))
                for part in ("forget_train", "forget_test")
            )
        )
        for name, stage in stages.items()
    }


MIA = Audit(
    measure=_measure,
    parts=("forget_train", "forget_test"),
    shown={
        "confidence_auc": "AUC by confidence",
        "loss_auc": "AUC by loss",
        "entropy_auc": "AUC by entropy",
        "model_auc": "AUC of a trained attacker",
    },
    # Not the trained attacker's, which falls far below chance on folds of a few samples.
    decisive=("confidence_auc", "loss_auc", "entropy_auc"),
)
"""Figures ``ATTACK_KIND``, see the head of this file."""
