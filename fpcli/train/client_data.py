"""The data that a recipe names, and who has which samples of it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.partition import partition
from fpcli.data.set_aside import set_aside
from fpcli.settings.recipes import AnyRecipe, Recipe


def load_data(recipe: AnyRecipe) -> Dataset:
    """Return the data that a recipe names.

    Raises:
        FpError: it is missing, corrupt or unsuitable.
    """
    task = recipe.task
    return load_dataset(
        task.data,
        Path(task.data_dir) if task.data_dir else None,
        validation_fraction=task.validation_fraction,
        normalise=task.normalise,
        seed=recipe.seed,
        allow_code=True,
    )


def choose_server_samples(recipe: Recipe, dataset: Dataset) -> Tensor:
    """Return the training samples that the server has: sorted indices into ``dataset.train``.

    Raises:
        DataError: so many would leave clients without some class.
    """
    task, labels = recipe.task, dataset.train.labels
    return set_aside(labels, share=task.server_share, number=task.server_samples, seed=recipe.seed)


def share_out(recipe: Recipe, dataset: Dataset, reserved: Tensor) -> tuple[Tensor, ...]:
    """Return the training samples of each client: sorted indices into ``dataset.train``.

    Args:
        reserved: those that the server has, as `choose_server_samples` tells.

    Raises:
        DataError: the data cannot be split as the recipe asks.
    """
    return partition(
        dataset.train.labels,
        recipe.task.clients,
        recipe.task.partition,
        owners=dataset.train.owners,
        data=recipe.task.data,
        reserved=reserved,
        seed=recipe.seed,
    )


def choose_personal_tests(dataset: Dataset, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return for each client the indices of the test samples of its training classes."""
    labels = dataset.test.labels
    return tuple(dataset.classes_of(part)[labels].nonzero().flatten() for part in parts)
