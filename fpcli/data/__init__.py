"""Data sets, how they are shared out among clients, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "fpcli.data.datasets:digits",
    "mnist": "fpcli.data.datasets:mnist",
    "cifar10": "fpcli.data.datasets:cifar10",
}
"""Name -> function of a data folder (or None) that returns arrays under the keys of ``split.KEYS``
and, optionally, ``scale``, ``mean`` and ``std`` (see ``datasets.Dataset``)."""

PARTITIONS = (
    "iid", "dirichlet", "shards", "dominant", "classes", "missing", "quantity", "natural", "file",
)  # fmt: skip
"""Ways to split the training data over the clients (:mod:`fpcli.data.partition`)."""
