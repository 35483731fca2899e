"""A FedAvg round as one would write it by hand: the floor that the engine is measured against.

Run as a program it prints its own steps per second, in a process without any of our settings:
``python tests/bench/plain.py mnist-cnn 3``.
"""

from __future__ import annotations

import copy
import sys
import time

import torch
from torch import Tensor, nn

from fpcli.tasks.classify import Classify

NUM_CLIENTS, BATCH_SIZE, LR = 10, 32, 0.05
SHAPES = {"mnist-cnn": ((1, 28, 28), 600), "resnet20": ((3, 32, 32), 500)}
"""Model -> input shape and samples per client."""


def images(model: str) -> tuple[Tensor, Tensor]:
    """Return random normalised images and labels for all clients."""
    shape, samples = SHAPES[model]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_CLIENTS * samples, *shape, generator=generator)
    return x, torch.randint(10, (len(x),), generator=generator)


def train(model: nn.Module, x: Tensor, y: Tensor, *, channels_last: bool = False) -> int:
    """Train one client for one epoch; return the steps taken."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    model.train()
    steps = 0
    for chosen in torch.randperm(len(x)).split(BATCH_SIZE):
        batch = x[chosen]
        if channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(batch), y[chosen]).backward()
        optimizer.step()
        steps += 1
    return steps


def round(model: nn.Module, x: Tensor, y: Tensor, *, channels_last: bool = False) -> int:
    """Play one FedAvg round; return the steps taken."""
    total, steps = None, 0
    for part_x, part_y in zip(x.chunk(NUM_CLIENTS), y.chunk(NUM_CLIENTS), strict=True):
        local = copy.deepcopy(model)
        if channels_last:
            local = local.to(memory_format=torch.channels_last)
        steps += train(local, part_x, part_y, channels_last=channels_last)
        state = [v for v in local.state_dict().values() if v.is_floating_point()]
        total = state if total is None else [a + b for a, b in zip(total, state, strict=True)]
    for value, summed in zip(
        (v for v in model.state_dict().values() if v.is_floating_point()), total or [], strict=True
    ):
        value.copy_(summed / NUM_CLIENTS)
    return steps


def main() -> None:
    """Print steps per second of the median round."""
    from fpcli.models.build import build

    torch.set_num_threads(1)
    name, repeats = sys.argv[1], int(sys.argv[2])
    model = build(name, SHAPES[name][0], Classify(10), seed=0)
    x, y = images(name)
    round(model, x, y)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        rates.append(round(model, x, y) / (time.perf_counter() - started))
    print(sorted(rates)[len(rates) // 2])


if __name__ == "__main__":
    main()
