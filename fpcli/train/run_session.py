"""What every kind of run does in its folder: play rounds, save, stop when asked, go on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from fpcli.engine import memory
from fpcli.engine.federation import Totals
from fpcli.engine.types import ServerState
from fpcli.errors import FpError, ResumeError
from fpcli.recipe.load import compare_recipes, digest_recipe
from fpcli.settings.metrics import describe_target
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store import checkpoint, events
from fpcli.store.run_folder import RunFolder
from fpcli.structure.layout import Layout


class Record(Protocol):
    """What is known about a finished round, or an epoch."""

    @property
    def totals(self) -> Totals:
        """Sums since the start of the run."""


_R = TypeVar("_R", bound=Record)
R_in = TypeVar("R_in", contravariant=True)

Place = tuple[ServerState, Totals]
"""Where a run stands."""


class Listener(Protocol[R_in]):
    """Is told what happens while rounds are played."""

    def round(self, record: R_in) -> None:
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
class Stop:
    """Whether a signal has asked the run to stop."""

    announce: Callable[[], None]
    number: int = 0
    is_playing: bool = False
    """True while a round is played; only then may a second signal break in."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal, and break in at the second."""
        if self.number and self.is_playing:
            raise KeyboardInterrupt
        if not self.number:
            self.announce()
        self.number = number


@dataclass(frozen=True)
class RunSession(Generic[_R]):
    """One run that is at work in its folder.

    Attributes:
        length: rounds after which it is done.
        to_event: record -> event.
        after_save: is called after every checkpoint.
        unit: what a round is called.
    """

    folder: RunFolder
    recipe: Recipe | FitRecipe
    length: int
    watcher: Listener[_R]
    to_event: Callable[[_R], Mapping[str, Any]]
    after_save: Callable[[], None] = lambda: None
    unit: str = "round"

    def save(self, state: ServerState, totals: Totals) -> None:
        """Write a checkpoint."""
        extra = {
            "totals": asdict(totals),
            "events": events.digest_events(self.folder.events, state.round),
            "memory": memory.list_versions(self.folder.memory, state.round),
        }
        checkpoint.save_checkpoint(
            self.folder.path, state, digest=digest_recipe(self.recipe), extra=extra
        )
        self.after_save()

    def go_on(
        self,
        stored: Recipe | FitRecipe,
        command: Sequence[str],
        layout: Layout,
        state_type: type | None,
        *,
        force: bool = False,
    ) -> Place | None:
        """Return where a run of the recipe ``stored`` stands, and let the folder be that of one
        which goes on from there; None if it starts anew.

        Args:
            force: start anew where there is none.

        Raises:
            ResumeError: there is none, it is of another model, or all were deleted.
            DataError: the events cannot be read.
        """
        place = self._load(stored, layout, state_type, force=force)
        begin_folder(self.folder, self.recipe, command)
        aside = events.keep(self.folder.events, place[0].round if place else 0)
        if aside:
            self.watcher.message(f"warning: damaged events are kept as {aside}")
        return place

    def _load(
        self,
        stored: Recipe | FitRecipe,
        layout: Layout,
        state_type: type | None,
        *,
        force: bool,
    ) -> Place | None:
        """Return the newest checkpoint that is whole, as are the events up to it."""
        checkpoint.check_kept(self.folder)
        sound = events.find_sound(self.folder.events)
        if not (sound.rounds or any(self.folder.checkpoints.glob("round-*"))):
            return None
        try:
            state, extra, warnings = checkpoint.load_newest(
                self.folder.path,
                method_state=state_type,
                digest=digest_recipe(stored),
                events=sound,
            )
            memory.check_versions(self.folder.memory, extra["memory"])
        except ResumeError as error:
            if not force:
                raise
            self.watcher.message(f"warning: {error.message}; all {self.unit}s are played again")
            return None
        for text in warnings:
            self.watcher.message(f"warning: {text}")
        _check_fits(layout, state)
        totals = Totals.read(extra["totals"])
        if digest_recipe(self.recipe) != digest_recipe(
            stored
        ):  # the older ones fit the new recipe no longer
            self.save(state, totals)
        return state, totals

    def play(self, rounds: Iterator[tuple[ServerState, _R]], place: Place, stop: Stop) -> Place:
        """Drain ``rounds`` into the folder until the run is done.

        Args:
            rounds: gives the state after each round, and the record of the round.
            place: where the run stands; it has a checkpoint.
            stop: see :meth:`signals`.

        Raises:
            Interrupted: by a signal, after a checkpoint.
            FpError: a round failed; the rounds before it have a checkpoint.
        """
        (state, totals), saved = place, place[0].round
        try:
            while not self._is_reached(totals) and (played := _next(rounds, stop)):
                new, record = played
                events.append(self.folder.events, self.to_event(record))
                # Not before, so that no checkpoint is of a round whose event is missing.
                state, totals = new, record.totals
                self.watcher.round(record)
                number, is_reached = stop.number, self._is_reached(totals)
                is_last = is_reached or state.round >= self.length
                if is_last or number or state.round % self.recipe.checkpoint_every == 0:
                    self.save(state, totals)
                    saved = state.round
                if is_reached:
                    reached = describe_target(self.recipe.target)
                    self.watcher.message(
                        f"validation data: {reached} reached in {self.unit} {state.round}"
                    )
                if number and not is_last:
                    raise Interrupted(number, saved, self.folder.path)
        except (KeyboardInterrupt, FpError) as error:
            if state.round > saved:
                self.save(state, totals)
                saved = state.round
            if isinstance(error, KeyboardInterrupt):
                number = stop.number or signal.SIGINT
                raise Interrupted(number, saved, self.folder.path) from None
            raise
        return state, totals

    def _is_reached(self, totals: Totals) -> bool:
        return bool(self.recipe.target) and totals.reaches(self.recipe.target)

    @contextmanager
    def signals(self) -> Iterator[Stop]:
        """Turn the first SIGINT or SIGTERM into a wish to stop, a second one into an exception."""
        text = f"stopping after this {self.unit} (again to stop now)"
        stop = Stop(lambda: self.watcher.message(text))
        if threading.current_thread() is not threading.main_thread():
            yield stop
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _next(rounds: Iterator[tuple[ServerState, _R]], stop: Stop) -> tuple[ServerState, _R] | None:
    stop.is_playing = True
    try:
        return next(rounds, None)
    finally:
        stop.is_playing = False


def begin_folder(folder: RunFolder, recipe: Recipe | FitRecipe, command: Sequence[str]) -> None:
    """Say in a run's folder what it is a run of, on what it runs, and who asked for it."""
    folder.write_recipe(recipe)
    folder.add_command(command)
    folder.write_environment()


def check_recipe(folder: RunFolder, recipe: Recipe | FitRecipe, stored: Recipe | FitRecipe) -> None:
    """Check that a run of the recipe ``stored`` may go on with another one.

    Raises:
        ResumeError: they differ in what decides bits.
    """
    if digest_recipe(recipe) != digest_recipe(stored):
        changed = ", ".join(
            f"{key}: {old} -> {new}" for key, (old, new) in compare_recipes(stored, recipe).items()
        )
        raise ResumeError(
            f"{folder.path} was started with another recipe ({changed})",
            hint="--force continues with the new one",
        )


def _check_fits(layout: Layout, state: ServerState) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.values.items()}
    if shapes != {name: spec.shape for name, spec in layout.tensors.items()}:
        raise ResumeError(
            "the checkpoint's tensors do not fit the model",
            hint="was the model's code changed since the run started?",
        )
