"""What an unlearning starts from: a finished run, some of its classes, and the recipes that follow.

Four models are compared with the original. `unlearn` prunes it and trains it on without the
classes; its values before the first round are the pruned model. `finetune-only` is the same without
pruning, for as many rounds. `retrained` is the original's own recipe without the classes, from
fresh weights, for as many rounds as the original had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fpcli import plugins
from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.errors import DataError, LayoutError, RecipeError, UsageError, suggest
from fpcli.recipe.load import digest_recipe
from fpcli.report.runs import read_run
from fpcli.scores.tfidf import list_convolutions
from fpcli.settings.recipes import Recipe
from fpcli.store.model_folder import read_trained
from fpcli.store.run_folder import RunFolder

METHOD = "unlearn"


@dataclass(frozen=True, eq=False)
class Original:
    """A finished run whose model is to forget.

    Attributes:
        rounds: how many it played.
    """

    folder: RunFolder
    recipe: Recipe
    trained: Trained
    rounds: int


def read_original(folder: RunFolder, recipe: Recipe) -> Original:
    """Return a run as the start of an unlearning.

    Args:
        recipe: of the run.

    Raises:
        DataError: the run is unfinished, or its model is gone or damaged.
        RecipeError: its method has no global model, it learned no classes, or it was trained
            without some of them already.
        LayoutError: its network cannot be traced, or has no convolutions.
    """
    if plugins.lookup("methods", recipe.method.name).traits.models == "personal":
        raise RecipeError(
            f"{folder.path}: `{recipe.method.name}` trains a model per client, not a common one",
            hint="only what all clients share can be made to forget; give a run of another method",
            where=str(folder.path),
        )
    if recipe.task.withhold:
        withheld = ", ".join(map(str, recipe.task.withhold))
        raise RecipeError(
            f"{folder.path} was trained without class {withheld} already",
            hint="start from the run before, and name all classes at once: `--class 7,9`",
            where=str(folder.path),
        )
    rounds = count_rounds(folder)
    name = recipe.task.model
    trained = read_trained(folder.path, code=name)
    if trained.task.kind != "classify":
        raise RecipeError(
            f"{folder.path} has no classes that it could forget: its data "
            f"`{recipe.task.data}` has {trained.task.describe()}",
            hint="only classes can be unlearned; give a run on data with classes",
            where=str(folder.path),
        )
    if not list_convolutions(trained.template):
        raise LayoutError(
            f"{folder.path}: `{name}` has no convolution whose channels could be scored",
            hint="unlearning by channels needs a convolutional network",
            where=str(folder.path),
        )
    return Original(folder, recipe, trained, rounds)


def count_rounds(folder: RunFolder) -> int:
    """Return how many rounds a run has played.

    Raises:
        DataError: it is not finished.
    """
    run = read_run(folder.path)
    if problem := run.problem():
        raise DataError(
            f"{folder.path} {problem}",
            hint=f"finish it first with `fp resume {folder.path}`",
            where=str(folder.path),
        )
    return int(run.rounds[-1]["round"])


def find_classes(dataset: Dataset, numbers: Sequence[int], words: Sequence[str]) -> tuple[int, ...]:
    """Return classes by number and by name, in the order in which they are named.

    Raises:
        UsageError: a name is unknown or no class is named.
    """
    names = dataset.class_names
    for word in words:
        if word not in names:
            raise UsageError(
                f"`{dataset.name}` has no class `{word}`",
                hint=suggest(word, names) or f"known: {', '.join(names[:20])}",
                where="--class-name",
            )
    labels = tuple(dict.fromkeys([*numbers, *(names.index(word) for word in words)]))
    if not labels:
        raise UsageError("no class to forget", hint="name one: `--class 7`", where="--class")
    return labels


def check_task(recipe: Recipe, source: Original) -> None:
    """Make sure that an unlearning is about the task of its run.

    Raises:
        UsageError: data, network, clients or seed differ.
    """
    original = source.recipe
    task = replace(
        recipe.task, withhold=(), start=original.task.start, data_dir=original.task.data_dir
    )
    if task != original.task or recipe.seed != original.seed:
        raise UsageError(
            f"task and seed are those of {source.folder.path}",
            hint="`--set` may change method, local, server, fleet, wire, executor and rounds",
            where="--set",
        )


def choose_rounds(source: Original) -> int:
    """Return a fifth of a run's rounds, rounded up: the usual budget of fine-tuning."""
    return math.ceil(source.rounds / 5)


def set_ratio(recipe: Recipe, ratio: float) -> Recipe:
    """Return an unlearning's recipe with one share of channels, in place of the smallest that
    forgets, and with clients that tell by their own samples whether it does."""
    options = {**recipe.method.options, "ratio": ratio, "counts_right": True}
    return replace(recipe, method=replace(recipe.method, options=options))


def skip_pruning(recipe: Recipe, rounds: int) -> Recipe:
    """Return an unlearning's recipe without pruning.

    Args:
        rounds: that the unlearning played, perhaps fewer than its recipe allows.
    """
    options = {**recipe.method.options, "ratio": 0.0, "counts_right": False}
    choice = replace(recipe.method, options=options)
    return replace(recipe, method=choice, rounds=rounds, target={})


def make_retraining(recipe: Recipe, source: Original) -> Recipe:
    """Return the recipe of a run without the classes that another recipe withholds."""
    original = source.recipe
    return replace(
        original,
        task=replace(original.task, withhold=recipe.task.withhold, start=""),
        executor=recipe.executor,
        rounds=source.rounds,
        target={},
    )


def check_retrained(other: RunFolder, retrained_recipe: Recipe, wanted: Recipe) -> None:
    """Make sure that a run is what retraining would give.

    Args:
        retrained_recipe: its recipe.
        wanted: recipe of the retraining.

    Raises:
        DataError: it is unfinished.
        RecipeError: it has other rounds, or its recipe differs.
    """

    def without_order(recipe: Recipe) -> str:
        withheld = tuple(sorted(recipe.task.withhold))
        return digest_recipe(replace(recipe, task=replace(recipe.task, withhold=withheld)))

    rounds = count_rounds(other)
    if without_order(retrained_recipe) != without_order(wanted) or rounds != wanted.rounds:
        classes = ", ".join(map(str, wanted.task.withhold))
        raise RecipeError(
            f"{other.path} is not the run without class {classes}",
            hint="it must have the recipe of the original but for `task.withhold: "
            f"[{classes}]`, and {wanted.rounds} rounds; `--compare-retrain` makes it",
            where="--retrained",
        )
