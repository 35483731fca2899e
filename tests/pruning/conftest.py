from __future__ import annotations

import pytest
from prunings import named

from fpcli.data.datasets import Dataset, load
from fpcli.engine.trained import Trained


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", None, seed=0)


@pytest.fixture(scope="session")
def cnn() -> Trained:
    """Return the untrained network for digits: groups conv1 16, conv2 32, fc1 64."""
    return named("digits-cnn", (1, 8, 8))
