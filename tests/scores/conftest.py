"""Networks and samples small enough to score by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

Scored = tuple[Layout, dict[str, Tensor], Sample]


@pytest.fixture
def task() -> Callable[..., Scored]:
    """Return what a score takes: layout, values and sample of a network and one batch."""

    def build(model: nn.Module, *xs: Tensor, labels: list[int] | None = None) -> Scored:
        layout = trace(model.float(), xs[0][:1].float())
        values = {name: model.state_dict()[name].detach().clone() for name in layout.tensors}
        ys = [torch.tensor(labels or [0] * len(x)) for x in xs]
        return layout, values, Sample(model, list(zip(xs, ys, strict=True)), Classify(2))

    return build
