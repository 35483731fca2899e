"""The options of `fp unlearn`, beside those that all commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from fpcli.cli.options import METHOD, RUN, TASK, TRAINING, Text, option
from fpcli.cli.words import names, words

KEYS = {
    "data_dir": "task.data_dir",
    "ratio": "method.ratio",
    "max_ratio": "method.max_ratio",
    "scope": "method.scope",
    "direction": "method.direction",
    "idf_ref": "method.idf_ref",
    "agg": "method.agg",
    "min_keep": "method.min_keep",
    "score_batches": "method.score_batches",
    "finetune_rounds": "rounds",
    "executor": "executor.kind",
    "workers": "executor.workers",
}
"""Option -> key of the recipe that it sets."""

CHOICES = ("ratio", "max_ratio", "scope", "direction", "idf_ref", "agg", "min_keep",
           "score_batches", "finetune_rounds", "recipe", "name", "set_", "class_", "class_name",
           "run")  # fmt: skip
"""What is settled once an unlearning has begun."""

Run = Annotated[
    Text,
    typer.Argument(
        metavar="[RUN]", help="A finished run of `fp train`; it is only read.", show_default=False
    ),
]
Class = Annotated[
    Text, option(TASK, "--class", "N[,N]", "Classes to forget, one after the other (no default).")
]
ClassName = Annotated[
    Text, option(TASK, "--class-name", "NAME[,NAME]", "The same by name (no default).")
]
Recipe = Annotated[
    Text,
    option(
        TASK,
        "-c/--recipe",
        "NAME|FILE",
        "Recipe whose method, local and rounds win over the run's (default: none).",
    ),
]
Data = Annotated[
    Text,
    option(TASK, "--data", "NAME", "Needed if the run's data is code of yours (default: its)."),
]
Model = Annotated[
    Text,
    option(TASK, "--model", "NAME", "Needed if its network is code of yours (default: the run's)."),
]
Ratio = Annotated[
    Text,
    option(
        METHOD,
        "--ratio",
        "X|auto",
        "Share of the channels pruned per class; auto tries which multiple of 0.05 is the smallest "
        "that forgets, at the price of several unlearnings (default: auto).",
    ),
]
MaxRatio = Annotated[
    Text, option(METHOD, "--max-ratio", "X", "Largest share that auto tries (default: 0.5).")
]
Scope = Annotated[
    Text,
    option(
        METHOD,
        "--scope",
        "global|layer",
        "Rank all channels together, or each layer's (default: layer).",
        autocompletion=words("global", "layer"),
    ),
]
Direction = Annotated[
    Text,
    option(
        METHOD,
        "--direction",
        "KIND",
        "Prune the highest scores, the lowest, or random channels (default: highest).",
        autocompletion=words("highest", "lowest", "random"),
    ),
]
IdfRef = Annotated[
    Text,
    option(
        METHOD,
        "--idf-ref",
        "channel|class",
        "Mean that an activation must reach to count for a class (default: channel).",
        autocompletion=words("channel", "class"),
    ),
]
Agg = Annotated[
    Text,
    option(
        METHOD,
        "--agg",
        "KIND",
        "Mean over clients: by count, holders or naive (default: count).",
        autocompletion=words("count", "holders", "naive"),
    ),
]
MinKeep = Annotated[
    Text, option(METHOD, "--min-keep", "N", "Channels that every layer keeps (default: 1).")
]
ScoreBatches = Annotated[
    Text,
    option(METHOD, "--score-batches", "N", "Batches a client scores with; 0 = all (default: 0)."),
]
FinetuneRounds = Annotated[
    Text,
    option(
        TRAINING,
        "--finetune-rounds",
        "N",
        "Rounds without the classes after pruning (default: a fifth of the run's, rounded up).",
    ),
]
CompareRetrain = Annotated[
    bool,
    option(RUN, "--compare-retrain", "", "Also train the run anew without the classes."),
]
Retrained = Annotated[
    Text,
    option(RUN, "--retrained", "RUN2", "Such a run that is there already (default: none)."),
]
Audit = Annotated[
    Text,
    option(
        RUN,
        "--audit",
        "NAME[,NAME]",
        "mia, class-mia, probe, relearn, logit-mask, server-diff, or all; implies "
        "--compare-retrain (default: none).",
        autocompletion=names("audits"),
    ),
]
DropLogit = Annotated[
    bool,
    option(
        RUN, "--drop-logit", "", "Also judge with the classes' logits left out (no unlearning)."
    ),
]
Purge = Annotated[
    bool,
    option(
        RUN, "--purge", "", "At the end delete the models that hold the classes; needs --force."
    ),
]
Resume = Annotated[
    Text,
    option(RUN, "--resume", "NAME", "Go on with an unlearning, or add a comparison to it."),
]
Name = Annotated[
    Text, option(RUN, "--name", "NAME", "Folder of the result (default: RUN-without-CLASS).")
]
Force = Annotated[
    bool, option(RUN, "--force", "", "Replace an earlier run of that name; allow --purge.")
]
DryRun = Annotated[
    bool, option(RUN, "--dry-run", "", "Show classes, samples and channels, write nothing.")
]
