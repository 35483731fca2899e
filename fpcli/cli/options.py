"""The options of `fp train` and the ones that all commands share.

Values stay text here: the recipe's loader checks them, so that an option and a recipe's key accept
the same words and fail with the same message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fpcli.cli.words import names, words
from fpcli.data import PARTITIONS
from fpcli.fleet import FLEETS
from fpcli.models import MODELS
from fpcli.models.names import complete

TASK, METHOD, TRAINING = "Task", "Method", "Training"
FLEET, RUN, OUTPUT = "Fleet", "Run", "Output"

KEYS = {
    "data": "task.data",
    "data_dir": "task.data_dir",
    "model": "task.model",
    "clients": "task.clients",
    "partition": "task.partition.kind",
    "alpha": "task.partition.alpha",
    "method": "method.name",
    "rounds": "rounds",
    "clients_per_round": "clients_per_round",
    "epochs": "local.epochs",
    "batch_size": "local.batch_size",
    "lr": "local.lr",
    "seed": "seed",
    "eval_every": "eval_every",
    "target": "target_accuracy",
    "fleet": "fleet.profile",
    "deadline": "fleet.deadline_s",
    "codec": "wire.codec",
    "min_clients": "min_clients",
    "round_retries": "round_retries",
    "device": "executor.device",
    "executor": "executor.kind",
    "workers": "executor.workers",
    "client_timeout": "executor.client_timeout_s",
    "checkpoint_every": "checkpoint_every",
}
"""Option -> key of the recipe that it sets."""


def option(panel: str, name: str, metavar: str, text: str, **more: Any) -> Any:
    """Return an option for a command's signature: its place in the help, its name, its text."""
    return typer.Option(
        *name.split("/"),
        metavar=metavar,
        help=text,
        rich_help_panel=panel,
        show_default=False,
        show_envvar=False,
        **more,
    )


Text = str | None

RecipeName = Annotated[
    Text,
    option(
        TASK, "-c/--recipe", "NAME|FILE", "Recipe: a YAML file or a shipped name (default: none)."
    ),
]
Settings = Annotated[
    list[str] | None,
    option(TASK, "--set", "KEY=VALUE", "Set any key of the recipe; may be repeated."),
]
Data = Annotated[
    Text,
    option(
        TASK,
        "--data",
        "NAME",
        "Data: a name, `folder:`, `csv:` or `npz:PATH`, `module:function` (default: digits).",
        autocompletion=names("datasets"),
    ),
]
DataDir = Annotated[
    Text,
    option(
        TASK,
        "--data-dir",
        "DIR",
        "Folder of downloaded data (default: $FP_DATA_DIR).",
        envvar="FP_DATA_DIR",
    ),
]
Model = Annotated[
    Text,
    option(
        TASK,
        "--model",
        "NAME",
        f"Network: {', '.join(MODELS)}, also NAME-gn (group norm) and NAME@0.5 (half the width), "
        "`torchvision:NAME` or `module:function` (default: the data's usual one).",
        autocompletion=complete,
    ),
]
Clients = Annotated[
    Text, option(TASK, "--clients", "N", "Clients that the data is split over (default: 10).")
]
Partition = Annotated[
    Text,
    option(
        TASK,
        "--partition",
        "KIND",
        f"How it is split: {', '.join(PARTITIONS[:-1])} or {PARTITIONS[-1]} (default: iid).",
        autocompletion=words(*PARTITIONS),
    ),
]
Alpha = Annotated[
    Text,
    option(
        TASK,
        "--alpha",
        "X",
        "Evenness of a dirichlet or quantity split, above 0; small = uneven (default: 0.5).",
    ),
]

Method = Annotated[
    Text,
    option(
        METHOD,
        "--method",
        "NAME",
        "What `fp methods` lists; its options: --set method.KEY=VALUE (default: fedavg).",
        autocompletion=names("methods"),
    ),
]

Rounds = Annotated[Text, option(TRAINING, "--rounds", "N", "Rounds of training (default: 30).")]
PerRound = Annotated[
    Text,
    option(
        TRAINING,
        "--clients-per-round",
        "N",
        "Clients that take part in a round; 0 = all (default: 0).",
    ),
]
Epochs = Annotated[
    Text,
    option(TRAINING, "--epochs", "N", "Passes of a client over its data per round (default: 1)."),
]
BatchSize = Annotated[
    Text,
    option(TRAINING, "--batch-size", "N", "Samples of a client's training step (default: 32)."),
]
LearningRate = Annotated[
    Text, option(TRAINING, "--lr", "X", "Learning rate of a client's training (default: 0.1).")
]
Seed = Annotated[Text, option(TRAINING, "--seed", "N", "Seed of the run (default: 0).")]
EvalEvery = Annotated[
    Text,
    option(TRAINING, "--eval-every", "N", "Rounds from one evaluation to the next (default: 1)."),
]
Target = Annotated[
    Text,
    option(
        TRAINING,
        "--target",
        "acc=X",
        "Stop at this validation accuracy, a fraction; not reached = exit 8 (default: none).",
    ),
]

Fleet = Annotated[
    Text,
    option(
        FLEET,
        "--fleet",
        "NAME|FILE",
        f"Simulated devices: {', '.join(FLEETS)} or a YAML file (default: two-speed).",
        autocompletion=names("fleets"),
    ),
]
Deadline = Annotated[
    Text,
    option(
        FLEET,
        "--deadline",
        "TIME",
        "Simulated time after which a round closes, as `60s` (default: none).",
    ),
]
Codec = Annotated[
    Text,
    option(
        FLEET,
        "--codec",
        "NAME",
        "How tensors are sent, both ways, such as sparse or int8 (default: dense).",
        autocompletion=names("codecs"),
    ),
]
MinClients = Annotated[
    Text,
    option(
        FLEET,
        "--min-clients",
        "N",
        "Usable replies without which a round does not count (default: 1).",
    ),
]
RoundRetries = Annotated[
    Text,
    option(FLEET, "--round-retries", "N", "Times that such a round is tried again (default: 2)."),
]

Device = Annotated[
    Text,
    option(
        RUN, "--device", "NAME", "Where clients compute: cpu, cuda, cuda:1, ... (default: cpu)."
    ),
]
Executor = Annotated[
    Text,
    option(
        RUN,
        "--executor",
        "KIND",
        "inline (one after the other), pool (processes) or auto (default: auto).",
        autocompletion=words("auto", "inline", "pool"),
    ),
]
Workers = Annotated[
    Text, option(RUN, "--workers", "auto|N", "Processes of a pool (default: auto).")
]
ClientTimeout = Annotated[
    Text,
    option(
        RUN,
        "--client-timeout",
        "TIME",
        "Real time after which a client counts as failed (default: 10m).",
    ),
]
CheckpointEvery = Annotated[
    Text,
    option(RUN, "--checkpoint-every", "N", "Rounds from one checkpoint to the next (default: 10)."),
]
Track = Annotated[
    Text,
    option(
        RUN,
        "--track",
        "tensorboard|wandb",
        "Also feed these, with commas between; wandb stays offline without WANDB_MODE "
        "(default: none).",
        autocompletion=words("tensorboard", "wandb"),
    ),
]
Name = Annotated[
    Text, option(RUN, "--name", "NAME", "Folder of the run (default: METHOD-DATA-MODEL-sSEED).")
]
Runs = Annotated[Path, option(RUN, "--runs", "DIR", "Folder of all runs (default: runs).")]
Resume = Annotated[Text, option(RUN, "--resume", "RUN", "Go on with an earlier run.")]
Force = Annotated[
    bool,
    option(
        RUN, "--force", "", "Replace a run of that name; with --resume: change recipe, start over."
    ),
]
DryRun = Annotated[
    bool,
    option(RUN, "--dry-run", "", "Show the recipe and the first round's plan, write nothing."),
]

Json = Annotated[bool, option(OUTPUT, "--json", "", "Print the result as one JSON object.")]
JsonLines = Annotated[
    bool, option(OUTPUT, "--json-lines", "", "Print rounds as lines of JSON, the result last.")
]
Quiet = Annotated[bool, option(OUTPUT, "-q/--quiet", "", "Show warnings and the result only.")]
Verbose = Annotated[bool, option(OUTPUT, "-v/--verbose", "", "Show every client of every round.")]
NoProgress = Annotated[
    bool,
    option(
        OUTPUT,
        "--no-progress",
        "",
        "No moving bar (or set FP_NO_PROGRESS=1).",
        envvar="FP_NO_PROGRESS",
    ),
]
Debug = Annotated[bool, option(OUTPUT, "--debug", "", "Show the traceback of an error.")]
