"""The options of `fp export`, beside those that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fpcli.cli.options import OUTPUT, TASK, Text, option, words

WHICH, HOW = "Which model", "How"
DTYPES = ("float32", "float16", "bfloat16", "int8")

Source = Annotated[
    Text,
    typer.Argument(
        metavar="[RUN|DIR]",
        help="A run, or an output folder of `fp prune` (default: the newest run).",
        show_default=False,
    ),
]
Round = Annotated[
    int | None,
    option(
        WHICH, "--round", "N", "From this round's checkpoint (default: the final model).", min=0
    ),
]
Client = Annotated[
    Text,
    option(
        WHICH,
        "--client",
        "K[,K]",
        "The model that the next plan gives this client, with the newest checkpoint's values; of a "
        "personalised method the one that it predicts with (default: the global model).",
    ),
]
AllClients = Annotated[bool, option(WHICH, "--all-clients", "", "Those of all clients.")]
Ratio = Annotated[
    float | None,
    option(
        WHICH,
        "--ratio",
        "R",
        "Cut this share of every group's channels, lowest score first (default: none).",
        min=0,
        max=1,
    ),
]
Runs = Annotated[Path, option(WHICH, "--runs", "DIR", "Folder of all runs (default: runs).")]
Model = Annotated[
    Text, option(TASK, "--model", "CODE", "The run's network, where it is code of yours.")
]
Data = Annotated[Text, option(TASK, "--data", "CODE", "Likewise its data (rounds and clients).")]
Method = Annotated[Text, option(TASK, "--method", "CODE", "Likewise its method.")]
To = Annotated[
    str,
    option(
        HOW,
        "--to",
        "FORMAT[,FORMAT]",
        "safetensors, onnx, pt2 (default: safetensors).",
        autocompletion=words("safetensors", "onnx", "pt2"),
    ),
]
Dtype = Annotated[
    str,
    option(
        HOW,
        "--dtype",
        "NAME",
        f"Of weights in safetensors: {', '.join(DTYPES)} (default: float32).",
        autocompletion=words(*DTYPES),
    ),
]
Dense = Annotated[
    bool, option(HOW, "--dense", "", "Store masked tensors dense too (default: where smaller).")
]
Atol = Annotated[
    float,
    option(
        HOW,
        "--atol",
        "X",
        "Largest difference of outputs of file and model; more is exit 8 (default: 1e-5).",
        min=0,
    ),
]
Opset = Annotated[
    int, option(HOW, "--opset", "N", "Of ONNX (default: the exporter's usual one).", min=0)
]
Out = Annotated[
    Path | None,
    option(OUTPUT, "-o/--out", "DIR", "Where the files go (default: `export` in the run)."),
]
Force = Annotated[bool, option(OUTPUT, "--force", "", "Replace files that are there.")]
ShowLoader = Annotated[
    bool,
    option(OUTPUT, "--show-loader", "", "Print code that reads the safetensors without fpcli."),
]
