"""Relearning: how many steps of training bring the forgotten classes back?

Training samples, 100 of the forgotten classes and 300 of the others, are learned by SGD in batches
of 8 + 24, drawn alike for every model. Normalisation and dropout stay in evaluation mode, so that
steps change weights only. After every step 100 test samples of each kind tell whether the classes
are back: accuracy on theirs has reached 80 % of the original model's, and no more than 10 % of the
others are taken for them. Without the second condition, or with as many forgotten samples as
others in a batch, a model would soon be done by calling everything forgotten.

``steps`` counts from the model as it is. ``fresh_head_steps`` counts from its features under a new
classifier, which tells what the features know apart from how hard the classifier was pushed away.
A figure is None where 60 steps were not enough; gaps then count it as 60.

Source: the audit is common; sizes, conditions and rates are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.audit.stage import Audit, AuditData, AuditStage, Figures
from fpcli.rng import stream
from fpcli.tasks.classify import judge_top1

SHARE, MOST_FALSE, MOST_STEPS = 0.8, 0.1, 60
_NUM_LEARNED, _BATCH, _NUM_JUDGED = (100, 300), (8, 24), 100
_LR, _MOMENTUM = 0.01, 0.9


def relearn(
    model: nn.Module,
    draw: Callable[[], tuple[Tensor, Tensor]],
    is_back: Callable[[nn.Module], bool],
) -> int | None:
    """Train a model in place until something is back, and return the steps that it took, or None.

    Args:
        model: stays in evaluation mode.
        draw: gives the next batch, samples and labels.
        is_back: judges the model, before the first step and after each.
    """
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=_MOMENTUM)
    for step in range(MOST_STEPS + 1):
        if is_back(model):
            return step
        x, y = draw()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return None


def renew_classifier(stage: AuditStage, seed: int) -> nn.Module:
    """Return a copy of a stage's model whose classifier is drawn anew, as torch draws it."""
    made = AuditStage(copy.deepcopy(stage.model), stage.classifier, {})
    generator = stream(seed, "audit/relearn/head")
    weight = made.head.get_parameter("weight")
    bound = weight[0].numel() ** -0.5
    with torch.no_grad():
        for tensor in made.head.parameters():
            drawn = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
            tensor.copy_(drawn)
    return made.model


class _Task:
    """The samples of relearning on one device; every model gets the same batches."""

    def __init__(self, data: AuditData, seed: int, device: torch.device) -> None:
        def part(name: str, count: int) -> tuple[Tensor, Tensor]:
            split = getattr(data, name)
            x = data.normalise(split.images[:count].to(device))
            return x, split.labels[:count].to(device)

        self.seed = seed
        self.learned = [
            part(name, count)
            for name, count in zip(("forget_train", "retain_train"), _NUM_LEARNED, strict=True)
        ]
        self.forgotten = part("forget_test", _NUM_JUDGED)
        self.others = part("retain_test", _NUM_JUDGED)
        self.classes = torch.tensor(data.classes, device=device)

    def draws(self) -> Callable[[], tuple[Tensor, Tensor]]:
        generator = stream(self.seed, "audit/relearn/batches")

        def draw() -> tuple[Tensor, Tensor]:
            pairs = []
            for (x, y), count in zip(self.learned, _BATCH, strict=True):
                chosen = torch.randint(len(y), (count,), generator=generator).to(y.device)
                pairs.append((x[chosen], y[chosen]))
            return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])

        return draw

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        x, y = self.forgotten
        return float(judge_top1(model.eval()(x), y).double().mean())

    @torch.no_grad()
    def false_share(self, model: nn.Module) -> float:
        called = model(self.others[0]).argmax(1)
        return float(torch.isin(called, self.classes).double().mean())


def _measure(stages: Mapping[str, AuditStage], data: AuditData, seed: int) -> dict[str, Figures]:
    device = next(stages["original"].model.parameters()).device
    task = _Task(data, seed, device)
    wanted = SHARE * task.accuracy(stages["original"].model)

    def is_back(model: nn.Module) -> bool:
        return task.accuracy(model) >= wanted and task.false_share(model) <= MOST_FALSE

    def steps(model: nn.Module) -> int | None:
        return relearn(model.to(device), task.draws(), is_back)

    return {
        name: {
            "steps": steps(copy.deepcopy(stage.model)),
            "fresh_head_steps": steps(renew_classifier(stage, seed)),
        }
        for name, stage in stages.items()
    }


RELEARN = Audit(
    measure=_measure,
    parts=(),
    shown={"steps": "steps", "fresh_head_steps": "steps, new classifier"},
    decisive=("steps",),
    margin=3,
    is_share=False,
    ceiling=MOST_STEPS,
)
"""Figures: see the head of this file."""
