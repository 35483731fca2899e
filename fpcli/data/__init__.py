"""Data sets, how they are shared out among clients, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "fpcli.data.bundled:digits",
    "breast-cancer": "fpcli.data.bundled:breast_cancer",
    "mnist": "fpcli.data.vision:mnist",
    "fashion-mnist": "fpcli.data.vision:fashion_mnist",
    "emnist": "fpcli.data.vision:emnist",
    "emnist-letters": "fpcli.data.vision:emnist_letters",
    "emnist-digits": "fpcli.data.vision:emnist_digits",
    "emnist-byclass": "fpcli.data.vision:emnist_byclass",
    "emnist-bymerge": "fpcli.data.vision:emnist_bymerge",
    "cifar10": "fpcli.data.vision:cifar10",
    "cifar100": "fpcli.data.vision:cifar100",
    "svhn": "fpcli.data.vision:svhn",
}
"""Name -> function of a data folder (or None) that returns arrays under the keys of ``split.KEYS``
and, optionally, ``train_owners``, ``scale``, ``mean``, ``std``, ``class_names``, ``owner_names``
and ``notes`` (see ``datasets.Dataset``), and ``layout`` (see ``image_arrays.read_images``)."""
