"""Scores: how much a channel or a weight matters."""

from __future__ import annotations

from collections.abc import Mapping

SCORES: Mapping[str, str] = {
    "l1": "fpcli.scores.magnitude:l1",
    "l2": "fpcli.scores.magnitude:l2",
    "bn-scale": "fpcli.scores.bn_scale:bn_scale_or_l1",
    "activation-mean-mean": "fpcli.scores.activation:mean_mean",
    "activation-mean-std": "fpcli.scores.activation:mean_std",
    "activation-mean-l1": "fpcli.scores.activation:mean_l1",
    "activation-mean-l2": "fpcli.scores.activation:mean_l2",
    "activation-var-l2": "fpcli.scores.activation:var_l2",
    "taylor": "fpcli.scores.taylor:taylor",
    "feature-rank": "fpcli.scores.feature_rank:feature_rank",
    "nisp": "fpcli.scores.response_propagation:ones_out",
    "nisp-ones": "fpcli.scores.response_propagation:ones",
    "nisp-inffs": "fpcli.scores.response_propagation:inf_fs",
    "largest": "fpcli.scores.controls:largest",
    "random": "fpcli.scores.controls:random",
}
"""Name in a recipe -> "module:function".

A score takes ``(layout, values)``, or ``(layout, values, sample)`` if it looks at the network and
at data too, and returns prunable group -> ``[width]``, larger = keep. ``scores.sample.score`` calls
both kinds.
"""
