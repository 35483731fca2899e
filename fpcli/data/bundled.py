"""The data sets that come with scikit-learn: always there, without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpcli.data.split import cut_test
from fpcli.errors import DataError

SHA256: Mapping[str, str] = {
    "digits": "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5",
    "breast-cancer": "f86286b06e0eb4fbbb699d6ba5df7f1432e65642369ae111d0e47b47d02338bc",
    "diabetes": "ab010eff766fe54037fde8484848a0431c7543d274580a51be166ff45a2c8d03",
}
"""Of the values and labels of each data set in scikit-learn's order, as little-endian numbers."""


def digits(data_dir: Path | None) -> dict[str, Any]:
    """Return the 1,797 handwritten 8x8 digits that come with scikit-learn, 80 % for training."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8)
    return _check_known("digits", images, torch.from_numpy(bunch.target)) | {"scale": 1 / 16}


def breast_cancer(data_dir: Path | None) -> dict[str, Any]:
    """Return the table of 569 tumours with 30 measurements each, 80 % for training.

    Source: Wolberg, Street and Mangasarian, Wisconsin diagnostic breast cancer, 1993.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    rows = torch.from_numpy(bunch.data).float()
    arrays = _check_known("breast-cancer", rows, torch.from_numpy(bunch.target))
    return arrays | {"class_names": tuple(map(str, bunch.target_names))}


def diabetes(data_dir: Path | None) -> dict[str, Any]:
    """Return the table of 442 patients with 10 measurements each, 80 % for training, whose disease
    progressed so much within a year: 25 to 346.

    Source: Efron, Hastie, Johnstone and Tibshirani, Least angle regression, 2004.
    """
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    rows = torch.from_numpy(bunch.data).float()
    return _check_known("diabetes", rows, torch.from_numpy(bunch.target), "regress")


def _check_known(
    name: str, samples: Tensor, labels: Tensor, kind: str = "classify"
) -> dict[str, Any]:
    """Return arrays, test data included, if these are the samples that fpcli knows.

    Raises:
        DataError: they are others.
    """
    content = hashlib.sha256(samples.numpy().tobytes())
    content.update(labels.long().numpy().tobytes())
    if content.hexdigest() != SHA256[name]:
        raise DataError(
            f"data `{name}` of this scikit-learn is not what it should be",
            hint="`pip install --force-reinstall scikit-learn`",
            where=name,
        )
    arrays = cut_test({"train_images": samples, "train_labels": labels}, name, name, kind)
    return arrays | {"task": kind}
