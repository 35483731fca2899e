"""One run from its recipe to its final model: drains the engine's rounds into the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fpcli.engine import memory, server
from fpcli.engine.federation import RoundRecord, Totals
from fpcli.engine.process import settle_process
from fpcli.engine.types import ServerState
from fpcli.recipe.idle import find_idle
from fpcli.report.plots import draw_run
from fpcli.settings.recipes import Recipe
from fpcli.store import events
from fpcli.store.model_folder import write_trained
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import count_cost
from fpcli.train.kernels import add_kernels
from fpcli.train.open_executor import open_executor
from fpcli.train.run_session import Interrupted, Listener, Place, RunSession, check_recipe
from fpcli.train.run_summary import Summary, round_to_event, state_sha256, summarise_clients
from fpcli.train.setup import Setup, prepare_run


class RunListener(Listener[RoundRecord], Protocol):
    """Is told what happens while a run goes on; the terminal display is one."""

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        """Called once when everything is built."""


def play_federated(
    recipe: Recipe,
    folder: RunFolder,
    watcher: RunListener,
    *,
    stored: Recipe | None = None,
    command: tuple[str, ...] = (),
    force: bool = False,
    is_part: bool = False,
) -> Summary:
    """Train in a run's folder, from its newest valid checkpoint, or from the start if it never had
    one.

    Args:
        recipe: how to go on; it may differ from ``stored`` in what decides no bits.
        stored: recipe that the run was begun with, if that is another one.
        force: continue with a recipe that differs in more; play all rounds again where no
            checkpoint is valid.
        is_part: more is to follow, so that a signal in the last round counts too; the run is
            finished before `Interrupted` is raised.

    Raises:
        Interrupted: by a signal, after a checkpoint.
        ResumeError: no checkpoint is valid, or the recipe differs.
        FpError: anything else that a user can mend.
    """
    stored = stored or recipe
    with folder.lock():
        if not force:
            check_recipe(folder, recipe, stored)
        setup = prepare_run(recipe, folder.memory)
        session = _session(setup, folder, watcher)
        layout, state_type = setup.fed.layout, setup.fed.method.State
        place = session.go_on(stored, command, layout, state_type, force=force)
        if setup.site.home.exists():
            memory.rewind(setup.site.home, place[0].round if place else -1)
        return _run(setup, session, watcher, place, is_part=is_part)


def _session(setup: Setup, folder: RunFolder, watcher: RunListener) -> RunSession[RoundRecord]:
    def forget() -> None:
        if setup.site.home.exists():
            oldest = min(int(path.name[6:]) for path in folder.checkpoints.glob("round-*"))
            memory.prune_versions(setup.site.home, oldest)

    return RunSession(folder, setup.recipe, setup.recipe.rounds, watcher, round_to_event, forget)


def _run(
    setup: Setup,
    session: RunSession[RoundRecord],
    watcher: RunListener,
    place: Place | None,
    *,
    is_part: bool,
) -> Summary:
    settle_process()
    for text in [] if is_part else find_idle(setup.recipe):
        watcher.message(f"warning: {text}")
    setup = add_kernels(setup, session.folder.path, watcher.message)
    executor, description = open_executor(setup)
    try:
        with session.signals() as stop:
            if place is None:
                place = server.begin_training(
                    setup.fed,
                    setup.values,
                    executor,
                    setup.support,
                    lambda text: watcher.message(f"warning: {text}"),
                )
                session.save(*place)
            watcher.start(setup, session.folder.path, description, place[0])
            rounds = server.play(setup.fed, place[0], executor, place[1])
            state, totals = session.play(rounds, place, stop)
        summary = _finish(setup, session.folder, state, totals)
        if is_part and stop.number:
            raise Interrupted(stop.number, state.round, session.folder.path)
        return summary
    finally:
        executor.close()


def _finish(setup: Setup, folder: RunFolder, state: ServerState, totals: Totals) -> Summary:
    """Write the final model, the figures and the checksums, and return the summary."""
    fed = setup.fed
    history = events.read_events(folder.events)
    folder.final.mkdir(exist_ok=True)
    write_trained(folder.final, setup.trained(fed.read_judged(state), state.support))
    draw_run(history, folder.path)
    folder.write_checksums()
    size = count_cost(fed.layout, state.support)
    last: dict[str, float] = next((e["test"] for e in reversed(history) if e.get("test")), {})
    personal: dict[str, dict[str, float]] = next(
        (e["personal"] for e in reversed(history) if e.get("personal")), {}
    )
    return Summary(
        run=str(folder.path),
        method=fed.method_name,
        rounds=state.round,
        clients=len(fed.num_examples),
        seed=fed.seed,
        test={name: last[name] for name in fed.dataset.task.metrics if name in last},
        best=totals.best_test,
        loss=last.get("loss", 0.0),
        personal=summarise_clients(personal),
        down_bytes=totals.down_bytes,
        up_bytes=totals.up_bytes,
        clock_s=totals.clock_s,
        real_s=totals.real_s,
        params=size.params,
        macs=size.macs,
        state_sha256=state_sha256(state.values),
    )
