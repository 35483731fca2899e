"""Probes: what the features before the classifier still say of the forgotten classes.

An attacker with labelled data learns from frozen features whether a sample is of a forgotten class
or of another: by logistic regression (``linear``) and by the 15 nearest neighbours (``knn``), both
on standardised features. It learns on training samples and is judged on test samples, as many of
the forgotten classes as of the others. ``balanced`` is the mean of both sides' accuracy, ``recall``
the share of the forgotten side that is found. Features of a model that never saw the class tell it
apart as well, so that only the gap to retraining means something.

``cka_original`` and ``cka_retrained`` are the linear centred kernel alignment of the features on
the same test samples with those of the original and of the retrained model: 1 where they are equal
up to rotation and scale.

Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, for
the alignment; that unlearning be judged in feature space, arXiv 2503.06991 and 2604.08271.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fpcli.audit.logistic import Array, fit_logistic
from fpcli.audit.stage import AUDIT_PARTS, Audit, AuditData, AuditStage, Figures

_NEIGHBOURS = 15


def cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centred kernel alignment of two sets of features, in [0, 1].

    Args:
        x: float64 ``[n, width]``; the widths may differ.
        y: of the same samples. Features that never change are like nothing: 0.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / scale) if scale > 0 else 0.0


def probe_features(train: tuple[Array, Array], test: tuple[Array, Array]) -> dict[str, float]:
    """Return what two attackers find, see the head of this file.

    Args:
        train: features ``[n, width]`` and bool ``[n]``, which are of a forgotten class.
        test: likewise.
    """
    # An odd number of neighbours leaves no draw.
    neighbours = min(_NEIGHBOURS, (len(train[1]) - 1) // 2 * 2 + 1)
    nearest = make_pipeline(StandardScaler(), KNeighborsClassifier(neighbours))
    attackers = {"linear": fit_logistic(*train), "knn": nearest.fit(*train)}
    figures = {}
    for name, attacker in attackers.items():
        called = attacker.predict(test[0])
        figures[f"{name}_balanced"] = float(balanced_accuracy_score(test[1], called))
        figures[f"{name}_recall"] = float(recall_score(test[1], called))
    return figures


def _both(stage: AuditStage, forgotten: str, retained: str) -> tuple[Tensor, Array]:
    """Return features of as many forgotten as other samples, and which are forgotten."""
    sides = [stage.seen[part].features for part in (forgotten, retained)]
    count = min(map(len, sides))
    return torch.cat([side[:count] for side in sides]), np.arange(2 * count) < count


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    tests = {name: _both(stage, "forget_test", "retain_test") for name, stage in stages.items()}
    results: dict[str, Figures] = {}
    for name, stage in stages.items():
        (x, is_forgotten), (features, wanted) = (
            _both(stage, "forget_train", "retain_train"),
            tests[name],
        )
        figures = probe_features((x.numpy(), is_forgotten), (features.numpy(), wanted))
        for other in ("original", "retrained"):
            figures[f"cka_{other}"] = cka(features, tests[other][0])
        results[name] = figures
    return results


PROBE = Audit(
    measure=_measure,
    parts=AUDIT_PARTS,
    shown={
        "linear_balanced": "linear probe",
        "knn_balanced": "nearest neighbours",
        "cka_retrained": "CKA to retrained",
        "cka_original": "CKA to original",
    },
    decisive=("linear_balanced", "knn_balanced"),
    needs_retrained=True,
)
"""Figures: see the head of this file."""
