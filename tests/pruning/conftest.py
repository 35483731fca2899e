"""Two small networks that have learned the digits, one with batch norm and a residual sum."""

from __future__ import annotations

import pytest
import torch

from fpcli.data.datasets import Dataset, load
from fpcli.engine.central import FitConfig, train
from fpcli.engine.trained import DataKey, Trained
from fpcli.models.build import build
from fpcli.structure.support import Support
from fpcli.structure.trace import trace


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", None, seed=0)


def learned(name: str, dataset: Dataset, epochs: int) -> Trained:
    model = build(name, (1, 8, 8), 10, seed=0, allow_code=True)
    layout = trace(model, torch.zeros(1, 1, 8, 8))
    config = FitConfig(epochs=epochs, batch_size=64, lr=0.05)
    for _ in train(model, dataset, config, seed=0):
        pass
    values = {key: model.state_dict()[key].detach().clone() for key in layout.tensors}
    key = DataKey("digits", 0.1, 0)
    return Trained(name, model, layout, Support(), values, (1, 8, 8), 10, key)


@pytest.fixture(scope="session")
def cnn(digits: Dataset) -> Trained:
    return learned("digits-cnn", digits, 3)


@pytest.fixture(scope="session")
def residual(digits: Dataset) -> Trained:
    return learned("nets:tiny", digits, 6)
