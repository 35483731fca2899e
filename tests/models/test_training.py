from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from fpcli.data.batches import batches, evaluation_batches
from fpcli.data.datasets import load_dataset
from fpcli.data.partition import partition
from fpcli.models.build import build
from fpcli.rng import stream
from fpcli.settings.tasks import Partition
from fpcli.tasks.classify import Classify


@pytest.mark.slow
def test_digits_are_learned_by_ten_clients_in_thirty_rounds() -> None:
    data = load_dataset("digits", None, seed=0)
    model = build("digits-cnn", data.input_shape, Classify(10), seed=0)
    parts = partition(data.train.labels, 10, Partition(), seed=0)
    for round in range(30):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        total = {name: torch.zeros_like(value) for name, value in start.items()}
        for client, part in enumerate(parts):
            model.load_state_dict(start)
            optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
            generator = stream(0, "order", round, client)
            for images, labels in batches(
                data.train, part, data.normalise, batch_size=32, generator=generator
            ):
                optimiser.zero_grad()
                cross_entropy(model(images), labels).backward()
                optimiser.step()
            for name, value in model.state_dict().items():
                total[name] += value * (len(part) / len(data.train))
        model.load_state_dict(total)
    model.eval()
    with torch.no_grad():
        correct = sum(
            int((model(images).argmax(1) == labels).sum())
            for images, labels in evaluation_batches(data.test, data.normalise)
        )
    assert correct / len(data.test) > 0.95
