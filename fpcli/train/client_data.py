"""The data that a recipe names, and who has which samples of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.partition import partition
from fpcli.data.set_aside import set_aside
from fpcli.errors import RecipeError
from fpcli.settings.recipes import AnyRecipe, Recipe
from fpcli.tasks.regress import Regress


def load_data(recipe: AnyRecipe) -> Dataset:
    """Return the data that a recipe names.

    Raises:
        FpError: it is missing, corrupt or unsuitable.
    """
    task = recipe.task
    dataset = load_dataset(
        task.data,
        Path(task.data_dir) if task.data_dir else None,
        kind=task.kind,
        sampled_negatives=task.sampled_negatives,
        validation_fraction=task.validation_fraction,
        normalise=task.normalise,
        seed=recipe.seed,
        allow_code=True,
    )
    if task.loss == "auto":
        return dataset
    if not isinstance(dataset.task, Regress):
        raise RecipeError(
            f"`task.loss` is `{task.loss}`, and data `{task.data}` has {dataset.task.describe()}",
            hint="leave it out: it is for data whose task is `regress`",
            where="task.loss",
        )
    return replace(dataset, task=replace(dataset.task, loss_name=task.loss))


def choose_server_samples(recipe: Recipe, dataset: Dataset) -> Tensor:
    """Return the training samples that the server has: sorted indices into ``dataset.train``.

    Raises:
        DataError: so many would leave clients without some class.
    """
    task = recipe.task
    return set_aside(
        dataset.train.labels,
        share=task.server_share,
        number=task.server_samples,
        kind=dataset.task.kind,
        seed=recipe.seed,
    )


def share_out(recipe: Recipe, dataset: Dataset, reserved: Tensor) -> tuple[Tensor, ...]:
    """Return the training samples of each client: sorted indices into ``dataset.train``.

    Args:
        reserved: those that the server has, as `choose_server_samples` tells.

    Raises:
        DataError, RecipeError: the data cannot be split as the recipe asks.
    """
    return partition(
        dataset.train.labels,
        recipe.task.clients,
        recipe.task.partition,
        owners=dataset.train.owners,
        data=recipe.task.data,
        reserved=reserved,
        kind=dataset.task.kind,
        seed=recipe.seed,
    )


def find_test_key(dataset: Dataset) -> str:
    """Return what says which test samples are a client's own: `classes`, `owners` or `nothing`."""
    if dataset.task.kind == "classify":
        return "classes"
    have_owners = dataset.train.owners is not None and dataset.test.owners is not None
    return "owners" if have_owners else "nothing"


def choose_personal_tests(dataset: Dataset, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return for each client the indices of the test samples of its training classes; where none
    are learned, of its training samples' owners, or else all."""
    train, test = dataset.train, dataset.test
    if find_test_key(dataset) == "classes":
        return tuple(dataset.classes_of(part)[test.labels].nonzero().flatten() for part in parts)
    if train.owners is None or test.owners is None:
        return (torch.arange(len(test)),) * len(parts)
    own = (torch.isin(test.owners, train.owners[part]) for part in parts)
    return tuple(is_own.nonzero().flatten() for is_own in own)
