from __future__ import annotations

import pytest
import torch
from prunings import named

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.engine.central import train_centrally
from fpcli.engine.trained import Trained
from fpcli.models.build import build
from fpcli.settings.learning import FitConfig
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", None, seed=0)


@pytest.fixture(scope="session")
def cnn() -> Trained:
    """Return the untrained network for digits: groups conv1 16, conv2 32, fc1 64."""
    return named("digits-cnn", (1, 8, 8))


@pytest.fixture(scope="session")
def learned_cnn(digits: Dataset) -> Trained:
    """Return the same network once it has learned the digits."""
    return _learned("digits-cnn", digits, 3)


@pytest.fixture(scope="session")
def residual(digits: Dataset) -> Trained:
    """Return a network with batch norm and a residual sum that has learned the digits."""
    return _learned("nets:tiny", digits, 6)


def _learned(name: str, dataset: Dataset, epochs: int) -> Trained:
    model = build(name, (1, 8, 8), Classify(10), seed=0, allow_code=True)
    layout = trace(model, torch.zeros(1, 1, 8, 8))
    config = FitConfig(epochs=epochs, batch_size=64, lr=0.05)
    for _ in train_centrally(model, dataset, config, seed=0):
        pass
    values = {key: model.state_dict()[key].detach().clone() for key in layout.tensors}
    return Trained(name, model, layout, Support(), values, (1, 8, 8), Classify(10))
