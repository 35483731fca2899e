"""Logistic regression as an attacker uses it: scaled, balanced, and judged on unseen samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NUM_FOLDS = 5
_MOST_ITERATIONS = 300

Array = NDArray[Any]


def fit_logistic(x: Array, y: Array) -> Any:
    """Return a fitted classifier of rows; both labels weigh the same however many rows they have.

    Args:
        x: float64 ``[n, width]``.
        y: bool ``[n]``, both values occur.
    """
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=_MOST_ITERATIONS, class_weight="balanced")
    )
    with warnings.catch_warnings():
        # A fit that is cut short is an attacker like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def split_folds(count: int) -> Iterator[tuple[Array, Array]]:
    """Yield train and test indices of cross-validation, 5 times or as often as there are samples.

    Args:
        count: samples, 2 or more, in random order.

    >>> [(train.tolist(), test.tolist()) for train, test in split_folds(2)]
    [([1], [0]), ([0], [1])]
    """
    number = np.arange(count) % min(NUM_FOLDS, count)
    for fold in range(min(NUM_FOLDS, count)):
        yield np.flatnonzero(number != fold), np.flatnonzero(number == fold)
