"""Which layers of a run skip masked weights: measured once, kept in the run's folder.

A later round or a resumed run must not measure again: another answer would be other bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError
from torch import nn

from fpcli.engine.placement import move_to
from fpcli.engine.process import num_cores, using_threads
from fpcli.errors import RecipeError, ResumeError
from fpcli.files import write_atomic
from fpcli.structure.choice import (
    Limits,
    Timer,
    draw_example,
    find_limits,
    in_earnest,
    list_sparse_layers,
)
from fpcli.structure.shrink import shrink
from fpcli.train.setup import Setup

KERNELS_FILE = "kernels.json"
_EVALUATION_BATCH = 512
_STORED = TypeAdapter(dict[str, dict[str, Annotated[float, Ge(0), Le(1)]]])


def add_kernels(
    setup: Setup,
    folder: Path,
    tell: Callable[[str], None],
    *,
    timer: Timer = in_earnest,
) -> Setup:
    """Return a setup whose processes know what `executor.sparse` makes of each layer.

    Args:
        folder: of the run; ``kernels.json`` is written there, or read where it exists.
        tell: takes one line about what was found.

    Raises:
        RecipeError: clients compute on another device than the CPU.
        ResumeError: the file is damaged.
        NeedError: it cannot be written.
    """
    choice = setup.recipe.executor
    if choice.sparse == "off":
        return setup
    if choice.device != "cpu":
        raise RecipeError(
            f"`executor.sparse` is `{choice.sparse}`, but the device is `{choice.device}`",
            hint="sparse kernels exist for the CPU only: leave it off",
            where="executor.sparse",
        )
    if choice.sparse == "always":
        return _with(setup, _always(setup))
    path = folder / KERNELS_FILE
    if path.exists():
        return _with(setup, _read(path))
    limits = _measure(setup, timer)
    write_atomic(path, json.dumps(asdict(limits), indent=1) + "\n")
    tell(_words(limits))
    return _with(setup, limits)


def _with(setup: Setup, limits: Limits) -> Setup:
    return replace(
        setup, fed=replace(setup.fed, sparse=limits), site=replace(setup.site, sparse=limits)
    )


def _model(setup: Setup) -> nn.Module:
    values = {name: value.clone() for name, value in setup.values.items()}
    return move_to(shrink(setup.fed.template, values), "cpu", setup.fed.is_channels_last)


def _example(setup: Setup, batch_size: int) -> torch.Tensor:
    fed, task = setup.fed, setup.fed.dataset.task
    return draw_example(
        fed.dataset.input_shape,
        batch_size,
        channels_last=fed.is_channels_last,
        num_ids=task.num_outputs if task.kind == "rank" else 0,
    )


def _always(setup: Setup) -> Limits:
    everything = dict.fromkeys(list_sparse_layers(_model(setup), _example(setup, 1)), 1.0)
    return Limits(everything, everything)


def _measure(setup: Setup, timer: Timer) -> Limits:
    """Measure as the run computes: training on one thread, evaluation on all cores."""
    model = _model(setup)
    train = find_limits(model, _example(setup, setup.fed.local.batch_size), "train", timer=timer)
    with using_threads(num_cores()):
        evaluate = find_limits(model, _example(setup, _EVALUATION_BATCH), "evaluate", timer=timer)
    return Limits(train, evaluate)


def _read(path: Path) -> Limits:
    try:
        stored = _STORED.validate_json(path.read_bytes())
        return Limits(stored["train"], stored["evaluate"])
    except (OSError, ValidationError, KeyError) as error:
        raise ResumeError(
            f"{path} cannot be read: what it said decides the last digits of this run",
            hint="delete it to measure anew; the run then goes on with other last digits",
            where=str(path),
        ) from error


def _words(limits: Limits) -> str:
    parts = []
    for use, by_layer in (("training", limits.train), ("evaluation", limits.evaluate)):
        gains = [f"{n.removesuffix('.weight')} up to {d:.0%}" for n, d in by_layer.items() if d]
        parts.append(f"{use}: {', '.join(gains) or 'no layer'}")
    return f"sparse kernels are faster at these densities, {'; '.join(parts)}"
