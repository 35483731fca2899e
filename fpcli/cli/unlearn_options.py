"""The options of `fp unlearn`, beside those that all commands share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fpcli.cli.options import METHOD, RUN, TASK, TRAINING, Text, option
from fpcli.cli.words import names, words
from fpcli.errors import UsageError

KEYS = {
    "data_dir": "task.data_dir",
    "ratio": "method.ratio",
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

CHOICES = ("ratio", "scope", "direction", "idf_ref", "agg", "min_keep", "score_batches",
           "finetune_rounds", "recipe", "name", "set_", "class_", "class_name", "run")  # fmt: skip
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
    option(METHOD, "--ratio", "X", "Share of all channels pruned per class (default: 0.05)."),
]
Scope = Annotated[
    Text,
    option(
        METHOD,
        "--scope",
        "global|layer",
        "Rank all channels, or each layer's (default: global).",
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


def check(given: Mapping[str, Any]) -> None:
    """Check that the options go together, before anything is read.

    Raises:
        UsageError: they do not.
    """
    if given["purge"] and not given["force"]:
        raise UsageError(
            "--purge deletes the model and the checkpoints of the original run",
            hint="add --force if that is what you want",
            where="--purge",
        )
    if given["retrained"] and given["compare_retrain"]:
        raise UsageError(
            "--retrained and --compare-retrain exclude each other",
            hint="--retrained takes a run that is there, --compare-retrain trains one",
            where="--retrained",
        )
    if given["resume"] is None:
        if given["run"] is None:
            raise UsageError(
                "`fp unlearn` needs a run", hint="for example `fp unlearn runs/NAME --class 7`"
            )
        return
    for key in (*CHOICES, "dry_run"):
        if given[key]:
            word = "RUN" if key == "run" else f"--{key.strip('_').replace('_', '-')}"
            raise UsageError(
                f"--resume and {word} exclude each other",
                hint="an unlearning that has begun keeps its run, classes and settings",
                where=word,
            )


def check_settings(keys: Collection[str]) -> None:
    """Check that ``--set`` leaves alone what makes an unlearning.

    Raises:
        UsageError: it does not.
    """
    for key in ("method.name", "task.start", "task.withhold"):
        if key in keys:
            raise UsageError(
                f"--set {key}: that is settled by run and --class",
                hint="`--set` may change method, local, server, fleet, wire, executor and rounds",
                where="--set",
            )


def check_purged(given: Mapping[str, Any]) -> None:
    """Check that nothing is asked of a model that has been deleted.

    Raises:
        UsageError: something is.
    """
    for key in ("compare_retrain", "retrained", "audit", "drop_logit"):
        if given[key]:
            raise UsageError(
                f"--{key.replace('_', '-')}: the original model has been deleted",
                hint="leave it out: what was found earlier is kept",
                where=f"--{key.replace('_', '-')}",
            )


def overlay(given: Mapping[str, Any]) -> Path | None:
    """Return the recipe file whose method and training win over the run's.

    Raises:
        UsageError: it is of another method.
        FpError: there is none, or it is wrong.
    """
    from fpcli.recipe.load import find_recipe, read_settings
    from fpcli.run.forgetting import METHOD

    if not given["recipe"]:
        return None
    path = find_recipe(given["recipe"])
    method = read_settings(path).get("method.name")
    if method is None or method.value != METHOD:
        raise UsageError(
            f"-c {given['recipe']}: no recipe of the method `{METHOD}`",
            hint="for example `-c unlearn/digits`",
            where="-c",
        )
    return path


def audits(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the audits that are wanted, each once.

    Raises:
        UsageError: one is unknown.
    """
    from fpcli import plugins

    wanted = _words(given["audit"])
    for name in wanted:
        if name != "all":
            plugins.lookup("audits", name)
    return tuple(plugins.names("audits") if "all" in wanted else dict.fromkeys(wanted))


def classes(given: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """Return the classes that are named by number, and those by name.

    Raises:
        UsageError: a number is none.
    """
    numbers = []
    for word in _words(given["class_"]):
        if not word.isdecimal():
            raise UsageError(
                f"--class {word}: not the number of a class",
                hint=f"`--class 7,9`, or by name: `--class-name {word}`",
                where="--class",
            )
        numbers.append(int(word))
    return numbers, _words(given["class_name"])


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]
