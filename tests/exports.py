"""Trained models for tests of `fp export`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from prunable import shaken

from fpcli.engine.trained import Inputs, Trained
from fpcli.models.build import build
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

INPUTS = Inputs(tuple("abcdefghij"), 1 / 16, (0.3,), (0.4,))


@cache
def whole(name: str, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> Trained:
    """Return a network with values that a wrong cut would show."""
    model = shaken(build(name, shape, Classify(classes), seed=3, allow_code=True))
    layout = trace(model, torch.zeros(1, *shape))
    values = {key: model.state_dict()[key].detach().clone() for key in layout.tensors}
    trained = Trained(name, model, layout, Support(), values, shape, Classify(classes))
    return replace(trained, inputs=INPUTS) if shape[0] == 1 else trained


def narrow(name: str, shape: tuple[int, ...] = (1, 8, 8), ratio: float = 0.5) -> Trained:
    """Return a network without some of its channels, drawn at random."""
    trained = whole(name, shape)
    generator = torch.Generator().manual_seed(0)
    scores = {
        key: torch.rand(group.width, generator=generator)
        for key, group in trained.layout.groups.items()
    }
    return trained.cut(Support(keep_ranked(trained.layout, scores, ratio)))


def masked(name: str, densities: dict[str, float]) -> Trained:
    """Return a network with single weights masked: tensor -> share that is alive."""
    trained = narrow(name)
    generator = torch.Generator().manual_seed(1)
    mask = {
        key: torch.rand(trained.layout.tensors[key].shape, generator=generator) < density
        for key, density in densities.items()
    }
    return trained.cut(Support(trained.support.keep, mask))


def every_way() -> Trained:
    """Return a network whose tensors are stored dense, by bitmap, and by index."""
    return masked("digits-cnn", {"conv2.weight": 0.4, "fc1.weight": 0.005})
