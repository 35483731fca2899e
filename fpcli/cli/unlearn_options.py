"""The options of `fp unlearn`, beside those that all commands share."""

from __future__ import annotations

from typing import Annotated

from fpcli.settings.flags import METHOD, RUN, TASK, TRAINING, Flag
from fpcli.settings.keys import flags_of
from fpcli.settings.recipes import Recipe

METHOD_FLAGS = {
    "method.ratio": Flag(
        "--ratio X|auto",
        "Share of the channels pruned per class; auto tries which multiple of 0.05 is the "
        "smallest that forgets, at the price of several unlearnings",
        METHOD,
        default="auto",
    ),
    "method.max_ratio": Flag(
        "--max-ratio X", "Largest share that auto tries", METHOD, default="0.5"
    ),
    "method.scope": Flag(
        "--scope global|layer",
        "Rank all channels together, or each layer's",
        METHOD,
        default="layer",
        known=("global", "layer"),
    ),
    "method.direction": Flag(
        "--direction KIND",
        "Prune the highest scores, the lowest, or random channels",
        METHOD,
        default="highest",
        known=("highest", "lowest", "random"),
    ),
    "method.idf_ref": Flag(
        "--idf-ref channel|class",
        "Mean that an activation must reach to count for a class",
        METHOD,
        default="channel",
        known=("channel", "class"),
    ),
    "method.agg": Flag(
        "--agg KIND",
        "Mean over clients: by count, holders or naive",
        METHOD,
        default="count",
        known=("count", "holders", "naive"),
    ),
    "method.min_keep": Flag("--min-keep N", "Channels that every layer keeps", METHOD, default="1"),
    "method.score_batches": Flag(
        "--score-batches N", "Batches a client scores with; 0 = all", METHOD, default="0"
    ),
    "rounds": Flag(
        "--finetune-rounds N",
        "Rounds without the classes after pruning",
        TRAINING,
        default="a fifth of the run's, rounded up",
    ),
}
"""Key -> option that sets it, of the method and of its rounds."""

_TRAIN = flags_of(Recipe)
FLAGS = METHOD_FLAGS | {key: _TRAIN[key] for key in ("executor.kind", "executor.workers")}
"""Key -> option of all that `fp unlearn` may say again of a run."""

Executor = Annotated[str | None, FLAGS["executor.kind"]]
Workers = Annotated[str | None, FLAGS["executor.workers"]]
CHOICES = (
    *(flag.parameter for flag in METHOD_FLAGS.values()), "recipe", "name", "set_", "class_",
    "class_name", "run",
)  # fmt: skip
"""What is settled once an unlearning has begun."""

Run = Annotated[str | None, Flag("[RUN]", "A finished run of `fp train`; it is only read")]
Class = Annotated[
    str | None, Flag("--class N[,N]", "Classes to forget, one after the other (no default)", TASK)
]
ClassName = Annotated[
    str | None, Flag("--class-name NAME[,NAME]", "The same by name (no default)", TASK)
]
RecipeName = Annotated[
    str | None,
    Flag(
        "-c/--recipe NAME|FILE",
        "Recipe whose method, local and rounds win over the run's",
        TASK,
        default="none",
    ),
]
Data = Annotated[
    str | None,
    Flag("--data NAME", "Needed if the run's data is code of yours", TASK, default="its"),
]
Model = Annotated[
    str | None,
    Flag("--model NAME", "Needed if its network is code of yours", TASK, default="the run's"),
]
CompareRetrain = Annotated[
    bool, Flag("--compare-retrain", "Also train the run anew without the classes", RUN)
]
Retrained = Annotated[
    str | None, Flag("--retrained RUN2", "Such a run that is there already", RUN, default="none")
]
Audit = Annotated[
    str | None,
    Flag(
        "--audit NAME[,NAME]",
        "mia, class-mia, probe, relearn, logit-mask, server-diff, or all; implies "
        "--compare-retrain",
        RUN,
        default="none",
        known="audits",
    ),
]
DropLogit = Annotated[
    bool, Flag("--drop-logit", "Also judge with the classes' logits left out (no unlearning)", RUN)
]
Purge = Annotated[
    bool, Flag("--purge", "At the end delete the models that hold the classes; needs --force", RUN)
]
Resume = Annotated[
    str | None, Flag("--resume NAME", "Go on with an unlearning, or add a comparison to it", RUN)
]
Name = Annotated[
    str | None, Flag("--name NAME", "Folder of the result", RUN, default="RUN-without-CLASS")
]
Force = Annotated[bool, Flag("--force", "Replace an earlier run of that name; allow --purge", RUN)]
DryRun = Annotated[
    bool, Flag("--dry-run", "Show classes, samples and channels, write nothing", RUN)
]
