"""Kinds: the recipe for pruning one trained model, and the name for a recipe of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from fpcli.engine.central import FitConfig
from fpcli.recipe.schema import FORMAT, FitRecipe, FitTask, MethodChoice, Recipe


@dataclass(frozen=True)
class PrunerChoice(MethodChoice):
    """The method, and its own options beside its name."""

    name: str = "filters"
    """A method of `fp prune`."""


Share = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class PruneChoice:
    """How much goes, from where, and in how many steps."""

    ratio: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share that goes of every group's channels (or as the method says)."""
    params: Share | None = None
    """Share of the parameters that stays, in place of a ratio."""
    macs: Share | None = None
    """Share of the multiply-adds that stays, in place of a ratio."""
    bytes: Share | None = None
    """Share of the bytes that stays, in place of a ratio."""
    rates: tuple[str, ...] = ()
    """Ratios of single places, as `PLACE=RATIO`: `conv1=0.5`, `2-19=0.6` (layers by number),
    `stage1=0.3`, `*.conv1=0.2`. A later one wins."""
    rates_file: str = ""
    """Result of `fp sensitivity` that the ratios are read from."""
    max_drop: Annotated[float, Ge(0)] = 1.0
    """Points of accuracy that a group may lose by that file."""
    ignore: tuple[str, ...] = ()
    """Places that nothing is removed from."""
    steps: Annotated[int, Ge(1)] = 1
    """Number of equal portions, with retraining behind each."""
    round_to: Annotated[int, Ge(1)] = 1
    """Kept channels are a multiple of this where a group is wide enough."""


@dataclass(frozen=True)
class RetrainConfig(FitConfig):
    """How the model is trained after each step."""

    epochs: Annotated[int, Ge(0)] = 0
    """Passes over the training data after each step."""
    lr: Annotated[float, Ge(0)] = 0.0
    """Learning rate of SGD; 0 means a tenth of the rate that the model was trained with."""
    schedule: Literal["cosine", "constant", "steps"] = "constant"
    """How the learning rate falls: as half a cosine to 0, not at all, or at `drop_at`."""


@dataclass(frozen=True)
class PruneRecipe:
    """One pruning of one trained model, completely but for its weights."""

    recipe: Annotated[int, Ge(1)] = FORMAT
    """Format number of the recipe."""
    task: FitTask = field(default_factory=FitTask)
    """The model, and the data that it is for."""
    method: PrunerChoice = field(default_factory=PrunerChoice)
    """How what goes is chosen."""
    prune: PruneChoice = field(default_factory=PruneChoice)
    """How much goes."""
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    """Training after each step."""
    device: str = "cpu"
    """Torch device to compute on, such as `cpu` or `cuda`."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads of one operation; 0 means as many as there are cores. Other numbers, other bits."""
    seed: Annotated[int, Ge(0)] = 0
    """Where every random stream starts from."""


AnyRecipe = Recipe | FitRecipe | PruneRecipe

KINDS: Mapping[str, type[AnyRecipe]] = {"train": Recipe, "fit": FitRecipe, "prune": PruneRecipe}
"""Command -> its kind of recipe."""
