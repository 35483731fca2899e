"""The options of `fp prune`, beside those that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fpcli.cli.options import OUTPUT, RUN, TASK, Text, names, option

AMOUNT, RETRAINING = "How much", "Retraining"

KEYS = {
    "data": "task.data",
    "data_dir": "task.data_dir",
    "model": "task.model",
    "method": "method.name",
    "score": "method.score",
    "ratio": "prune.ratio",
    "params": "prune.params",
    "macs": "prune.macs",
    "bytes_": "prune.bytes",
    "rate": "prune.rates",
    "rates": "prune.rates_file",
    "max_drop": "prune.max_drop",
    "ignore": "prune.ignore",
    "round_to": "prune.round_to",
    "steps": "prune.steps",
    "finetune": "retrain.epochs",
    "lr": "retrain.lr",
    "batch_size": "retrain.batch_size",
    "seed": "seed",
    "device": "device",
}
"""Option -> key of the recipe that it sets."""

Source = Annotated[
    Text,
    typer.Argument(
        metavar="[RUN|DIR|MODEL]",
        help="A run, an output folder, or a model's name with -w (default: the newest run).",
        autocompletion=names("models"),
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    option(TASK, "-w/--weights", "FILE", "Weights of a model: .safetensors, .pt (default: none)."),
]
Data = Annotated[
    Text,
    option(
        TASK,
        "--data",
        "NAME",
        "Data set, as in `fp train` (default: what the model was trained on).",
        autocompletion=names("datasets"),
    ),
]
Model = Annotated[
    Text,
    option(
        TASK,
        "--model",
        "NAME",
        "Network; needed if a run's network is code of yours (default: the run's).",
    ),
]
Method = Annotated[
    Text,
    option(
        AMOUNT,
        "--method",
        "NAME",
        "How what goes is chosen; its options: --set method.KEY=VALUE (default: filters).",
        autocompletion=names("pruners"),
    ),
]
Score = Annotated[
    Text,
    option(
        AMOUNT,
        "--score",
        "NAME",
        "What ranks channels: l1, l2, taylor, bn-scale, random, ... (default: l1).",
        autocompletion=names("scores"),
    ),
]
Ratio = Annotated[
    Text,
    option(AMOUNT, "--ratio", "X", "Share of each group's channels that GOES (default: none)."),
]
Params = Annotated[
    Text, option(AMOUNT, "--params", "X", "Share of the parameters that STAYS (default: none).")
]
Macs = Annotated[
    Text, option(AMOUNT, "--macs", "X", "Share of the multiply-adds that STAYS (default: none).")
]
Bytes = Annotated[
    Text, option(AMOUNT, "--bytes", "X", "Share of the bytes that STAYS (default: none).")
]
Rate = Annotated[
    list[str] | None,
    option(
        AMOUNT,
        "--rate",
        "PLACE=X",
        "A place's own ratio: conv1=0.5, 2-19=0.6 (layers), stage1=0.3; may be repeated.",
    ),
]
Rates = Annotated[
    Text,
    option(AMOUNT, "--rates", "FILE", "Ratios from a result of `fp sensitivity` (default: none)."),
]
MaxDrop = Annotated[
    Text,
    option(
        AMOUNT, "--max-drop", "POINTS", "Points of accuracy a group may lose by it (default: 1)."
    ),
]
Ignore = Annotated[
    list[str] | None,
    option(AMOUNT, "--ignore", "PLACE", "Remove nothing there, as in --rate; may be repeated."),
]
RoundTo = Annotated[
    Text,
    option(AMOUNT, "--round-to", "N", "Widths are multiples of N where possible (default: 1)."),
]
Steps = Annotated[
    Text,
    option(RETRAINING, "--steps", "N", "Equal portions, retrained after each (default: 1)."),
]
Finetune = Annotated[
    Text, option(RETRAINING, "--finetune", "EPOCHS", "Epochs after each step (default: 0).")
]
LearningRate = Annotated[
    Text,
    option(RETRAINING, "--lr", "X", "Its learning rate (default: a tenth of the training's)."),
]
BatchSize = Annotated[
    Text, option(RETRAINING, "--batch-size", "N", "Samples of a training step (default: 128).")
]
Device = Annotated[Text, option(RUN, "--device", "NAME", "cpu, cuda, ... (default: cpu).")]
Seed = Annotated[Text, option(RUN, "--seed", "N", "Seed of retraining and draws (default: 0).")]
Latency = Annotated[
    bool,
    option(OUTPUT, "--latency", "", "Time forward passes of 1 and 64 images, before and after."),
]
Out = Annotated[Path, option(OUTPUT, "-o/--out", "DIR", "Where the result goes (default: out).")]
Force = Annotated[bool, option(RUN, "--force", "", "Replace an earlier result in that folder.")]
DryRun = Annotated[
    bool,
    option(RUN, "--dry-run", "", "Show what would be cut, train and write nothing."),
]
