"""Data sets, how they are shared out among clients, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "fpcli.data.bundled:digits",
    "mnist": "fpcli.data.datasets:mnist",
    "cifar10": "fpcli.data.datasets:cifar10",
    "breast-cancer": "fpcli.data.bundled:breast_cancer",
}
"""Name -> function of a data folder (or None) that returns arrays under the keys of ``split.KEYS``
and, optionally, ``train_owners``, ``scale``, ``mean``, ``std``, ``class_names`` and ``owner_names``
(see ``datasets.Dataset``)."""

PREFIXES = ("npz:",)
"""What a data set starts with that is a path and no name."""
