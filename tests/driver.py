"""Runs of the toy task for tests that interrupt them, in this process or in one to be killed."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from conftest import toy_recipe

from fpcli.engine import memory
from fpcli.engine.executors.pool import start_method, warm_up
from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState
from fpcli.recipe.load import load_recipe
from fpcli.settings.recipes import FitRecipe
from fpcli.store import events
from fpcli.store.checkpoint import dump_state, load_newest
from fpcli.store.run_folder import RunFolder
from fpcli.train import federated_run, fit_run
from fpcli.train.run_session import Interrupted
from fpcli.train.setup import Setup

LONG: dict[str, Any] = {"rounds": 6, "checkpoint_every": 2}


class Listener:
    """A watcher that collects, and may do something after each round."""

    def __init__(self, after: Callable[[int], None] = lambda round: None) -> None:
        self.rounds: list[int] = []
        self.messages: list[str] = []
        self._after = after

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        self._after(state.round)

    def round(self, record: RoundRecord) -> None:
        self.rounds.append(record.round)
        self._after(record.round)

    def message(self, text: str) -> None:
        self.messages.append(text)


class FitListener(Listener):
    """The same for plain training."""

    def start(  # type: ignore[override]
        self, setup: fit_run.FitSetup, folder: Path, state: ServerState
    ) -> None:
        self._after(state.round)

    def round(self, record: fit_run.EpochRecord) -> None:  # type: ignore[override]
        self.rounds.append(record.epoch)
        self._after(record.epoch)


def digits_file(folder: Path) -> str:
    """Write the digits to a file, which loads faster than the library that brings them."""
    from sklearn.datasets import load_digits

    path = folder / "digits.npz"
    if not path.exists():
        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8).astype(np.uint8)
        order = np.random.default_rng(0).permutation(len(labels))[:600]
        train, test = order[:500], order[500:]
        np.savez(
            path,
            train_images=images[train], train_labels=labels[train],
            test_images=images[test], test_labels=labels[test],
        )  # fmt: skip
    return f"npz:{path}"


def begin(runs: Path, name: str, method: str, watcher: Any = None, **changes: Any) -> Any:
    """Start a run and return its summary."""
    recipe = toy_recipe(method, **changes)
    return federated_run.play_federated(
        recipe, RunFolder.create(runs, name, recipe), watcher or Listener()
    )


def go_on(runs: Path, name: str, watcher: Any = None, force: bool = False, **changes: Any) -> Any:
    """Resume a run, with changes to its recipe, and return its summary."""
    folder = RunFolder.open(runs / name)
    stored = load_recipe(folder.recipe, flags=_code(folder))
    flags = {key.replace("__", "."): value for key, value in changes.items()}
    recipe = load_recipe(folder.recipe, flags=_code(folder) | flags)
    return federated_run.play_federated(
        recipe, folder, watcher or Listener(), stored=stored, force=force
    )


def fit(runs: Path, name: str, watcher: Any = None, **changes: Any) -> Any:
    """Start a plain training of the toy network and return its summary."""
    toy = {
        "task.data": digits_file(runs),
        "task.model": "nets:tiny",
        "fit.epochs": 4,
        "fit.batch_size": 64,
        "fit.lr": 0.05,
        "threads": 1,
        "seed": 7,
    }
    flags = toy | {key.replace("__", "."): value for key, value in changes.items()}
    recipe = load_recipe(None, flags=flags, cls=FitRecipe)
    folder = RunFolder.create(runs, name, recipe)
    return fit_run.play_fit(recipe, folder, watcher or FitListener())


def fit_on(runs: Path, name: str, watcher: Any = None, force: bool = False, **changes: Any) -> Any:
    """Resume a plain training, with changes to its recipe, and return its summary."""
    folder = RunFolder.open(runs / name)
    model = re.search("nets:[a-z]+", folder.recipe.read_text())
    code = {"task.model": model[0]} if model else {}
    stored = load_recipe(folder.recipe, flags=code, cls=FitRecipe)
    flags = code | {key.replace("__", "."): value for key, value in changes.items()}
    recipe = load_recipe(folder.recipe, flags=flags, cls=FitRecipe)
    return fit_run.play_fit(recipe, folder, watcher or FitListener(), stored=stored, force=force)


def _code(folder: RunFolder) -> dict[str, str]:
    """Return what a recipe file may not name: method and network of the tests."""
    text = folder.recipe.read_text("utf-8", errors="replace")
    found = {"task.model": "nets:tiny"}
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "name" and ":" in value:
            found["method.name"] = value
    return found


def newest(runs: Path, name: str) -> Any:
    """Return the state in the newest checkpoint as plain data and bytes."""
    from fpcli import plugins
    from fpcli.recipe.load import digest_recipe

    folder = RunFolder.open(runs / name)
    recipe = load_recipe(folder.recipe, flags=_code(folder))
    state_type = plugins.lookup("methods", recipe.method.name).State
    state, extra, _ = load_newest(
        folder.path, method_state=state_type, digest=digest_recipe(recipe)
    )
    data, tensors = dump_state(state)
    extra["totals"].pop("real_s")
    del extra["events"]  # they hold measured seconds too
    return data, extra, {key: value.numpy().tobytes() for key, value in tensors.items()}


def history(runs: Path, name: str) -> list[Any]:
    """Return a run's events without the measured seconds."""
    found = events.read_events(runs / name / "events.jsonl")
    for event in found:
        event.pop("real_s")
        for client in event["clients"]:
            client.pop("real_s")
    return found


def memories(runs: Path, name: str) -> dict[str, dict[str, bytes]]:
    """Return what the clients can recall in any round that may be played from a checkpoint.

    A crash while old versions are deleted may leave one that nobody asks for again.
    """
    rounds = [int(path.name[6:]) for path in (runs / name / "checkpoints").glob("round-*")]
    older, newer = sorted(rounds)[-2:]
    found = {}
    for client, before in itertools.product(range(4), range(older + 1, newer + 2)):
        tensors = memory.recall(runs / name / "memory", client, "model", before)
        found[f"{client} before {before}"] = {k: x.numpy().tobytes() for k, x in tensors.items()}
    return found


def everything(runs: Path, name: str) -> Any:
    """Return all that must not depend on interruptions."""
    final = (runs / name / "final" / "model.safetensors").read_bytes()
    return newest(runs, name), history(runs, name), memories(runs, name), final


def checkpoints(runs: Path) -> list[str]:
    """Return the names of the checkpoints of the run called `run`."""
    return sorted(path.name for path in (runs / "run" / "checkpoints").iterdir())


def assert_same(found: Any, expected: Any) -> None:
    """Compare two results of `everything` part by part, for the sake of the message."""
    for one, other in zip(found, expected, strict=True):
        assert one == other


def leftovers(runs: Path, name: str) -> list[str]:
    """Return unfinished files and folders."""
    return [
        str(path)
        for path in (runs / name).rglob("*")
        if path.name.endswith((".tmp", ".old", ".partial"))
    ]


def spawn(runs: Path, name: str, method: str, **options: Any) -> tuple[BaseProcess, Connection]:
    """Start or resume a run in another process.

    Args:
        method: ``fit`` for plain training.

    Returns:
        The process, and a pipe on which it sends its round whenever one is done; 0 is the start.
    """
    warm_up()
    context = multiprocessing.get_context(start_method())
    ours, theirs = context.Pipe()
    process = context.Process(  # type: ignore[attr-defined]
        target=_main, args=(theirs, runs, name, method, options)
    )
    process.start()
    theirs.close()
    return process, ours


def dies(number: int, action: Callable[[], Any]) -> bool:
    """Do something that computes nothing in a process that is killed before a file operation.

    Args:
        number: of the operation, counted from 1.

    Returns:
        Whether it came so far; otherwise the action was finished.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the child does not use
        child = os.fork()
    if not child:
        try:
            _die_at(number)
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return bool(code)


def _main(pipe: Connection, runs: Path, name: str, method: str, options: dict[str, Any]) -> None:
    os.setsid()
    federated_run.draw_run = fit_run.draw_fit = lambda history, folder: []
    die_at = options.pop("die_at", None)

    def tell(round: int) -> None:
        with contextlib.suppress(OSError):
            pipe.send(round)

    if die_at is not None:
        _die_at(die_at)
    is_new = not (runs / name / "recipe.yaml").exists()
    try:
        if method == "fit":
            (fit if is_new else fit_on)(runs, name, FitListener(tell), **options)
        elif is_new:
            begin(runs, name, method, Listener(tell), **options)
        else:
            go_on(runs, name, Listener(tell), **options)
    except Interrupted as error:
        pipe.send(f"interrupted by {error.number} after round {error.round}")
        raise SystemExit(128 + error.number) from None


def _die_at(number: int) -> None:
    """Kill this process just before the file operation of that number."""
    count = 0

    def dying(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **keywords)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))
