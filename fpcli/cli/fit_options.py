"""The options of `fp fit` that `fp train` has not, or has with other defaults."""

from __future__ import annotations

from typing import Annotated

from fpcli.cli.options import OUTPUT, RUN, TASK, TRAINING, Text, option, words

KEYS = {
    "data": "task.data",
    "data_dir": "task.data_dir",
    "model": "task.model",
    "augment": "task.augment",
    "epochs": "fit.epochs",
    "batch_size": "fit.batch_size",
    "lr": "fit.lr",
    "momentum": "fit.momentum",
    "weight_decay": "fit.weight_decay",
    "schedule": "fit.schedule",
    "seed": "seed",
    "target": "target_accuracy",
    "device": "device",
    "threads": "threads",
    "checkpoint_every": "checkpoint_every",
}
"""Option -> key of the recipe that it sets."""

Augment = Annotated[
    Text,
    option(
        TASK,
        "--augment",
        "KIND",
        "Random change of training images: none, crop, crop-flip or auto (default: auto = "
        "crop-flip for CIFAR, else none).",
        autocompletion=words("auto", "none", "crop", "crop-flip"),
    ),
]
Epochs = Annotated[
    Text, option(TRAINING, "--epochs", "N", "Passes over the training data (default: 30).")
]
BatchSize = Annotated[
    Text, option(TRAINING, "--batch-size", "N", "Samples of a training step (default: 128).")
]
LearningRate = Annotated[
    Text, option(TRAINING, "--lr", "X", "Learning rate at the start (default: 0.1).")
]
Momentum = Annotated[
    Text, option(TRAINING, "--momentum", "X", "Momentum of SGD, below 1 (default: 0.9).")
]
WeightDecay = Annotated[
    Text,
    option(
        TRAINING,
        "--weight-decay",
        "X",
        "Factor of the squared-norm penalty on all parameters (default: 0.0005).",
    ),
]
Schedule = Annotated[
    Text,
    option(
        TRAINING,
        "--schedule",
        "KIND",
        "How the learning rate falls: cosine (to 0), constant, or steps (a tenth at half and at "
        "three quarters of the training) (default: cosine).",
        autocompletion=words("cosine", "constant", "steps"),
    ),
]
Device = Annotated[
    Text, option(RUN, "--device", "NAME", "Where to train: cpu, cuda, cuda:1, ... (default: cpu).")
]
Threads = Annotated[
    Text,
    option(
        RUN,
        "--threads",
        "N",
        "Threads of one operation; 0 = as many as cores, but 1 for a small network; other "
        "numbers, other bits (default: 0).",
    ),
]
CheckpointEvery = Annotated[
    Text,
    option(RUN, "--checkpoint-every", "N", "Epochs from one checkpoint to the next (default: 1)."),
]
Name = Annotated[
    Text, option(RUN, "--name", "NAME", "Folder of the run (default: fit-DATA-MODEL-sSEED).")
]
DryRun = Annotated[
    bool, option(RUN, "--dry-run", "", "Show the recipe and the model's size, write nothing.")
]
JsonLines = Annotated[
    bool, option(OUTPUT, "--json-lines", "", "Print epochs as lines of JSON, the result last.")
]
