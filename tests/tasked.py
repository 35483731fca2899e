"""Small data sets and networks of every task; a network is ``tasked:NAME`` in worker processes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from fpcli.data.datasets import Dataset, Split, load_dataset
from fpcli.engine.central import train_centrally
from fpcli.engine.trained import Inputs, Trained
from fpcli.models.build import build
from fpcli.settings.learning import FitConfig
from fpcli.structure.support import Support
from fpcli.structure.trace import trace_around
from fpcli.tasks.rank import Rank
from fpcli.tasks.regress import Regress

ITEMS, LENGTH = 12, 5


@cache
def ink() -> Dataset:
    """Return the digits, of which the sum of the left half's values, of 0 to 16, is to be told."""
    digits = load_dataset("digits", None, seed=0)
    splits = {
        name: Split(split.images, split.images[..., :4].sum((1, 2, 3)).float())
        for name, split in (
            ("train", digits.train), ("validation", digits.validation), ("test", digits.test),
        )
    }  # fmt: skip
    labels = splits["train"].labels
    task = Regress(mean=float(labels.mean()), std=float(labels.std(correction=0)))
    return replace(digits, name="ink", task=task, class_names=(), **splits)


@cache
def steps() -> Dataset:
    """Return sequences of items, each of which the next one follows, and 1 the last."""
    starts = torch.arange(240) % ITEMS
    images = (starts[:, None] + torch.arange(LENGTH)) % ITEMS + 1
    splits = [Split(part, part[:, -1] % ITEMS) for part in images.split([168, 36, 36])]
    return Dataset("steps", *splits, Rank(ITEMS), 1.0, (), (), ())


class Next(nn.Module):
    """Scores every item from a sequence's last two."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_items + 1, 8)
        self.hidden, self.out = nn.Linear(16, 10), nn.Linear(10, num_items)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.embed(x[:, -2:]).flatten(1))))


def following(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return the network for sequences."""
    return Next(num_outputs)


@cache
def learned(kind: str) -> tuple[Trained, Dataset]:
    """Return a network that has learned a little of ``ink`` or ``steps``, and the data."""
    dataset, name = (ink(), "nets:tiny") if kind == "regress" else (steps(), "tasked:following")
    model = build(name, dataset.input_shape, dataset.task, seed=0, allow_code=True)
    for _ in train_centrally(model, dataset, FitConfig(epochs=12, batch_size=32, lr=0.05), seed=0):
        pass
    layout = trace_around(model, dataset.task.make_example(dataset.input_shape))
    values = {key: model.state_dict()[key].detach().clone() for key in layout.tensors}
    shape, inputs = dataset.input_shape, Inputs.of(dataset)
    trained = Trained(
        name, model.eval(), layout, Support(), values, shape, dataset.task, inputs=inputs
    )
    return trained, dataset
