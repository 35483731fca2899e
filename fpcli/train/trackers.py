"""Feed a run's rounds to TensorBoard or Weights & Biases; neither can stop the run.

Both get what ``events.jsonl`` holds, as scalars over rounds, and the recipe. Off by default.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState
from fpcli.errors import NeedError, UsageError, suggest
from fpcli.files import write_atomic
from fpcli.recipe.load import flatten, to_yaml
from fpcli.settings.recipes import Recipe
from fpcli.store.run_folder import RunFolder
from fpcli.train.federated_run import RunListener
from fpcli.train.run_summary import round_to_event, summarise_clients
from fpcli.train.setup import Setup

_PLAIN = {
    "loss": "train/loss",
    "total_down_bytes": "traffic/down_bytes",
    "total_up_bytes": "traffic/up_bytes",
    "clock_s": "time/clock_s",
    "real_s": "time/round_real_s",
    "params": "model/params",
    "macs": "model/macs",
    "coverage": "model/coverage",
}
"""Key of an event -> name of its curve."""


class Tracker(Protocol):
    """Somewhere that curves go."""

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Add one point to every curve."""

    def close(self) -> None:
        """Write what is still in memory."""


def check_trackers(words: str) -> tuple[str, ...]:
    """Return the trackers of a list with commas.

    Raises:
        UsageError: one is not known.
        NeedError: one is not installed.
    """
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in TRACKERS:
            hint = suggest(name, TRACKERS) or f"known: {', '.join(TRACKERS)}"
            raise UsageError(f"--track: unknown tracker `{name}`", hint=hint, where="--track")
        # A folder of that name, which W&B leaves behind, can be imported but has no origin.
        if getattr(find_spec(name), "origin", None) is None:
            raise NeedError(
                f"--track {name} needs a package that is not installed",
                hint=f"`pip install 'fpcli[{name}]'`",
                where="--track",
            )
    return names


@contextmanager
def track_run(
    names: Sequence[str], watcher: RunListener, recipe: Recipe, folder: RunFolder
) -> Iterator[RunListener]:
    """Yield a watcher that tells ``watcher`` everything, and the trackers every round."""
    if not names:
        yield watcher
        return
    tracked = _Tracked(watcher, names, recipe, folder)
    try:
        yield tracked
    finally:
        tracked.close()


def collect_scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a round's event by the names of their curves.

    >>> test = {"accuracy": 0.9, "loss": float("nan")}
    >>> collect_scalars({"loss": 0.5, "test": test, "notes": {"a": 1}})
    {'train/loss': 0.5, 'test/accuracy': 0.9, 'notes/a': 1}
    """
    numbers: dict[str, Any] = {name: event.get(key) for key, name in _PLAIN.items()}
    for split in ("test", "validation"):
        score = event.get(split) or {}
        numbers |= {f"{split}/{key}": x for key, x in score.items() if key != "num_examples"}
    for metric, summary in summarise_clients(event.get("personal") or {}).items():
        numbers |= {f"clients/{metric}/{key}": value for key, value in summary.items()}
    for key, note in event["notes"].items():
        parts = note if isinstance(note, Mapping) else {"": note}
        numbers |= {f"notes/{key}/{part}".rstrip("/"): value for part, value in parts.items()}
    ratios = [client["notes"].get("ratio") for client in event.get("clients", ())]
    if finite := [ratio for ratio in ratios if _is_finite(ratio)]:
        numbers |= {
            "ratio/mean": statistics.fmean(finite),
            "ratio/min": min(finite),
            "ratio/max": max(finite),
        }
    return {name: value for name, value in numbers.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass
class _Tracked:
    """Tells a watcher and trackers; a tracker that fails is left out from then on."""

    _watcher: RunListener
    _names: Sequence[str]
    _recipe: Recipe
    _folder: RunFolder
    _trackers: dict[str, Tracker] = field(default_factory=dict)

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        self._watcher.start(setup, folder, executor, state)
        for name in self._names:
            with self._guarded(name):
                tracker = TRACKERS[name](self._folder.path, self._recipe, state.round)
                self._trackers[name] = tracker

    def round(self, record: RoundRecord) -> None:
        self._watcher.round(record)
        numbers = collect_scalars(round_to_event(record))
        for name, tracker in list(self._trackers.items()):
            with self._guarded(name):
                tracker.log(record.round, numbers)

    def message(self, text: str) -> None:
        self._watcher.message(text)

    def close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._guarded(name):
                tracker.close()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever another package raises
            self._trackers.pop(name, None)
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._watcher.message(f"warning: {name} failed and gets no more rounds ({reason})")


class _TensorBoard:
    """Writes event files to ``tensorboard/`` in the run folder."""

    def __init__(self, folder: Path, recipe: Recipe, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an earlier process wrote of rounds that are played again is taken back.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._writer.add_text("recipe", f"```yaml\n{to_yaml(recipe)}```", done)

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, round)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Logs to a W&B run in ``wandb/`` in the run folder, offline unless WANDB_MODE is set."""

    def __init__(self, folder: Path, recipe: Recipe, done: int) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._notebook = folder / "wandb.json"
        self._last: dict[str, Any] = {"id": uuid.uuid4().hex, "round": 0}
        if done and self._notebook.exists():
            self._last |= json.loads(self._notebook.read_text("utf-8"))
        self._run = wandb.init(
            project="fpcli",
            name=folder.name,
            dir=str(folder),
            id=self._last["id"],
            resume="allow",
            config=flatten(recipe),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_meta=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        # W&B takes nothing back; a round that is played again has the same numbers anyway.
        if round <= self._last["round"]:
            return
        self._run.log({"round": round, **scalars}, step=round)
        self._last["round"] = round
        write_atomic(self._notebook, json.dumps(self._last) + "\n")

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, Recipe, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
}
"""Name, of the tracker as of its package and extra -> what opens it."""
