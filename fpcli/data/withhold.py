"""Withhold classes: nobody trains on their samples, and they do not count as held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fpcli.data.datasets import Dataset
from fpcli.data.set_aside import NO_SAMPLES
from fpcli.data.split import Split
from fpcli.errors import DataError, RecipeError


@dataclass(frozen=True, eq=False)
class Kept:
    """Data without some classes.

    Attributes:
        dataset: its validation and test data are without them; its training data is whole, since
            parts are indices into it.
        parts: training samples of each client, without them; empty for a client that has no other.
        withheld: samples of them that each client has; no parts where nothing is withheld.
        test: test samples of them, or None where nothing is withheld.
        server: training samples of the server, without them.
    """

    dataset: Dataset
    parts: tuple[Tensor, ...]
    withheld: tuple[Tensor, ...] = ()
    test: Split | None = None
    server: Tensor = NO_SAMPLES


def withhold(
    dataset: Dataset,
    parts: tuple[Tensor, ...],
    classes: Sequence[int],
    server: Tensor = NO_SAMPLES,
) -> Kept:
    """Take the samples of some classes out of a task.

    Args:
        parts: int64 indices into ``dataset.train``, one tensor per client.
        classes: labels; none leaves everything as it is.
        server: indices of the samples that the server has.

    Raises:
        RecipeError: there are no classes, one does not exist, or none would be left.
        DataError: no client has a sample of another class.
    """
    if not classes:
        return Kept(dataset, parts, server=server)
    if dataset.task.kind != "classify":
        raise RecipeError(
            f"no class can be withheld: data `{dataset.name}` has {dataset.task.describe()}",
            hint="leave it out, or take data with classes (`fp data list`)",
            where="task.withhold",
        )
    wanted = sorted(set(classes))
    if wanted[-1] >= dataset.num_classes:
        raise RecipeError(
            f"class {wanted[-1]} does not exist",
            hint=f"`{dataset.name}` has the classes 0 to {dataset.num_classes - 1}",
            where="task.withhold",
        )
    if len(wanted) == dataset.num_classes:
        raise RecipeError(
            "no class would be left",
            hint=f"`{dataset.name}` has {dataset.num_classes} classes; name fewer",
            where="task.withhold",
        )
    labels = torch.tensor(wanted)
    is_gone = torch.isin(dataset.train.labels, labels)
    kept = replace(
        dataset, validation=_rest(dataset.validation, labels), test=_rest(dataset.test, labels)
    )
    rest = tuple(part[~is_gone[part]] for part in parts)
    if not any(len(part) for part in rest):
        raise DataError(
            f"no client has a sample of another class than {', '.join(map(str, wanted))}",
            hint="withhold fewer classes",
            where="task.withhold",
        )
    test = dataset.test.take(torch.isin(dataset.test.labels, labels).nonzero().flatten())
    withheld = tuple(part[is_gone[part]] for part in parts)
    return Kept(kept, rest, withheld, test, server[~is_gone[server]])


def _rest(split: Split, withheld: Tensor) -> Split:
    return split.take((~torch.isin(split.labels, withheld)).nonzero().flatten())
