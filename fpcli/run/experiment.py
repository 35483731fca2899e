"""One run from its recipe to its final model: drains the engine's rounds into the run folder."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from fpcli.engine import memory, server
from fpcli.engine.federation import RoundRecord, Totals
from fpcli.engine.process import settle
from fpcli.engine.trained import DataKey, Trained
from fpcli.engine.types import ServerState
from fpcli.errors import FpError, ResumeError
from fpcli.recipe.load import differences, digest
from fpcli.recipe.schema import Recipe
from fpcli.report.plots import draw_run
from fpcli.run import checkpoint, events
from fpcli.run.folder import RunFolder
from fpcli.run.setup import Setup, open_executor, prepare
from fpcli.run.summary import Summary, state_sha256, to_event
from fpcli.run.trained import write_trained
from fpcli.structure.cost import cost


class Watcher(Protocol):
    """Is told what happens while a run goes on; the terminal display is one."""

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        """Called once when everything is built."""

    def round(self, record: RoundRecord) -> None:
        """Called after every round."""

    def message(self, text: str) -> None:
        """Called with warnings and remarks, one line each."""


@dataclass
class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was stopped by a signal and can be continued.

    Attributes:
        number: of the signal.
        round: the newest checkpoint's.
    """

    number: int
    round: int
    folder: Path


@dataclass
class _Stop:
    """Whether a signal has asked the run to stop."""

    watcher: Watcher
    number: int = 0
    is_playing: bool = False
    """True while a round is played; only then may a second signal break in."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number and self.is_playing:
            raise KeyboardInterrupt
        if not self.number:
            self.watcher.message("stopping after this round (again to stop now)")
        self.number = number


def start(
    recipe: Recipe, folder: RunFolder, watcher: Watcher, *, command: tuple[str, ...] = ()
) -> Summary:
    """Train a new run in a fresh folder.

    Raises:
        Interrupted: by a signal, after a checkpoint.
        FpError: anything that a user can mend.
    """
    with folder.lock():
        folder.write_recipe(recipe)
        folder.add_command(command)
        folder.write_environment()
        return _run(prepare(recipe, folder.path / "memory"), folder, watcher, resumed=None)


def resume(
    recipe: Recipe,
    stored: Recipe,
    folder: RunFolder,
    watcher: Watcher,
    *,
    command: tuple[str, ...] = (),
    force: bool = False,
) -> Summary:
    """Continue a run from its newest valid checkpoint, or from the start if it never had one.

    Args:
        recipe: how to continue; it may differ from ``stored`` in what decides no bits.
        force: continue with a recipe that differs in more.

    Raises:
        ResumeError: no checkpoint is valid, or the recipe differs.
    """
    with folder.lock():
        if digest(recipe) != digest(stored) and not force:
            changed = ", ".join(
                f"{key}: {old} -> {new}" for key, (old, new) in differences(stored, recipe).items()
            )
            raise ResumeError(
                f"{folder.path} was started with another recipe ({changed})",
                hint="--force continues with the new one",
            )
        setup = prepare(recipe, folder.path / "memory")
        state_type = setup.fed.method.State
        resumed = None
        if any(folder.checkpoints.glob("round-*")):
            state, extra, warnings = checkpoint.load_newest(
                folder.path, method_state=state_type, digest=digest(stored)
            )
            for text in warnings:
                watcher.message(f"warning: {text}")
            _check_fits(setup, state)
            resumed = (state, Totals(**extra["totals"]))
            if digest(recipe) != digest(stored):  # the older ones fit the new recipe no longer
                _checkpoint(setup, folder, *resumed)
        folder.write_recipe(recipe)
        folder.add_command(command)
        events.truncate_after(folder.events, resumed[0].round if resumed else -1)
        if setup.site.home.exists():
            memory.rewind(setup.site.home, resumed[0].round if resumed else -1)
        return _run(setup, folder, watcher, resumed=resumed)


def _check_fits(setup: Setup, state: ServerState) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.values.items()}
    if shapes != {name: spec.shape for name, spec in setup.fed.layout.tensors.items()}:
        raise ResumeError(
            "the checkpoint's tensors do not fit the model",
            hint="was the model's code changed since the run started?",
        )


def _run(
    setup: Setup,
    folder: RunFolder,
    watcher: Watcher,
    resumed: tuple[ServerState, Totals] | None,
) -> Summary:
    settle()
    executor, description = open_executor(setup)
    try:
        with _signals(watcher) as stop:
            if resumed is None:
                state, totals = server.begin(setup.fed, setup.values, executor)
                _checkpoint(setup, folder, state, totals)
            else:
                state, totals = resumed
            watcher.start(setup, folder.path, description, state)
            state, totals = _rounds(setup, folder, watcher, executor, state, totals, stop)
        return _finish(setup, folder, state, totals)
    finally:
        executor.close()


def _rounds(
    setup: Setup,
    folder: RunFolder,
    watcher: Watcher,
    executor: server.Executor,
    state: ServerState,
    totals: Totals,
    stop: _Stop,
) -> tuple[ServerState, Totals]:
    recipe, saved = setup.recipe, state.round
    rounds = server.play(setup.fed, state, executor, totals)
    try:
        while not _is_reached(totals, recipe) and (played := _next(rounds, stop)):
            new, record = played
            events.append(folder.events, to_event(record))
            # Not before, so that no checkpoint is of a round whose event is missing.
            state, totals = new, record.totals
            watcher.round(record)
            number, is_reached = stop.number, _is_reached(totals, recipe)
            is_last = is_reached or state.round >= recipe.rounds
            if is_last or number or state.round % recipe.checkpoint_every == 0:
                _checkpoint(setup, folder, state, totals)
                saved = state.round
            if is_reached:
                watcher.message(
                    f"validation accuracy reached {recipe.target_accuracy:.1%} "
                    f"in round {state.round}"
                )
            if number and not is_last:
                raise Interrupted(number, saved, folder.path)
    except (KeyboardInterrupt, FpError) as error:
        if state.round > saved:
            _checkpoint(setup, folder, state, totals)
            saved = state.round
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(stop.number or signal.SIGINT, saved, folder.path) from None
        raise
    return state, totals


def _next(
    rounds: Iterator[tuple[ServerState, RoundRecord]], stop: _Stop
) -> tuple[ServerState, RoundRecord] | None:
    stop.is_playing = True
    try:
        return next(rounds, None)
    finally:
        stop.is_playing = False


def _is_reached(totals: Totals, recipe: Recipe) -> bool:
    return recipe.target_accuracy is not None and totals.best_validation >= recipe.target_accuracy


def _checkpoint(setup: Setup, folder: RunFolder, state: ServerState, totals: Totals) -> None:
    checkpoint.save(
        folder.path, state, digest=digest(setup.recipe), extra={"totals": asdict(totals)}
    )
    if setup.site.home.exists():
        oldest = min(int(path.name[6:]) for path in folder.checkpoints.glob("round-*"))
        memory.prune(setup.site.home, oldest)


@contextmanager
def _signals(watcher: Watcher) -> Iterator[_Stop]:
    """Turn the first SIGINT or SIGTERM into a wish to stop, and a second one into an exception."""
    stop = _Stop(watcher)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(setup: Setup, folder: RunFolder, state: ServerState, totals: Totals) -> Summary:
    """Write the final model, the figures and the checksums, and return the summary."""
    fed = setup.fed
    history = events.read(folder.events)
    folder.final.mkdir(exist_ok=True)
    task = setup.recipe.task
    write_trained(
        folder.final,
        Trained(
            model=task.model,
            template=fed.template,
            layout=fed.layout,
            support=state.support,
            values=state.values,
            input_shape=tuple(fed.dataset.input_shape),
            num_classes=fed.dataset.num_classes,
            data=DataKey(task.data, task.validation_fraction, fed.seed),
        ),
    )
    draw_run(history, folder.path)
    folder.write_checksums()
    size = cost(fed.layout, state.support)
    last = next((event["test"] for event in reversed(history) if event.get("test")), None)
    personal = next(
        (e["clients_accuracy"] for e in reversed(history) if "clients_accuracy" in e), None
    )
    return Summary(
        run=str(folder.path),
        method=fed.method_name,
        rounds=state.round,
        clients=len(fed.num_examples),
        seed=fed.seed,
        accuracy=last["accuracy"] if last else 0.0,
        best_accuracy=totals.best_accuracy,
        loss=last["loss"] if last else 0.0,
        down_bytes=totals.down_bytes,
        up_bytes=totals.up_bytes,
        clock_s=totals.clock_s,
        real_s=totals.real_s,
        params=size.params,
        macs=size.macs,
        state_sha256=state_sha256(state.values),
        clients_accuracy=personal,
    )
