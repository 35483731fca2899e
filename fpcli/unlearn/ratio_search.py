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
from fpcli.recipe.load import digest_recipe
from fpcli.report.plots import draw_run
from fpcli.report.trials import read_search, search_file
from fpcli.settings.recipes import Recipe
from fpcli.store import events
from fpcli.store.checkpoint import load_newest
from fpcli.store.run_folder import RunFolder
from fpcli.train.run_session import begin_folder
from fpcli.unlearn.compared_models import Costs, Spending
from fpcli.unlearn.original import METHOD, Original, set_ratio
from fpcli.unlearn.unlearn_plan import list_shares

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


def judge_trial(
    ratio: float, counts: Sequence[Tensor], classes: Sequence[int], cost: Spending
) -> Trial:
    """Return what came of a trial.

    Args:
        counts: before, after pruning, ..., at the end: samples predicted right and all samples of
            the clients by class, int64 ``[2, classes]``.
        classes: to be forgotten.
    """
    stages = {"original": counts[0], "pruned": counts[1], "finetuned": counts[-1]}
    others = [label for label in range(counts[0].shape[1]) if label not in classes]

    def accuracies(labels: Sequence[int]) -> dict[str, float]:
        sums = {stage: x[:, list(labels)].sum(1).tolist() for stage, x in stages.items()}
        return {stage: right / max(total, 1) for stage, (right, total) in sums.items()}

    on_forgotten, rest = accuracies(classes), accuracies(others)
    # Shares of samples, since not every client may have answered both times; of a class of which
    # nobody said anything at the end all is left.
    start, end = counts[0].double(), counts[-1].double()
    before = start[0].clamp(min=1) / start[1].clamp(min=1)
    after = torch.where(end[1] > 0, end[0] / end[1], before)
    left = float((after / before)[list(classes)].max())
    is_known = left > FORGOTTEN + 1e-9  # a tenth may come out larger than it is
    # What was no better than guessing before cannot be destroyed.
    floor = min(1 / counts[0].shape[1] + MARGIN, rest["original"])
    is_destroyed = rest["finetuned"] < floor
    outcome: Literal["forgotten", "remembered", "destroyed"] = (
        "remembered" if is_known else "destroyed" if is_destroyed else "forgotten"
    )
    return Trial(ratio, on_forgotten, rest, left, outcome, **asdict(cost))


def find_ratio(
    folder: RunFolder,
    recipe: Recipe,
    source: Original,
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
        begin_folder(folder, recipe, command)
        search = read_search(folder.path) or _bisect(folder, recipe, source, play, say)
        share: float | None = search["ratio"]
        if share is not None:
            _adopt(folder, _trial_folder(folder, share))
        shutil.rmtree(folder.path / "search", ignore_errors=True)
        if share is None:
            folder.write_checksums()
            raise _explain_not_forgotten(search, recipe)
        draw_run(events.read_events(folder.events), folder.path)
        wanted = set_ratio(recipe, share)
        folder.write_recipe(wanted)  # last, since it says that the search is over
        folder.write_checksums()
        return wanted


def _bisect(
    folder: RunFolder,
    recipe: Recipe,
    source: Original,
    play: Callable[[RunFolder, Recipe], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    trials: dict[float, Trial] = {}

    def is_forgotten(share: float) -> bool:
        say(f"trial {len(trials) + 1}: is a share of {share:g} enough?")
        place, wanted = _trial_folder(folder, share), set_ratio(recipe, share)
        place.path.parent.mkdir(exist_ok=True)
        play(place, wanted)
        trials[share] = _of_run(place, wanted)
        return trials[share].outcome != "remembered"

    ratios = list_shares(source, recipe)
    position = bisect_left(ratios, True, key=is_forgotten)
    best = ratios[position] if position < len(ratios) else None
    if best is not None and trials[best].outcome == "destroyed":
        best = None
    others = [trial for share, trial in trials.items() if share != best]
    keys = ("rounds", "bytes", "seconds", "real_s")
    search = {
        "ratio": best,
        "max_ratio": ratios[-1],
        "trials": [asdict(trial) for trial in trials.values()],
        "cost": {key: sum(getattr(trial, key) for trial in others) for key in keys},
    }
    write_atomic(search_file(folder.path), json.dumps(search, indent=1) + "\n")
    return search


def _trial_folder(folder: RunFolder, share: float) -> RunFolder:
    return RunFolder(folder.path / "search" / f"{share:g}")


def _of_run(folder: RunFolder, recipe: Recipe) -> Trial:
    state_type = plugins.lookup("methods", METHOD).State
    state, _, _ = load_newest(folder.path, method_state=state_type, digest=digest_recipe(recipe))
    ratio, classes = recipe.method.options["ratio"], recipe.task.withhold
    return judge_trial(ratio, state.method.told, classes, Costs(folder.path, recipe).whole)


def _adopt(folder: RunFolder, trial: RunFolder) -> None:
    """Move what a trial's run has into the folder; the same call goes on with a move cut short."""
    files = ("recipe.yaml", "command.txt", "environment.json", "log.txt", "lock", "lock.pid")
    for item in sorted(trial.path.glob("*")):
        if item.name not in files:
            item.replace(folder.path / item.name)


def _explain_not_forgotten(search: dict[str, Any], recipe: Recipe) -> NotForgottenError:
    classes = " and ".join(map(str, recipe.task.withhold))
    more = f"`--finetune-rounds {2 * recipe.rounds}`"
    last = max(search["trials"], key=lambda trial: trial["ratio"])
    destroyed = [trial for trial in search["trials"] if trial["outcome"] == "destroyed"]
    anew = f"training anew does: `fp train` with `--set task.withhold={list(recipe.task.withhold)}`"
    if destroyed:
        first = min(destroyed, key=lambda trial: trial["ratio"])
        rest = first["retain_accuracy"]["finetuned"]
        return NotForgottenError(
            f"no share of channels makes the model forget class {classes} and keep the rest: with "
            f"{first['ratio']:g} the other classes end at {rest:.1%}",
            hint=f"longer fine-tuning may bring them back: {more} with `--force`; {anew}",
            search=search,
        )
    return NotForgottenError(
        f"no share of channels up to {search['max_ratio']:g} makes the model forget class "
        f"{classes}: {last['left']:.1%} of what was right before still is",
        hint=f"again with `--force` and a larger `--max-ratio` or {more}; {anew}",
        search=search,
    )
