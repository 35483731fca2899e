"""The options of `fp unlearn`, beside those that all commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from fpcli.cli import options as o
from fpcli.settings.flags import METHOD, RUN, TASK, TRAINING, Flag
from fpcli.settings.keys import collect_flags
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

_TRAIN = collect_flags(Recipe)
FLAGS = METHOD_FLAGS | {key: _TRAIN[key] for key in ("executor.kind", "executor.workers")}
"""Key -> option of all that `fp unlearn` may say again of a run."""

CHOICES = (
    *(flag.parameter for flag in METHOD_FLAGS.values()), "recipe", "name", "set_", "class_",
    "class_name", "run",
)  # fmt: skip
"""What is settled once an unlearning has begun."""


@dataclass(frozen=True)
class UnlearnOptions:
    """Options of `fp unlearn` that set no key."""

    panel: ClassVar[str] = RUN

    run: Annotated[str | None, Flag("[RUN]")] = None
    """A finished run of `fp train`; it is only read."""
    class_: Annotated[str | None, Flag("--class N[,N]", panel=TASK)] = None
    """Classes to forget, one after the other (no default)."""
    class_name: Annotated[str | None, Flag("--class-name NAME[,NAME]", panel=TASK)] = None
    """The same by name (no default)."""
    recipe: Annotated[str | None, Flag("-c/--recipe NAME|FILE", panel=TASK, default="none")] = None
    """Recipe whose method, local and rounds win over the run's."""
    set_: o.Settings = None
    data: Annotated[str | None, Flag("--data NAME", panel=TASK, default="its")] = None
    """Needed if the run's data is code of yours."""
    data_dir: o.DataDir = None
    model: Annotated[str | None, Flag("--model NAME", panel=TASK, default="the run's")] = None
    """Needed if its network is code of yours."""
    compare_retrain: Annotated[bool, Flag("--compare-retrain")] = False
    """Also train the run anew without the classes."""
    retrained: Annotated[str | None, Flag("--retrained RUN2", default="none")] = None
    """Such a run that is there already."""
    audit: Annotated[str | None, Flag("--audit NAME[,NAME]", default="none", known="audits")] = None
    """mia, class-mia, probe, relearn, logit-mask, server-diff, or all; implies
    --compare-retrain."""
    drop_logit: Annotated[bool, Flag("--drop-logit")] = False
    """Also judge with the classes' logits left out (no unlearning)."""
    purge: Annotated[bool, Flag("--purge")] = False
    """At the end delete the models that hold the classes; needs --force."""
    executor: Annotated[str | None, FLAGS["executor.kind"]] = None
    workers: Annotated[str | None, FLAGS["executor.workers"]] = None
    name: Annotated[str | None, Flag("--name NAME", default="RUN-without-CLASS")] = None
    """Folder of the result."""
    runs: o.Runs = Path("runs")
    resume: Annotated[str | None, Flag("--resume NAME")] = None
    """Go on with an unlearning, or add a comparison to it."""
    force: Annotated[bool, Flag("--force")] = False
    """Replace an earlier run of that name; allow --purge."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Show classes, samples and channels, write nothing."""
