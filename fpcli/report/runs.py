"""Find and read the folders of runs, as plain data: settings, rounds, and what they add up to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from fpcli.errors import DataError, ResumeError
from fpcli.recipe.load import NOT_IN_DIGEST, read_stored
from fpcli.report.trials import read_search
from fpcli.store import events
from fpcli.store.run_folder import RunFolder

Event = Mapping[str, Any]

UNIMPORTANT = NOT_IN_DIGEST - {"rounds", "target_accuracy"}
"""Settings that change nothing that is compared: where a run computes and what it keeps."""

_NUMBERS = (
    "round", "clock_s", "real_s", "total_down_bytes", "total_up_bytes", "params", "macs",
    "coverage",
)  # fmt: skip
_CLIENT_NUMBERS = (
    "client", "num_examples", "params", "macs", "pruning_error", "down_bytes", "up_bytes",
    "compute_s", "down_s", "up_s",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run, finished or not.

    Attributes:
        settings: dotted key -> value of its resolved recipe.
        rounds: its round events, in order.
        trials: of the shares of channels that `fp unlearn` tried, see `unlearn.ratio_search`.
    """

    path: Path
    settings: Mapping[str, Any]
    rounds: tuple[Event, ...]
    trials: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.resolve().name

    @property
    def method(self) -> str:
        """The name of its method."""
        return str(self.settings.get("method.name", ""))

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.settings.get("seed") or 0)

    @property
    def important(self) -> dict[str, Any]:
        """The settings that may change a result, without the seed."""
        return {k: v for k, v in self.settings.items() if k not in UNIMPORTANT | {"seed"}}

    @cached_property
    def judged(self) -> tuple[Event, ...]:
        """The rounds in which the model was evaluated."""
        return tuple(event for event in self.rounds if event.get("validation"))

    @cached_property
    def best(self) -> Event | None:
        """The round with the highest validation accuracy, the first of equals."""
        return max(self.judged, key=lambda event: event["validation"]["accuracy"], default=None)

    @cached_property
    def real_s(self) -> dict[int, float]:
        """Measured seconds from the start of the run to the end of each round."""
        sums = accumulate(event["real_s"] for event in self.rounds)
        return dict(zip((event["round"] for event in self.rounds), sums, strict=True))

    def problem(self) -> str:
        """Say in a few words what the run lacks to be complete; empty for a finished run."""
        if not self.rounds:
            return "has no round yet"
        last, wanted = self.rounds[-1]["round"], self.settings.get("rounds")
        target = self.settings.get("target_accuracy")
        is_reached = target and self.best and self.best["validation"]["accuracy"] >= target
        if wanted and last < wanted and not is_reached:
            return f"is unfinished: {last} of {wanted} rounds"
        return "" if self.judged else "was never evaluated"


def find_runs(words: Sequence[Path], runs_dir: Path) -> list[Run]:
    """Read runs, each once, in the order in which they were named.

    Args:
        words: folders of runs, folders that hold such folders, or names of runs in ``runs_dir``.

    Raises:
        DataError: a folder does not exist or is no run, or its files cannot be read.
    """
    runs_read: dict[Path, Run] = {}
    for word in words:
        for path in _folders(word, runs_dir):
            key = path.resolve()
            runs_read[key] = runs_read.get(key) or read_run(path)
    return list(runs_read.values())


def _folders(word: Path, runs_dir: Path) -> list[Path]:
    path = word if word.exists() or not (runs_dir / word).exists() else runs_dir / word
    inside = sorted(item.parent for item in path.glob("[!.]*/recipe.yaml"))
    if inside and not (path / "recipe.yaml").is_file():
        return inside
    try:
        return [RunFolder.open(path).path]
    except ResumeError as error:  # nothing is to be resumed here
        raise DataError(error.message, hint=error.hint, where=error.where) from error


def read_run(path: Path) -> Run:
    """Read one run's folder; it may be in use.

    Raises:
        RecipeError: its recipe cannot be read.
        DataError: its events, or the shares that it tried, cannot be read.
    """
    folder = RunFolder(path)
    history = events.read_events(folder.events)
    rounds = tuple(event for event in history if event.get("event") == "round")
    for event in rounds:
        for problem in _problems(event):
            raise _foreign(folder.events, f"round {event.get('round')}: {problem}")
    settings = read_stored(folder.recipe)
    for key in ("seed", "rounds", "target_accuracy"):
        if not _is_number_or_none(settings.get(key)):
            raise _foreign(folder.recipe, f"`{key}` is not a number")
    search = read_search(path) or {"trials": ()}
    return Run(path, settings, rounds, tuple(search["trials"]))


def _foreign(path: Path, problem: str) -> DataError:
    hint = "was the file changed, or written by another version of fpcli?"
    return DataError(f"{path}: {problem}", hint=hint, where=str(path))


def _problems(event: Event) -> Iterator[str]:
    for key in _NUMBERS:
        if not _is_number(event.get(key)):
            yield f"`{key}` is not a number"
    for split in ("validation", "test"):
        score = event.get(split) or {"accuracy": 0.0}
        if not (isinstance(score, Mapping) and _is_number(score.get("accuracy"))):
            yield f"`{split}` has no accuracy"
        elif not all(_is_number_or_none(score.get(key)) for key in ("loss", "num_examples")):
            yield f"`{split}` has a value that is no number"
    if bool(event.get("validation")) != bool(event.get("test")):
        yield "only one of `validation` and `test` is there"
    if not isinstance(event.get("notes"), Mapping):
        yield "`notes` is not there"
    for key in ("clients_accuracy", "local_accuracy"):
        personal = event.get(key) or {"mean": 0.0}
        if not (isinstance(personal, Mapping) and _is_number(personal.get("mean"))):
            yield f"`{key}` has no mean"
    if not _is_number_or_none(event.get("loss")):
        yield "`loss` is not a number"
    for key in ("rejected", "dropped"):
        if not all(isinstance(reply, Mapping) for reply in event.get(key) or ()):
            yield f"`{key}` is not a list of replies"
    if not isinstance(event.get("clients"), list):
        yield "`clients` is not a list of clients"
    for client in event.get("clients") or ():
        if not (isinstance(client, Mapping) and isinstance(client.get("notes"), Mapping)):
            yield "`clients` is not a list of clients"
        elif wrong := [key for key in _CLIENT_NUMBERS if not _is_number(client.get(key))]:
            yield f"client {client.get('client')}: `{wrong[0]}` is not a number"


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) <= sys.float_info.max  # a whole number may be larger; NaN is not


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)
