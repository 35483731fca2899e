"""The options of `fp sensitivity`, beside those that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fpcli.cli.options import names, option, words
from fpcli.cli.prune_options import OUTPUT, RUN

SWEEP = "Sweep"

Score = Annotated[
    list[str] | None,
    option(
        SWEEP,
        "--score",
        "NAME",
        "What ranks channels, such as l1, taylor, nisp or the controls random and largest; may be "
        "repeated: one curve each (default: l1).",
        autocompletion=names("scores"),
    ),
]
Ratios = Annotated[
    str,
    option(
        SWEEP,
        "--ratios",
        "FIRST:LAST:STEP",
        "Shares of a group's channels to remove; or a list 0.1,0.5 (default: 0.1:0.9:0.1).",
    ),
]
Samples = Annotated[
    int, option(SWEEP, "--samples", "N", "Images that judge (default: 2000).", min=1)
]
Split = Annotated[
    str,
    option(
        SWEEP,
        "--split",
        "NAME",
        "Which images judge: validation, or test as in the paper (default: validation).",
        autocompletion=words("validation", "test"),
    ),
]
Retrain = Annotated[
    int,
    option(
        SWEEP,
        "--retrain",
        "EPOCHS",
        "Also train every cut model for so long and judge it again (default: 0).",
        min=0,
    ),
]
LearningRate = Annotated[
    float, option(SWEEP, "--lr", "X", "Constant learning rate of it (default: 0.001).", min=0)
]
MaxDrop = Annotated[
    float,
    option(
        SWEEP,
        "--max-drop",
        "POINTS",
        "Loss of accuracy that counts as harmless in the last column (default: 1).",
        min=0,
    ),
]
Seed = Annotated[int, option(RUN, "--seed", "N", "Seed of all draws (default: 0).")]
Force = Annotated[bool, option(RUN, "--force", "", "Replace an earlier result.")]
Out = Annotated[
    Path,
    option(OUTPUT, "-o/--out", "FILE", "The result; pictures go beside it (default: sens.json)."),
]
