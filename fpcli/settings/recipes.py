"""The recipes: all sections of one command together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from fpcli.plugins import is_code
from fpcli.settings.flags import AMOUNT, FLEET, RUN, TASK, TRAINING, Flag
from fpcli.settings.hardware import ExecutorChoice, FleetChoice, WireChoice
from fpcli.settings.learning import (
    FitConfig,
    LocalConfig,
    MethodChoice,
    PruneChoice,
    PrunerChoice,
    RetrainConfig,
    ServerConfig,
)
from fpcli.settings.tasks import DATA_DIR, NORMALISE, FitTask, StartTask, TrainTask

RECIPE_FORMAT = 1
"""The newest recipe format that this version reads."""

_SEED = Flag("--seed N", "Seed of the run: where every random stream starts from", TRAINING)
_TARGET = Flag(
    "--target METRIC=X",
    "Stop when the validation data is judged so well: `acc=0.9`, `mae=45`, `hr@10=0.2`; not "
    "reached = exit 8",
    TRAINING,
)
_Target = Annotated[Mapping[str, float], _TARGET]


@dataclass(frozen=True)
class Recipe:
    """One run, completely."""

    panel: ClassVar[str] = TRAINING

    recipe: Annotated[int, Ge(1)] = RECIPE_FORMAT
    """Format number of the recipe."""
    task: TrainTask = field(default_factory=TrainTask)
    """What is learned."""
    method: MethodChoice = field(default_factory=MethodChoice)
    """How it is learned."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """How a client trains."""
    server: ServerConfig = field(default_factory=ServerConfig)
    """What the server does with the mean change of a round."""
    fleet: FleetChoice = field(default_factory=FleetChoice)
    """Simulated hardware."""
    wire: WireChoice = field(default_factory=WireChoice)
    """Bytes."""
    executor: ExecutorChoice = field(default_factory=ExecutorChoice)
    """Where the work runs."""
    rounds: Annotated[int, Ge(1), Flag("--rounds N", before="--epochs")] = 30
    """Rounds of training."""
    clients_per_round: Annotated[int, Ge(0), Flag("--clients-per-round N", before="--epochs")] = 0
    """Clients that take part in a round; 0 = all."""
    eval_every: Annotated[int, Ge(1), Flag("--eval-every N")] = 1
    """Rounds from one evaluation to the next."""
    eval_clients: bool = False
    """Judge each client's model on the test samples of its own classes too, with and without the
    logits of other classes; personalised methods always do."""
    checkpoint_every: Annotated[int, Ge(1), Flag("--checkpoint-every N", panel=RUN)] = 10
    """Rounds from one checkpoint to the next."""
    min_clients: Annotated[int, Ge(1), Flag("--min-clients N", panel=FLEET)] = 1
    """Usable replies without which a round does not count."""
    round_retries: Annotated[int, Ge(0), Flag("--round-retries N", panel=FLEET)] = 2
    """Times that a round with too few usable replies is tried again."""
    target: _Target = field(default_factory=dict)
    seed: Annotated[int, Ge(0), replace(_SEED, before="--eval-every")] = 0


@dataclass(frozen=True)
class FitRecipe:
    """One plain training where all data is in one place, completely."""

    panel: ClassVar[str] = RUN

    recipe: Annotated[int, Ge(1)] = RECIPE_FORMAT
    """Format number of the recipe."""
    task: StartTask = field(default_factory=StartTask)
    """What is learned."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How."""
    device: Annotated[str, Flag("--device NAME")] = "cpu"
    """Where to train: `cpu`, `cuda`, `cuda:1` or another torch device."""
    threads: Annotated[int, Ge(0), Flag("--threads N")] = 0
    """Threads of one operation; 0 = as many as cores, but 1 for a small network; other numbers,
    other bits. Small is where a step is below a thousand million multiply-adds."""
    checkpoint_every: Annotated[int, Ge(1), Flag("--checkpoint-every N")] = 1
    """Epochs from one checkpoint to the next."""
    target: _Target = field(default_factory=dict)
    seed: Annotated[int, Ge(0), replace(_SEED, before="--target")] = 0


@dataclass(frozen=True)
class PruneRecipe:
    """One pruning of one trained model, completely but for its weights.

    Attributes:
        flags: options that are not those of the fields: of sections that `fp fit` has too, and one
            of the usual method's.
    """

    panel: ClassVar[str] = RUN
    flags: ClassVar[Mapping[str, Flag | None]] = {
        "task.data": Flag(
            "--data NAME",
            "Data set, as in `fp train`",
            TASK,
            default="what the model was trained on",
            known="datasets",
        ),
        "task.model": Flag(
            "--model NAME",
            "Network; needed if a run's network is code of yours",
            TASK,
            default="the run's",
            before="--data",
        ),
        "task.data_dir": DATA_DIR,
        "task.normalise": replace(NORMALISE, default="as the model was trained, else auto"),
        "method.score": Flag(
            "--score NAME",
            "What ranks channels: l1, l2, taylor, bn-scale, random, ...",
            AMOUNT,
            default="l1",
            known="scores",
            before="--ratio",
        ),
        "task.augment": None,
        "retrain.momentum": None,
        "retrain.weight_decay": None,
    }

    recipe: Annotated[int, Ge(1)] = RECIPE_FORMAT
    """Format number of the recipe."""
    task: FitTask = field(default_factory=FitTask)
    """The model, and the data that it is for."""
    method: PrunerChoice = field(default_factory=PrunerChoice)
    """How what goes is chosen."""
    prune: PruneChoice = field(default_factory=PruneChoice)
    """How much goes."""
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    """Training after each step."""
    device: Annotated[str, Flag("--device NAME")] = "cpu"
    """Where to compute: `cpu`, `cuda` or another torch device."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads of one operation; 0 means as many as there are cores. Other numbers, other bits."""
    seed: Annotated[int, Ge(0), Flag("--seed N", before="--device")] = 0
    """Seed of retraining and of all draws."""


AnyRecipe = Recipe | FitRecipe | PruneRecipe

RECIPE_KINDS: Mapping[str, type[AnyRecipe]] = {
    "train": Recipe,
    "fit": FitRecipe,
    "prune": PruneRecipe,
}
"""Command -> its kind of recipe."""


def code_words(recipe: AnyRecipe) -> str:
    """Return the options that name a recipe's code, which no file may name and so is said again."""
    named = {"--data ": recipe.task.data, "--model ": recipe.task.model}
    if method := getattr(recipe, "method", None):
        named |= {"--method ": method.name}
        named |= {f"--set method.{key}=": str(value) for key, value in method.options.items()}
    return "".join(f" {flag}{value}" for flag, value in named.items() if is_code(value))
