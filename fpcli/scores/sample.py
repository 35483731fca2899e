"""Call a score by name; a sample is what the scores that need more than weights look at."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fpcli import plugins
from fpcli.errors import CodeError, NeedError, RecipeError
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.shrink import shrink
from fpcli.tasks.learning_task import Batch, LearningTask


@dataclass(frozen=True, eq=False)
class Sample:
    """What a score may look at beside the weights.

    Attributes:
        template: any module of the layout's structure; its values do not matter.
        batches: normalised images ``[b, C, H, W]``, or whatever the network takes, and what is to
            be predicted, ``[b]``; at least one batch.
        task: what is learned from them.
        seed: of scores that draw.
    """

    template: nn.Module
    batches: Sequence[Batch]
    task: LearningTask
    seed: int = 0

    def module(self, values: Tensors) -> nn.Module:
        """Return the network with these dense values, in evaluation mode, all of it trainable."""
        return shrink(self.template, values).eval().requires_grad_()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the task's mean loss of a batch; what it draws, the seed draws."""
        return self.task.repeat_loss(model, batch, self.seed)


def score(
    name: str, layout: Layout, values: Tensors, sample: Sample | None = None
) -> dict[str, Tensor]:
    """Score the channels of all prunable groups by a registered score.

    Args:
        name: of ``SCORES`` or ``module:function``.
        layout: the groups.
        values: dense tensors.
        sample: needed by scores that look at the network or at data.

    Returns:
        Prunable group -> ``[width]``, larger = keep.

    Raises:
        UsageError: there is no such score.
        NeedError: the score needs a sample, and there is none.
        RecipeError: the network is not one that the score can judge.
        CodeError: a score of the user's own returns something else.
    """
    function = plugins.lookup("scores", name)
    if not needs_sample(name):
        return _require_scores(name, layout, function(layout, values))
    if sample is None:
        raise NeedError(
            f"score `{name}` needs the network and validation data",
            hint=f"scores that need only weights: {', '.join(_of_weights())}",
            where=name,
        )
    return _require_scores(name, layout, function(layout, values, sample))


def _require_scores(name: str, layout: Layout, scores: object) -> dict[str, Tensor]:
    if not plugins.is_code(name):
        assert isinstance(scores, Mapping)
        return dict(scores)
    problem = f"returned {type(scores).__name__}"
    if isinstance(scores, Mapping):
        wrong = [
            group
            for group, members in layout.prunable.items()
            if getattr(scores.get(group), "shape", None) != (members.width,)
        ]
        if not wrong:
            return dict(scores)
        problem = f"returned none, or another number of values, for `{wrong[0]}`"
    raise CodeError(
        f"score `{name}` {problem}",
        hint="return prunable group -> tensor `[width]`, larger = keep, as `scores.magnitude.l1`",
        where=name,
    )


def score_of_weights(name: str, layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score channels where only weights are known, as on a server; else as :func:`score`.

    Raises:
        UsageError: there is no such score.
        RecipeError: the score needs more than weights.
    """
    if needs_sample(name):
        raise RecipeError(
            f"score `{name}` needs the network and data, which a server has not",
            hint=f"choose one of {', '.join(_of_weights())}",
            where="method.score",
        )
    return score(name, layout, values)


def needs_sample(name: str) -> bool:
    """Tell whether a score looks at the network or at data.

    >>> needs_sample("l1"), needs_sample("taylor")
    (False, True)
    """
    return len(inspect.signature(plugins.lookup("scores", name)).parameters) > 2


def _of_weights() -> list[str]:
    return [name for name in plugins.list_names("scores") if not needs_sample(name)]
