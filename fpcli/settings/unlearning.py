"""Forgetting a class: the options of the method `unlearn`, and the others of `fp unlearn`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from fpcli.settings import options as o
from fpcli.settings.flags import METHOD, RUN, TASK, TRAINING, Flag
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import Recipe

Scope = Literal["global", "layer"]
Direction = Literal["highest", "lowest", "random"]
IdfReference = Literal["channel", "class"]
Smoothing = Literal["paper", "code"]
Aggregation = Literal["count", "holders", "naive"]


@dataclass(frozen=True)
class UnlearnChoice:
    """What is pruned to forget a class, and by which scores."""

    panel: ClassVar[str] = METHOD

    ratio: Annotated[
        Annotated[float, Ge(0), Lt(1)] | Literal["auto"],
        Flag(
            "--ratio X|auto",
            "Share of the channels pruned per class; auto tries which multiple of 0.05 is the "
            "smallest that forgets, at the price of several unlearnings",
            default="auto",
        ),
    ] = 0.3
    """Share of the channels of all convolutions that is pruned for each class (paper: R); `auto`,
    the smallest that forgets, is found by `fp unlearn` alone."""
    max_ratio: Annotated[float, Gt(0), Lt(1), Flag("--max-ratio X")] = 0.5
    """Largest share that `auto` tries."""
    scope: Annotated[Scope, Flag("--scope global|layer")] = "layer"
    """Rank all channels together, or those of every layer by themselves."""
    direction: Annotated[Direction, Flag("--direction KIND")] = "highest"
    """Prune the highest scores (paper), the lowest (official code), or as many at random."""
    idf_ref: Annotated[IdfReference, Flag("--idf-ref channel|class")] = "channel"
    """What an activation must reach to count for a class: the channel's mean over the classes
    (official code), or the class's mean over the channels (formula of the paper)."""
    idf: Smoothing = "paper"
    """Smoothing of the inverse document frequency: of the paper, or of the official code."""
    agg: Annotated[Aggregation, Flag("--agg KIND")] = "count"
    """Mean over clients weighted by their samples of a class (count), over those that have the
    class (holders), or over all (naive)."""
    min_keep: Annotated[int, Ge(1), Flag("--min-keep N")] = 1
    """Channels that every layer keeps."""
    nni_skip: bool = False
    """Spare layers narrower than 1 / ratio, as the library of the official code does."""
    score_batches: Annotated[int, Ge(0), Flag("--score-batches N")] = 0
    """Batches that a client looks at for the scores; 0 means all of its data."""
    counts_right: bool = False
    """Ask all clients how many of their samples of each class are predicted right: before, after
    pruning, and at every evaluation."""


METHOD_FLAGS = collect_flags(UnlearnChoice, "method.") | {
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

    run: Annotated[str | None, Flag("[RUN]", known="runs")] = None
    """A finished run of `fp train`; it is only read."""
    class_: Annotated[str | None, Flag("--class N[,N]", panel=TASK)] = None
    """Classes to forget, one after the other (no default)."""
    class_name: Annotated[str | None, Flag("--class-name NAME[,NAME]", panel=TASK)] = None
    """The same by name (no default)."""
    recipe: Annotated[
        str | None, Flag("-c/--recipe NAME|FILE", panel=TASK, default="none", known="recipes")
    ] = None
    """Recipe whose method, local and rounds win over the run's."""
    set_: o.Settings = None
    data: Annotated[str | None, Flag("--data NAME", panel=TASK, default="its")] = None
    """Needed if the run's data is code of yours."""
    data_dir: o.DataDir = None
    model: Annotated[str | None, Flag("--model NAME", panel=TASK, default="the run's")] = None
    """Needed if its network is code of yours."""
    compare_retrain: Annotated[bool, Flag("--compare-retrain")] = False
    """Also train the run anew without the classes."""
    retrained: Annotated[str | None, Flag("--retrained RUN2", default="none", known="runs")] = None
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
    """Folder of the result; `auto` numbers it where taken."""
    runs: o.Runs = Path("runs")
    resume: Annotated[str | None, Flag("--resume NAME", known="runs")] = None
    """Go on with an unlearning, or add a comparison to it."""
    force: Annotated[bool, Flag("--force")] = False
    """Replace an earlier run of that name; allow --purge."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Show classes, samples and channels, write nothing."""
