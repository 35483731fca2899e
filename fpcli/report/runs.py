"""Find and read what commands leave, as plain data: settings, rounds, and what they add up to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from fpcli.errors import DataError, ResumeError
from fpcli.recipe.load import NOT_IN_DIGEST, choose_command, read_stored
from fpcli.report.event_checks import (
    OF_MODEL,
    OF_ROUND,
    find_problems,
    has_metrics_only,
    is_finite_number,
    is_number_or_none,
)
from fpcli.report.run_settings import fill_defaults
from fpcli.report.trials import read_search
from fpcli.settings.metrics import find_metric, list_metrics
from fpcli.store import events
from fpcli.store.run_folder import RunFolder, list_runs

Event = Mapping[str, Any]

UNIMPORTANT = NOT_IN_DIGEST - {"rounds", "target"}
"""Settings that change nothing that is compared: where a run computes and what it keeps."""


@dataclass(frozen=True)
class Run:
    """One run of `fp train` or `fp fit`, finished or not, or one result of `fp prune`.

    Attributes:
        settings: dotted key -> value of its resolved recipe.
        rounds: its round events, in order; the epochs of `fp fit`; of a pruning one, its end after
            as many epochs of retraining. Bytes and the clock are those of `fp train` only.
        trials: of the shares of channels that `fp unlearn` tried, see `unlearn.ratio_search`.
        before: the model before a pruning, as an event.
        latency_ms: images at once -> milliseconds, where `fp prune` measured them.
        latency_before_ms: the same of the model before the pruning.
        source: name of what was pruned, where it is known.
        source_seed: the seed that this was trained with.
    """

    path: Path
    settings: Mapping[str, Any]
    rounds: tuple[Event, ...]
    trials: tuple[Mapping[str, Any], ...] = ()
    before: Event | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    latency_before_ms: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    source_seed: int | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.resolve().name

    @property
    def method(self) -> str:
        """The name of its method; `fit` for plain training."""
        return str(self.settings.get("method.name", "fit" if self.command == "fit" else ""))

    @cached_property
    def command(self) -> str:
        """The command that left it: `train`, `fit` or `prune`."""
        return choose_command(self.settings)

    @property
    def data(self) -> str:
        """The name of its data set."""
        return str(self.important.get("task.data"))

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.settings.get("seed") or 0)

    @cached_property
    def important(self) -> dict[str, Any]:
        """The settings that may change a result, defaults included, without the seed."""
        filled = fill_defaults(self.settings)
        if self.source:
            filled["source"] = self.source.removesuffix(f"-s{self.source_seed}")
        return {k: v for k, v in filled.items() if k not in UNIMPORTANT | {"seed"}}

    @property
    def file_bytes(self) -> int | None:
        """Bytes of the file of its model, and of its masks; None if there is none."""
        folder = self.path if self.command == "prune" else RunFolder(self.path).final
        files = [folder / "model.safetensors", folder / "mask.safetensors"]
        sizes = [file.stat().st_size for file in files if file.is_file()]
        return sum(sizes) if sizes else None

    @cached_property
    def judged(self) -> tuple[Event, ...]:
        """The rounds in which the model was evaluated."""
        return tuple(event for event in self.rounds if event.get("validation"))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that judge its model, the primary one first; empty before its
        first evaluation."""
        return list_metrics(self.judged[0]["test"]) if self.judged else ()

    @cached_property
    def best(self) -> Event | None:
        """The round with the best validation value of the primary metric, the first of equals."""
        best = None
        for event in self.judged:
            value = event["validation"].get(self.metrics[0])
            of_best = best and best["validation"][self.metrics[0]]
            if value is not None and find_metric(self.metrics[0]).exceeds(value, of_best):
                best = event
        return best

    def find_reaching(self, target: Mapping[str, float]) -> Event | None:
        """Return the first round by which validation metrics had been as good as targets, each in
        some round."""
        left = dict(target)
        for event in self.judged:
            for name, wanted in [*left.items()]:
                value = event["validation"].get(name)
                if value is not None and find_metric(name).reaches(value, wanted):
                    del left[name]
            if not left:
                return event
        return None

    @cached_property
    def real_s(self) -> dict[int, float]:
        """Measured seconds from the start of the run to the end of each round."""
        sums = accumulate(event["real_s"] for event in self.rounds)
        return dict(zip((event["round"] for event in self.rounds), sums, strict=True))

    def problem(self) -> str:
        """Say in a few words what the run lacks to be complete; empty for a finished run."""
        unit, key = ("epoch", "fit.epochs") if self.command == "fit" else ("round", "rounds")
        if not self.rounds:
            return f"has no {unit} yet"
        last, wanted = self.rounds[-1]["round"], self.settings.get(key)
        target = self.settings.get("target")
        is_reached = target and self.find_reaching(target)
        if wanted and last < wanted and not is_reached:
            return f"is unfinished: {last} of {wanted} {unit}s"
        return "" if self.judged else "was never evaluated"


def find_runs(words: Sequence[Path], runs_dir: Path) -> list[Run]:
    """Read runs, each once, in the order in which they were named.

    Args:
        words: folders of runs or of results of `fp prune`, folders that hold such folders, or names
            of runs in ``runs_dir``.

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
    inside = list_runs(path)
    if inside and not (path / "recipe.yaml").is_file():
        return inside
    try:
        return [RunFolder.open(path).path]
    except ResumeError as error:  # nothing is to be resumed here
        raise DataError(error.message, hint=error.hint, where=error.where) from error


def read_run(path: Path) -> Run:
    """Read one run's folder, which may be in use, or the folder of a pruning.

    Raises:
        RecipeError: its recipe cannot be read.
        DataError: its events, its report, or the shares that it tried, cannot be read.
    """
    folder = RunFolder(path)
    settings = read_stored(folder.recipe)
    for key in ("seed", "rounds", "fit.epochs"):
        if not is_number_or_none(settings.get(key)):
            raise _foreign(folder.recipe, f"`{key}` is not a number")
    if not has_metrics_only(settings.get("target") or {}):
        raise _foreign(folder.recipe, "`target` is not a mapping of metrics to numbers")
    command = choose_command(settings)
    if command == "prune":
        return _read_pruning(path, settings)
    history = events.read_events(folder.events)
    if command == "fit":
        rounds = [_as_round(event) for event in history if event.get("event") == "epoch"]
    else:
        rounds = [event for event in history if event.get("event") == "round"]
    _check(folder.events, rounds, OF_MODEL if command == "fit" else OF_ROUND)
    search = read_search(path) or {"trials": ()}
    return Run(path, settings, tuple(rounds), tuple(search["trials"]))


def _as_round(event: Event, **more: Any) -> Event:
    """Return what happened without clients as an event of a round."""
    return {**event, "notes": {}, "clients": [], **more}


def _check(path: Path, rounds: Iterable[Event], numbers: Sequence[str]) -> None:
    for event in rounds:
        for problem in find_problems(event, numbers):
            raise _foreign(path, f"{event.get('event')} {event.get('round')}: {problem}")


def _read_pruning(path: Path, settings: Mapping[str, Any]) -> Run:
    file = path / "history.jsonl"
    history = events.read_events(file)
    stages = {event.get("event"): event for event in history}
    if not {"before", "after"} <= stages.keys():
        raise _foreign(file, "the model before or after the pruning is missing")
    epochs = [event for event in history if event.get("event") == "epoch"]
    if not all(is_finite_number(event.get("real_s")) for event in epochs):
        raise _foreign(file, "epoch: `real_s` is not a number")
    before = _as_round(stages["before"], round=0, real_s=0.0)
    real_s = sum(event["real_s"] for event in epochs)
    after = _as_round(stages["after"], round=len(epochs), real_s=real_s)
    _check(file, (before, after), OF_MODEL)
    report, layout = (_read_mapping(path / name) for name in ("report.json", "layout.json"))
    source, seed = report.get("source", ""), (layout.get("data") or {}).get("seed")
    if not isinstance(source, str) or not is_number_or_none(seed):
        raise _foreign(path, "the name or the seed of what was pruned is none")
    latency = report.get("latency_ms") or {}
    old, new = (latency.get(stage, {}) for stage in ("before", "after"))
    for times in (old, new):
        if not isinstance(times, Mapping) or not all(map(is_finite_number, times.values())):
            raise _foreign(path / "report.json", "`latency_ms` has a value that is no number")
    return Run(path, settings, (after,), (), before, new, old, source, seed)


def _read_mapping(path: Path) -> dict[str, Any]:
    """Return a JSON object with sections, or {} where there is no such file."""
    try:
        content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise _foreign(path, str(error)) from error
    sections = ("latency_ms", "data")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key) or {}, Mapping) for key in sections
    ):
        raise _foreign(path, "not an object as it was written")
    return content


def _foreign(path: Path, problem: str) -> DataError:
    hint = "was the file changed, or written by another version of fpcli?"
    return DataError(f"{path}: {problem}", hint=hint, where=str(path))
