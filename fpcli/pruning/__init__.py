"""Pruning of one trained model where the data is; one published method per file."""

from __future__ import annotations

from collections.abc import Mapping

PRUNERS: Mapping[str, str] = {
    "filters": "fpcli.pruning.filters:Filters",
}
"""Name -> ``module:class`` of a ``pruning.method.Pruner``, read by ``plugins.lookup``."""
