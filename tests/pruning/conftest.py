from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from prunings import trained_of

from fpcli.data.datasets import Dataset, load
from fpcli.engine.trained import Trained
from fpcli.models.build import build


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", None, seed=0)


@pytest.fixture(scope="session")
def cnn() -> Trained:
    """Return the untrained network for digits: groups conv1 16, conv2 32, fc1 64."""
    return trained_of(build("digits-cnn", (1, 8, 8), 10, seed=3), (1, 8, 8))


@pytest.fixture(scope="session")
def named() -> Callable[[str, Sequence[int], int], Trained]:
    """Return a function that traces each network once."""
    known: dict[str, Trained] = {}

    def find(name: str, shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> Trained:
        if name not in known:
            known[name] = trained_of(build(name, tuple(shape), classes, seed=0), shape, classes)
        return known[name]

    return find
