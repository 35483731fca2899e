"""The recipes: all sections of one command together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from fpcli.settings.flags import AMOUNT, FLEET, RETRAINING, RUN, TASK, TRAINING, Flag
from fpcli.settings.hardware import ExecutorChoice, FleetChoice, WireChoice
from fpcli.settings.learning import (
    BATCH_SIZE,
    FitConfig,
    LocalConfig,
    MethodChoice,
    PruneChoice,
    PrunerChoice,
    RetrainConfig,
    ServerConfig,
)
from fpcli.settings.tasks import DATA_DIR, FitTask, Task

FORMAT = 1
"""The newest recipe format that this version reads."""

_SEED = Flag("--seed N", "Seed of the run", TRAINING)
_Target = Annotated[
    Annotated[float, Gt(0), Le(1)] | None,
    Flag(
        "--target acc=X",
        "Stop at this validation accuracy, a fraction; not reached = exit 8",
        TRAINING,
        reads="accuracy",
    ),
]


@dataclass(frozen=True)
class Recipe:
    """One run, completely."""

    recipe: Annotated[int, Ge(1)] = FORMAT
    """Format number of the recipe."""
    task: Task = field(default_factory=Task)
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
    rounds: Annotated[
        int, Ge(1), Flag("--rounds N", "Rounds of training", TRAINING, before="--epochs")
    ] = 30
    """Number of rounds of training."""
    clients_per_round: Annotated[
        int,
        Ge(0),
        Flag(
            "--clients-per-round N",
            "Clients that take part in a round; 0 = all",
            TRAINING,
            before="--epochs",
        ),
    ] = 0
    """Number of clients in a round's cohort; 0 means all."""
    eval_every: Annotated[
        int, Ge(1), Flag("--eval-every N", "Rounds from one evaluation to the next", TRAINING)
    ] = 1
    """Rounds from one evaluation to the next."""
    eval_clients: bool = False
    """Judge each client's model on the test samples of its own classes too, with and without the
    logits of other classes; personalised methods always do."""
    checkpoint_every: Annotated[
        int, Ge(1), Flag("--checkpoint-every N", "Rounds from one checkpoint to the next", RUN)
    ] = 10
    """Rounds from one checkpoint to the next."""
    min_clients: Annotated[
        int,
        Ge(1),
        Flag("--min-clients N", "Usable replies without which a round does not count", FLEET),
    ] = 1
    """Usable replies without which a round does not count."""
    round_retries: Annotated[
        int, Ge(0), Flag("--round-retries N", "Times that such a round is tried again", FLEET)
    ] = 2
    """Times a round with too few usable replies is tried again."""
    target_accuracy: _Target = None
    """Validation accuracy, a fraction, at which the run is done; null trains all rounds."""
    seed: Annotated[int, Ge(0), replace(_SEED, before="--eval-every")] = 0
    """Where every random stream starts from."""


@dataclass(frozen=True)
class FitRecipe:
    """One plain training where all data is in one place, completely."""

    recipe: Annotated[int, Ge(1)] = FORMAT
    """Format number of the recipe."""
    task: FitTask = field(default_factory=FitTask)
    """What is learned."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How."""
    device: Annotated[str, Flag("--device NAME", "Where to train: cpu, cuda, cuda:1, ...", RUN)] = (
        "cpu"
    )
    """Torch device to train on, such as `cpu` or `cuda`."""
    threads: Annotated[
        int,
        Ge(0),
        Flag(
            "--threads N",
            "Threads of one operation; 0 = as many as cores, but 1 for a small network; other "
            "numbers, other bits",
            RUN,
        ),
    ] = 0
    """Threads of one operation; 0 means as many as there are cores, but 1 where a step is below a
    thousand million multiply-adds. Other numbers, other bits."""
    checkpoint_every: Annotated[
        int, Ge(1), Flag("--checkpoint-every N", "Epochs from one checkpoint to the next", RUN)
    ] = 1
    """Epochs from one checkpoint to the next."""
    target_accuracy: _Target = None
    """Validation accuracy, a fraction, at which training is done; null trains all epochs."""
    seed: Annotated[int, Ge(0), replace(_SEED, before="--target")] = 0
    """Where every random stream starts from."""


@dataclass(frozen=True)
class PruneRecipe:
    """One pruning of one trained model, completely but for its weights.

    Attributes:
        flags: options that are not those of the fields: of sections that `fp fit` has too, and one
            of the usual method's.
    """

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
        "task.data_dir": replace(DATA_DIR, before=""),
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
        "retrain.batch_size": replace(BATCH_SIZE, panel=RETRAINING),
    }

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
    device: Annotated[str, Flag("--device NAME", "cpu, cuda, ...", RUN)] = "cpu"
    """Torch device to compute on, such as `cpu` or `cuda`."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads of one operation; 0 means as many as there are cores. Other numbers, other bits."""
    seed: Annotated[
        int, Ge(0), Flag("--seed N", "Seed of retraining and draws", RUN, before="--device")
    ] = 0
    """Where every random stream starts from."""


AnyRecipe = Recipe | FitRecipe | PruneRecipe

KINDS: Mapping[str, type[AnyRecipe]] = {"train": Recipe, "fit": FitRecipe, "prune": PruneRecipe}
"""Command -> its kind of recipe."""
