"""Data sets, how they are shared out among clients, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "fpcli.data.bundled:digits",
    "breast-cancer": "fpcli.data.bundled:breast_cancer",
    "diabetes": "fpcli.data.bundled:diabetes",
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
    "ml-100k": "fpcli.data.ratings:ml_100k",
    "markov": "fpcli.data.synthetic:markov",
    "rec-synth": "fpcli.data.synthetic:rec_synth",
}
"""Name -> function of a data folder (or None) that returns arrays under the keys of ``split.KEYS``
and, optionally, ``train_owners``, ``scale``, ``mean``, ``std``, ``class_names``, ``owner_names``
and ``notes`` (see ``datasets.Dataset``), and ``layout`` (see ``image_arrays.read_images``).
``task`` says what is learned: ``classify``; ``regress``, labels are numbers; or ``rank``, samples
are sequences of items and labels the items that come next (see ``sequences``). Then there may be
``split.OF_ITEMS`` and ``item_names`` too. Without it see ``kinds.choose_kind``."""
