"""What an unlearning will do, as far as it is known before clients are asked: who holds what, how
many channels can go, and which shares of them may be tried."""

from __future__ import annotations

from typing import Any

import torch

from fpcli.data.datasets import Dataset
from fpcli.data.withhold import withhold
from fpcli.errors import DataError, RecipeError
from fpcli.methods.unlearn import Options, mark_alive
from fpcli.scores.tfidf import choose_forgotten, list_convolutions
from fpcli.settings.recipes import Recipe
from fpcli.train.client_data import choose_server_samples, share_out
from fpcli.unlearn.original import Original, set_ratio

STEP = 0.05
"""Shares that are tried are multiples of this; the smallest is what the paper's code often uses."""


def count_held_samples(recipe: Recipe, dataset: Dataset) -> list[tuple[int, int]]:
    """Return per client how many samples it has of withheld classes, and of the others.

    Args:
        recipe: its ``task.withhold`` names the classes.

    Raises:
        RecipeError: a class does not exist, or no class would be left.
        DataError: no client holds a sample of a class, or of two others.
    """
    parts = share_out(recipe, dataset, choose_server_samples(recipe, dataset))
    kept = withhold(dataset, parts, recipe.task.withhold)
    seen = dataset.train.labels[torch.cat(parts)].unique().tolist()
    for label in recipe.task.withhold:
        if label not in seen:
            raise DataError(
                f"no client holds a sample of class {label}",
                hint=f"there is nothing to forget; the clients hold {', '.join(map(str, seen))}",
                where="--class",
            )
    left = [label for label in seen if label not in recipe.task.withhold]
    if len(left) == 1:
        raise DataError(
            f"only class {left[0]} would be left, which a model cannot tell from any other",
            hint="forget fewer classes, so that two or more stay",
            where="--class",
        )
    return [
        (len(withheld), len(rest)) for withheld, rest in zip(kept.withheld, kept.parts, strict=True)
    ]


def plan_unlearning(source: Original, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return what an unlearning will do, as far as it is known before clients are asked.

    Args:
        recipe: of the unlearning.

    Returns:
        ``classes``; ``clients`` with the samples that each has, ``forgotten`` and ``others``;
        ``layers`` and ``channels`` that are scored; ``pruned``, the channels that go for all
        classes, or with ``ratio: auto`` None, and ``shares`` are those that may be tried;
        ``rounds`` of fine-tuning.

    Raises:
        RecipeError: a class does not exist, none would be left, or so many channels cannot go.
        DataError: no client holds a sample of a class, or of another one.
    """
    samples = count_held_samples(recipe, dataset)
    able = sum(others > 0 for _, others in samples)
    if able < recipe.min_clients:
        raise DataError(
            f"{able} clients have samples of other classes, and a round needs {recipe.min_clients}",
            hint=f"`--set min_clients={able}`",
            where="min_clients",
        )
    trained, is_open = source.trained, recipe.method.options["ratio"] == "auto"
    here = mark_alive(trained.layout, trained.support, list_convolutions(trained.template))
    return {
        "classes": list(recipe.task.withhold),
        "clients": [
            {"client": client, "forgotten": num_withheld, "others": rest}
            for client, (num_withheld, rest) in enumerate(samples)
        ],
        "layers": len(here),
        "channels": sum(int(bits.sum()) for bits in here.values()),
        "pruned": None if is_open else count_leaving(source, recipe),
        "shares": list_shares(source, recipe) if is_open else None,
        "rounds": recipe.rounds,
    }


def count_leaving(source: Original, recipe: Recipe) -> int:
    """Return how many channels an unlearning prunes for all classes together, which does not depend
    on their scores.

    Raises:
        RecipeError: so many cannot go.
    """
    trained, options = source.trained, Options(**recipe.method.options)
    here = mark_alive(trained.layout, trained.support, list_convolutions(trained.template))
    left = {layer: bits.clone() for layer, bits in here.items()}
    for _ in recipe.task.withhold:
        going = choose_forgotten(
            {layer: bits.double() for layer, bits in left.items()},
            left,
            ratio=float(options.ratio),
            scope=options.scope,
            min_keep=options.min_keep,
            nni_skip=options.nni_skip,
        )
        for layer, channels in going.items():
            left[layer][channels] = False
    return sum(int((bits & ~left[layer]).sum()) for layer, bits in here.items())


def list_shares(source: Original, recipe: Recipe) -> list[float]:
    """Return the shares of channels that ``ratio: auto`` may try, ascending: multiples of ``STEP``
    up to ``max_ratio``, and that itself, as far as so many can go; of those that take the same
    channels the smallest, and none that takes no channel.

    Raises:
        RecipeError: no share is left.
    """
    most: float = recipe.method.options["max_ratio"]
    steps = [round(STEP * number, 4) for number in range(1, int(most / STEP + 1e-9) + 1)]
    share_of: dict[int, float] = {0: 0.0}
    for share in sorted({*steps, most}):
        try:
            share_of.setdefault(count_leaving(source, set_ratio(recipe, share)), share)
        except RecipeError:
            break
    if len(share_of) == 1:
        raise RecipeError(
            f"no share of the channels up to {most:g} can be pruned",
            hint="raise `--max-ratio`, lower `--min-keep`, or say how many: `--ratio X`",
            where="method.max_ratio",
        )
    return list(share_of.values())[1:]
