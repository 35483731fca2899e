"""A task: what a batch's loss is, and how a model is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Lt
from pydantic import ConfigDict
from torch import Tensor, nn

from fpcli.settings.metrics import Metric, find_metric

Batch = tuple[Tensor, Tensor]
"""Samples as a network takes them, ``[b, ...]``, and what is to be predicted, ``[b, ...]``."""


@dataclass(frozen=True)
class Score:
    """How well a model predicts.

    Attributes:
        loss: mean over the samples.
        metrics: name -> value; see ``settings.metrics``.
    """

    loss: float
    metrics: Mapping[str, float]
    num_examples: int

    def to_event(self) -> dict[str, float]:
        """Return it as one flat object of the event stream, metrics by their names."""
        return {**self.metrics, "loss": self.loss, "num_examples": self.num_examples}


@dataclass(frozen=True)
class LearningTask(ABC):
    """What is learned from a data set.

    Attributes:
        kind: its name in recipes.
        primary_name: the metric that chooses the best round.
        answers: what a network chooses from, in the plural, or "" where it chooses nothing.
        num_outputs: width of a network's output.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str]
    primary_name: ClassVar[str]
    answers: ClassVar[str] = ""
    num_outputs: Annotated[int, Ge(1), Lt(2**20)]

    @property
    def primary(self) -> Metric:
        """The metric that chooses the best round, where it is judged on validation data."""
        return find_metric(self.primary_name)

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics of a score, the primary one first."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of one batch, a scalar with a gradient."""

    def repeat_loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Return the loss of one batch, the same in every call: what it draws is from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.loss(model, batch)

    @abstractmethod
    def judge_each(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the primary metric and the loss of single samples, whose means are those that
        `score` tells: float64 ``[b]`` each.

        Args:
            outputs: of a network, ``[b, num_outputs]``.
            targets: as a batch has them.
        """

    @abstractmethod
    def score(
        self, model: nn.Module, batches: Iterable[Batch], own_classes: Tensor | None = None
    ) -> Score:
        """Judge a model, put in evaluation mode, on all batches together; nothing is random.

        Args:
            own_classes: of a client, bool ``[classes]``, where classes are learned: its metrics by
                the outputs of these alone come beside the others, as ``local_...``.
        """

    def make_example(self, input_shape: tuple[int, ...], batch: int = 1) -> Tensor:
        """Return samples that a network must be able to take: zeros, ``[batch, *input_shape]``."""
        return torch.zeros(batch, *input_shape)

    def draw_inputs(self, input_shape: tuple[int, ...], batch: int, rng: torch.Generator) -> Tensor:
        """Return random samples of a kind that a network is made for: of the standard normal
        distribution, ``[batch, *input_shape]``."""
        return torch.randn(batch, *input_shape, generator=rng)

    def restore(self, outputs: Tensor) -> Tensor:
        """Return outputs of a network, ``[b, num_outputs]``, in units that users know; these are
        its own but where a number is predicted."""
        return outputs

    def standardise(self, restored: Tensor) -> Tensor:
        """Return the outputs that `restore` was given, but for rounding."""
        return restored

    def make_targets(self, batch: int) -> Tensor:
        """Return something to predict for each of some samples: every output in turn, ``[batch]``.

        For what must train but need not learn, such as a step that is timed.
        """
        return torch.arange(batch) % self.num_outputs

    def describe(self) -> str:
        """Return what a network is for, in a few words of an error: `10 classes`."""
        return f"{self.num_outputs} outputs"

    def to_json(self) -> dict[str, Any]:
        """Return the task as plain data, which `read_task` understands."""
        return {"kind": self.kind, **vars(self)}
