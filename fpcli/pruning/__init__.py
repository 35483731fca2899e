"""Pruning of one trained model where the data is; one published method per file."""

from __future__ import annotations

from collections.abc import Mapping

PRUNERS: Mapping[str, str] = {
    "fedprune-ica3pp": "fpcli.pruning.ica3pp:ICA3PP",
    "filters": "fpcli.pruning.filters:Filters",
    "gdp": "fpcli.pruning.gdp:GDP",
    "imt": "fpcli.pruning.imt:IMT",
}
"""Name -> ``module:class`` of a ``pruning.method.Pruner``, read by ``plugins.lookup``."""
