"""The options of `fp bench`, beside those that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fpcli.cli.options import OUTPUT, TASK, Text, option

HOW = "How"

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PATH...",
        help="Runs, output folders of `fp prune`, .safetensors of `fp export`, .onnx, .pt2; the "
        "others are compared with the first.",
        show_default=False,
    ),
]
Batch = Annotated[str, option(HOW, "--batch", "N[,N]", "Samples of a batch (default: 1,64).")]
Threads = Annotated[
    str, option(HOW, "--threads", "N[,N]", "Threads of one operation (default: 1).")
]
Seconds = Annotated[
    float,
    option(
        HOW,
        "--seconds",
        "X",
        "About how long all timing may take; slow models take longer (default: 10).",
        min=0,
    ),
]
Crossover = Annotated[
    bool,
    option(
        HOW,
        "--crossover",
        "",
        "Instead of models, time single layers dense and sparse, to see from which sparsity on "
        "skipping weights pays on this machine.",
    ),
]
Model = Annotated[Text, option(TASK, "--model", "CODE", "The network, where it is code of yours.")]
Out = Annotated[
    Path | None,
    option(OUTPUT, "-o/--out", "FILE.png", "Draw bars, also as SVG beside (default: none)."),
]
SaveProfile = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--save-profile",
        "FILE.yaml",
        "Write this machine and the first model's training step, layer by layer, as a fleet file "
        "for `fp train --fleet` (default: none).",
    ),
]
Force = Annotated[bool, option(OUTPUT, "--force", "", "Replace files that exist.")]
