"""The smallest share of channels that makes a model forget: bisection, and every trial is a run.

A trial is a whole unlearning with one share: scoring, pruning, and all rounds without the classes.
Less will not do, since accuracy right after pruning tells little of what fine-tuning leaves. What
decides is how many of their own samples the clients find predicted right, before and at the end: no
test data is looked at, and the answers are traffic like any other. Of a larger share less is left,
so that the multiples of a twentieth up to ``method.max_ratio`` are bisected. Nothing smaller is
tried: rounds without a class may silence it in a model of which nothing was pruned.

While it goes on, the folder of the unlearning has a recipe with ``ratio: auto``, and a run for each
trial in ``search/``. ``search.json`` says what was found; then the trial of that share becomes the
run, and the others are deleted. What stops on the way goes on to the same bits.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fpcli import plugins
from fpcli.errors import CheckError
from fpcli.files import write_atomic
from fpcli.recipe.load import digest
from fpcli.report.plots import draw_run
from fpcli.report.trials import read_search, search_file
from fpcli.settings.recipes import Recipe
from fpcli.store import events
from fpcli.store.checkpoint import load_newest
from fpcli.store.run_folder import RunFolder
from fpcli.train.run_session import begin
from fpcli.unlearn.compared_models import Cost, Costs
from fpcli.unlearn.original import METHOD, Source, with_ratio
from fpcli.unlearn.unlearn_plan import shares

FORGOTTEN = 0.1
"""A class is forgotten if at most this share of what was predicted right before still is."""

MARGIN = 0.1
"""The other classes are destroyed if their accuracy is not this much above guessing at the end."""


@dataclass(frozen=True)
class Trial:
    """What a share of channels led to, on the clients' training samples.

    Attributes:
        forget_accuracy: of the classes to forget; ``original``, ``pruned`` and ``finetuned``.
        retain_accuracy: likewise of the others.
        left: of the accuracy before, the share that is there at the end; of several classes that of
            which most is left.
        rounds, bytes, seconds, real_s: what the trial cost, see ``stages.Cost``.
    """

    ratio: float
    forget_accuracy: dict[str, float]
    retain_accuracy: dict[str, float]
    left: float
    outcome: Literal["forgotten", "remembered", "destroyed"]
    rounds: int
    bytes: int
    seconds: float
    real_s: float


class NotForgottenError(CheckError):
    """No share that may be tried makes the model forget without destroying the rest.

    Attributes:
        search: what was tried, see `find_ratio`.
    """

    code = "F802"

    def __init__(self, message: str, *, hint: str, search: dict[str, Any]) -> None:
        super().__init__(message, hint=hint, where="method.ratio")
        self.search = search


def judge_trial(ratio: float, told: Sequence[Tensor], classes: Sequence[int], cost: Cost) -> Trial:
    """Return what came of a trial.

    Args:
        told: before, after pruning, ..., at the end: samples predicted right and all samples of
            the clients by class, int64 ``[2, classes]``.
        classes: to be forgotten.
    """
    stages = {"original": told[0], "pruned": told[1], "finetuned": told[-1]}
    others = [label for label in range(told[0].shape[1]) if label not in classes]

    def accuracies(labels: Sequence[int]) -> dict[str, float]:
        sums = {stage: x[:, list(labels)].sum(1).tolist() for stage, x in stages.items()}
        return {stage: right / max(total, 1) for stage, (right, total) in sums.items()}

    gone, rest = accuracies(classes), accuracies(others)
    # Shares of samples, since not every client may have answered both times; of a class of which
    # nobody said anything at the end all is left.
    start, end = told[0].double(), told[-1].double()
    before = start[0].clamp(min=1) / start[1].clamp(min=1)
    after = torch.where(end[1] > 0, end[0] / end[1], before)
    left = float((after / before)[list(classes)].max())
    is_known = left > FORGOTTEN + 1e-9  # a tenth may come out larger than it is
    # What was no better than guessing before cannot be destroyed.
    floor = min(1 / told[0].shape[1] + MARGIN, rest["original"])
    is_destroyed = rest["finetuned"] < floor
    outcome: Literal["forgotten", "remembered", "destroyed"] = (
        "remembered" if is_known else "destroyed" if is_destroyed else "forgotten"
    )
    return Trial(ratio, gone, rest, left, outcome, **asdict(cost))


def find_ratio(
    folder: RunFolder,
    recipe: Recipe,
    source: Source,
    play: Callable[[RunFolder, Recipe], None],
    say: Callable[[str], None],
    command: Sequence[str],
) -> Recipe:
    """Find the share that a recipe with ``ratio: auto`` asks for, and return the recipe with it.

    The folder then holds the run of that recipe, and ``search.json``: ``ratio`` (None if there is
    none), ``max_ratio``, ``trials`` in the order in which they were made (see `Trial`), and
    ``cost``, of all trials but the one that became the run.

    Args:
        play: plays a run in a folder to its end, from wherever it stands.
        say: gets a line for each trial that begins.
        command: words of the command line.

    Raises:
        Interrupted: by a signal, after a checkpoint; another call goes on.
        NotForgottenError: no share does it; the trials are deleted, ``search.json`` is there.
        RecipeError: not even the smallest share can be pruned.
    """
    with folder.lock():
        begin(folder, recipe, command)
        found = read_search(folder.path) or _bisect(folder, recipe, source, play, say)
        share: float | None = found["ratio"]
        if share is not None:
            _adopt(folder, _trial_folder(folder, share))
        shutil.rmtree(folder.path / "search", ignore_errors=True)
        if share is None:
            folder.write_checksums()
            raise _not_forgotten(found, recipe)
        draw_run(events.read(folder.events), folder.path)
        wanted = with_ratio(recipe, share)
        folder.write_recipe(wanted)  # last, since it says that the search is over
        folder.write_checksums()
        return wanted


def _bisect(
    folder: RunFolder,
    recipe: Recipe,
    source: Source,
    play: Callable[[RunFolder, Recipe], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    trials: dict[float, Trial] = {}

    def is_forgotten(share: float) -> bool:
        say(f"trial {len(trials) + 1}: is a share of {share:g} enough?")
        place, wanted = _trial_folder(folder, share), with_ratio(recipe, share)
        place.path.parent.mkdir(exist_ok=True)
        play(place, wanted)
        trials[share] = _of_run(place, wanted)
        return trials[share].outcome != "remembered"

    known = shares(source, recipe)
    position = bisect_left(known, True, key=is_forgotten)
    best = known[position] if position < len(known) else None
    if best is not None and trials[best].outcome == "destroyed":
        best = None
    others = [trial for share, trial in trials.items() if share != best]
    keys = ("rounds", "bytes", "seconds", "real_s")
    found = {
        "ratio": best,
        "max_ratio": known[-1],
        "trials": [asdict(trial) for trial in trials.values()],
        "cost": {key: sum(getattr(trial, key) for trial in others) for key in keys},
    }
    write_atomic(search_file(folder.path), json.dumps(found, indent=1) + "\n")
    return found


def _trial_folder(folder: RunFolder, share: float) -> RunFolder:
    return RunFolder(folder.path / "search" / f"{share:g}")


def _of_run(folder: RunFolder, recipe: Recipe) -> Trial:
    state_type = plugins.lookup("methods", METHOD).State
    state, _, _ = load_newest(folder.path, method_state=state_type, digest=digest(recipe))
    ratio, classes = recipe.method.options["ratio"], recipe.task.withhold
    return judge_trial(ratio, state.method.told, classes, Costs(folder.path, recipe).whole)


def _adopt(folder: RunFolder, trial: RunFolder) -> None:
    """Move what a trial's run has into the folder; the same call goes on with a move cut short."""
    own = ("recipe.yaml", "command.txt", "environment.json", "log.txt", "lock", "lock.pid")
    for item in sorted(trial.path.glob("*")):
        if item.name not in own:
            item.replace(folder.path / item.name)


def _not_forgotten(found: dict[str, Any], recipe: Recipe) -> NotForgottenError:
    said = " and ".join(map(str, recipe.task.withhold))
    more = f"`--finetune-rounds {2 * recipe.rounds}`"
    last = max(found["trials"], key=lambda trial: trial["ratio"])
    destroyed = [trial for trial in found["trials"] if trial["outcome"] == "destroyed"]
    anew = f"training anew does: `fp train` with `--set task.withhold={list(recipe.task.withhold)}`"
    if destroyed:
        first = min(destroyed, key=lambda trial: trial["ratio"])
        rest = first["retain_accuracy"]["finetuned"]
        return NotForgottenError(
            f"no share of channels makes the model forget class {said} and keep the rest: with "
            f"{first['ratio']:g} the other classes end at {rest:.1%}",
            hint=f"longer fine-tuning may bring them back: {more} with `--force`; {anew}",
            search=found,
        )
    return NotForgottenError(
        f"no share of channels up to {found['max_ratio']:g} makes the model forget class {said}: "
        f"{last['left']:.1%} of what was right before still is",
        hint=f"again with `--force` and a larger `--max-ratio` or {more}; {anew}",
        search=found,
    )
