"""The models of an unlearning side by side: what each predicts, and what it cost to get there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fpcli import plugins
from fpcli.audit.stage import AuditData
from fpcli.data.batches import evaluation_batches
from fpcli.data.split import Split
from fpcli.data.withhold import withhold
from fpcli.engine.placement import move_to
from fpcli.errors import ResumeError
from fpcli.recipe.load import digest_recipe
from fpcli.report.runs import read_run
from fpcli.settings.recipes import Recipe
from fpcli.store.checkpoint import load_newest
from fpcli.store.model_folder import read_trained
from fpcli.store.run_folder import RunFolder
from fpcli.tasks.classify import Classify
from fpcli.train.client_data import choose_server_samples, load_data, share_out

LOGIT_DROPPED = "logit_dropped"


@dataclass(frozen=True)
class Spending:
    """What was spent, bytes in both directions; ``seconds`` are simulated, ``real_s`` measured."""

    rounds: int
    bytes: int
    seconds: float
    real_s: float


@dataclass(frozen=True)
class ComparedModel:
    """One model; what it cost is None for the original, which was there before.

    Attributes:
        forget_accuracy, retain_accuracy: shares of the test samples of the forgotten and of all
            other classes that are predicted right.
        forget_train_accuracy, retain_train_accuracy: of the clients' training samples.
    """

    stage: str
    forget_accuracy: float
    retain_accuracy: float
    forget_train_accuracy: float
    retain_train_accuracy: float
    rounds: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    real_s: float | None = None


def divide_samples(recipe: Recipe) -> AuditData:
    """Return the samples that a recipe withholds, and the others.

    Raises:
        DataError: the data is missing or damaged.
        RecipeError: a class does not exist.
    """
    dataset = load_data(recipe)
    reserved = choose_server_samples(recipe, dataset)
    kept = withhold(dataset, share_out(recipe, dataset, reserved), recipe.task.withhold)
    assert kept.test is not None
    return AuditData(
        normalise=dataset.normalise,
        forget_train=dataset.train.take(torch.cat(kept.withheld)),
        forget_test=kept.test,
        retain_train=dataset.train.take(torch.cat(kept.parts)),
        retain_test=kept.dataset.test,
        classes=tuple(recipe.task.withhold),
        num_classes=dataset.num_classes,
    )


class Costs:
    """What a run had cost after each of its rounds.

    Args:
        folder: of a run with at least one round.
        recipe: of the run.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        run = read_run(folder)
        first = run.rounds[0]
        self.begun = Spending(
            0,
            _both(first) - first["down_bytes"] - first["up_bytes"],
            max(0.0, first["clock_s"] - first["round_s"]),
            max(0.0, _total_real_s(folder, recipe) - sum(x["real_s"] for x in run.rounds)),
        )
        self.judged = {
            int(event["round"]): float(event["validation"]["accuracy"]) for event in run.judged
        }
        self._after = {
            int(event["round"]): Spending(
                int(event["round"]),
                _both(event),
                event["clock_s"],
                self.begun.real_s + run.real_s[event["round"]],
            )
            for event in run.rounds
        }

    @property
    def whole(self) -> Spending:
        """What the run cost."""
        return self._after[max(self._after)]

    def until(self, accuracy: float) -> Spending | None:
        """Return what it cost to reach a validation accuracy for the first time, if it did."""
        rounds = [number for number, reached in self.judged.items() if reached >= accuracy]
        return self._after[min(rounds)] if rounds else None


def _both(event: Mapping[str, Any]) -> int:
    return int(event["total_down_bytes"] + event["total_up_bytes"])


def _total_real_s(folder: Path, recipe: Recipe) -> float:
    """Return the measured seconds of a run, its questions before round 1 included; 0 where no
    checkpoint tells them."""
    state_type = plugins.lookup("methods", recipe.method.name).State
    try:
        _, extra, _ = load_newest(folder, method_state=state_type, digest=digest_recipe(recipe))
    except ResumeError:
        return 0.0
    return float(extra["totals"]["real_s"])


def measure_speedup(
    unlearned: Costs, retrained: Costs, searched: Spending | None = None
) -> dict[str, dict[str, Any]]:
    """Compare what unlearning and retraining cost to be equally good on the other classes.

    There are two goals, both validation accuracies on samples of the other classes after the last
    evaluated round, so that the test data chooses no round: that of the ``retrained`` model, and
    that of the ``finetuned`` one. What either way costs is counted to its own first evaluated round
    that reaches the goal; finding a share of channels, scoring and pruning are part of unlearning.
    The speed-up is the cost of retraining divided by that of unlearning.

    Args:
        searched: what was spent on shares of channels that did not become the run.

    Returns:
        For each goal ``validation_accuracy`` (the goal); ``unlearned`` and ``retrained``, each
        rounds, bytes, seconds (simulated) and real_s, or None where it is not reached; and
        ``ratio`` with the same four, None where one is not reached.
    """
    goals = {"retrained": retrained, "finetuned": unlearned}
    return {
        name: _to(way.judged[max(way.judged)], unlearned, retrained, searched)
        for name, way in goals.items()
    }


def _to(
    goal: float, unlearned: Costs, retrained: Costs, searched: Spending | None
) -> dict[str, Any]:
    ours, theirs = (
        cost and asdict(cost) for cost in (unlearned.until(goal), retrained.until(goal))
    )
    if ours and searched:
        ours = {key: value + getattr(searched, key) for key, value in ours.items()}
    ratio = None
    if ours and theirs:
        ratio = {key: theirs[key] / ours[key] if ours[key] else None for key in ours}
    return {"validation_accuracy": goal, "unlearned": ours, "retrained": theirs, "ratio": ratio}


def find_folders(folder: RunFolder, recipe: Recipe, other: Path | None) -> dict[str, Path]:
    """Return stage -> where its model lies, in the order of a report.

    Args:
        folder: of a finished unlearning.
        recipe: its own.
        other: run of the retraining, or None for the one inside the folder, if it is finished.
    """
    places = {
        "original": Path(recipe.task.start),
        "pruned": folder.path / "pruned",
        "finetuned": folder.path,
        "finetune_only": folder.path / "finetune-only",
    }
    inside = RunFolder(folder.path / "retrained")
    retrained = other or (inside.path if inside.is_whole else None)
    return places | ({"retrained": retrained} if retrained else {})


def read_models(places: Mapping[str, Path], recipe: Recipe) -> dict[str, nn.Module]:
    """Return stage -> its network in evaluation mode, on the recipe's device.

    Args:
        places: see `find_folders`.

    Raises:
        FpError: a model is missing or damaged.
    """
    name, choice = recipe.task.model, recipe.executor
    return {
        stage: move_to(read_trained(path, code=name).module(), choice.device, choice.channels_last)
        for stage, path in places.items()
    }


class WithoutLogits(nn.Module):
    """A network that never predicts some classes; nothing in it has been forgotten."""

    def __init__(self, model: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.classes = tuple(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[n, classes]``, minus infinity for what is never predicted."""
        logits: Tensor = self.model(x)
        forgotten = torch.tensor(self.classes, device=logits.device)
        return logits.index_fill(1, forgotten, -torch.inf)


def judge_stages(
    models: Mapping[str, nn.Module],
    data: AuditData,
    costs: Mapping[str, Spending],
    *,
    channels_last: bool = True,
) -> list[ComparedModel]:
    """Judge the model of every stage on the forgotten and on the other classes.

    Args:
        costs: of the stages that cost something.
    """

    def accuracy(model: nn.Module, split: Split) -> float:
        device = next(model.parameters()).device
        batches = evaluation_batches(
            split, data.normalise, device=device, channels_last=channels_last
        )
        return Classify(data.num_classes).score(model, batches).metrics["accuracy"]

    return [
        ComparedModel(
            stage,
            accuracy(model, data.forget_test),
            accuracy(model, data.retain_test),
            accuracy(model, data.forget_train),
            accuracy(model, data.retain_train),
            **(asdict(costs[stage]) if stage in costs else {}),
        )
        for stage, model in models.items()
    ]
