"""A task with two informative features and one forgotten class, whose outputs can be computed by
hand, for tests of audits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpcli.audit.stage import AuditData, Seen
from fpcli.data.split import Split


def one_hot(labels: Tensor, *, noise: float = 0.0, seed: int = 0) -> Split:
    """Return samples of a table whose features are the one-hot label of three, plus noise."""
    x = torch.eye(3)[labels]
    noisy = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return Split(noisy, labels)


def toy_data(count: int = 60, *, noise: float = 0.0) -> AuditData:
    """Return a task of three classes, of which the last is forgotten."""
    gone, rest = torch.full((count,), 2), torch.arange(count) % 2
    train, test = (
        [one_hot(labels, noise=noise, seed=seed) for labels in (gone, rest)] for seed in (1, 2)
    )
    return AuditData(lambda x: x.clone(), train[0], test[0], train[1], test[1], (2,), 3)


def net(head: list[list[float]], bias: list[float] | None = None) -> nn.Sequential:
    """Return a network whose features are its inputs, with a classifier of these weights."""
    layer = nn.Linear(len(head[0]), len(head), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(head))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(nn.Identity(), layer)


KNOWS = [[3.0, 0, 0], [0, 3, 0], [0, 0, 3]]
"""Head of a network that is right on every sample of `toy_data`."""

NEVER_SAW = [[3.0, 0, 1], [0, 3, 1], [0, 0, 0]]
"""Head of one that takes forgotten samples for either of the others."""


def seen(logits: list[list[float]], labels: list[int]) -> Seen:
    """Return what a model says, with its logits as features."""
    values = torch.tensor(logits, dtype=torch.float64)
    return Seen(values, values, torch.tensor(labels))
