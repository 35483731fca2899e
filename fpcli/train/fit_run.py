"""One plain training of one model, from its recipe to its final model, in a run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from fpcli.data.augment import check_augment
from fpcli.data.datasets import Dataset
from fpcli.engine import central
from fpcli.engine.central import Momentum
from fpcli.engine.evaluate import evaluate
from fpcli.engine.federation import Totals
from fpcli.engine.placement import check_device, move_to
from fpcli.engine.process import num_cores, settle_process
from fpcli.engine.trained import DataKey, Inputs, Trained
from fpcli.engine.types import ServerState
from fpcli.errors import RecipeError
from fpcli.models.build import build
from fpcli.report.plots import draw_fit
from fpcli.settings.recipes import FitRecipe
from fpcli.store import events
from fpcli.store.model_folder import write_trained
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import Cost, count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.support import EMPTY, Support
from fpcli.tasks.learning_task import Score
from fpcli.train.client_data import load_data
from fpcli.train.run_session import Listener, Place, RunSession, check_recipe
from fpcli.train.run_summary import FitSummary, state_sha256
from fpcli.train.setup import check_target_names, trace_or_list
from fpcli.train.start_values import read_start

_MANY_MACS = 1e9


@dataclass(frozen=True, eq=False)
class FitSetup:
    """A recipe of plain training, built.

    Attributes:
        recipe: with what it left to the machine and the data written out.
        model: with its initial values, on the device that trains it.
        layout: has no channel groups if the model cannot be traced.
    """

    recipe: FitRecipe
    dataset: Dataset
    model: nn.Module
    layout: Layout
    cost: Cost


@dataclass(frozen=True)
class Carried:
    """What training carries from epoch to epoch beside the model's floating-point tensors.

    Attributes:
        counters: the model's other tensors, such as batch norm's number of batches.
    """

    momentum: Momentum = field(default_factory=Momentum)
    counters: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class EpochRecord:
    """All that is known about a finished epoch; the event stream's source.

    Attributes:
        epoch: counted from 1.
        loss: mean training loss.
        lr: learning rate of its last step.
        real_s: measured seconds, evaluation included.
    """

    epoch: int
    loss: float
    lr: float
    validation: Score
    test: Score
    real_s: float
    cost: Cost
    totals: Totals


class FitListener(Listener[EpochRecord], Protocol):
    """Is told what happens while training goes on; the terminal display is one."""

    def start(self, setup: FitSetup, folder: Path, state: ServerState) -> None:
        """Called once when everything is built."""


def prepare_fit(recipe: FitRecipe) -> FitSetup:
    """Build what a recipe describes; the same recipe gives the same bits.

    Args:
        recipe: code named as ``pkg.mod:function`` is imported and run.

    Raises:
        FpError: of many kinds; data, model or device do not exist or do not fit together.
    """
    if not recipe.fit.epochs:
        raise RecipeError("`fit.epochs` is 0: nothing would be trained", hint="`--epochs 1`")
    check_device(recipe.device, "device")
    dataset = load_data(recipe)
    check_target_names(recipe.target, dataset)
    augment = recipe.task.decide_augment()
    task = replace(recipe.task, augment=augment)
    check_augment(augment, task.data, dataset.train.images)
    model = build(task.model, dataset.input_shape, dataset.task, seed=recipe.seed, allow_code=True)
    layout = trace_or_list(model, dataset)
    start = read_start(task, model, layout, dataset, "`fp fit` trains whole models")
    model.load_state_dict(start.values, strict=False)
    dataset = replace(dataset, notes=dataset.notes + start.notes)
    size = count_cost(layout, Support())
    threads = recipe.threads or _usual_threads(size.macs * recipe.fit.batch_size)
    model = move_to(model, recipe.device, is_channels_last=True)
    return FitSetup(replace(recipe, task=task, threads=threads), dataset, model, layout, size)


def _usual_threads(step_macs: float) -> int:
    """Return how many threads train fastest, for the multiply-adds of a step's forward pass.

    Threads that wait for each other after every small operation are slower than one alone.
    """
    return num_cores() if step_macs >= _MANY_MACS else 1


def play_fit(
    recipe: FitRecipe,
    folder: RunFolder,
    watcher: FitListener,
    *,
    stored: FitRecipe | None = None,
    command: tuple[str, ...] = (),
    force: bool = False,
) -> FitSummary:
    """Train in a run's folder; arguments and errors as of ``federated_run.run_federated``."""
    stored = stored or recipe
    with folder.lock():
        if not force:
            check_recipe(folder, recipe, stored)
        setup = prepare_fit(recipe)
        length = setup.recipe.fit.epochs
        session = RunSession(folder, setup.recipe, length, watcher, epoch_to_event, unit="epoch")
        place = session.go_on(stored, command, setup.layout, Carried, force=force)
        return _run(setup, session, watcher, place)


def epoch_to_event(record: EpochRecord) -> dict[str, Any]:
    """Return an epoch's record as one flat JSON object of the event stream."""
    return {
        "format": events.EVENT_FORMAT,
        "event": "epoch",
        "round": record.epoch,
        "loss": record.loss,
        "lr": record.lr,
        "validation": record.validation.to_event(),
        "test": record.test.to_event(),
        "real_s": record.real_s,
        "params": record.cost.params,
        "macs": record.cost.macs,
    }


def _run(
    setup: FitSetup, session: RunSession[EpochRecord], watcher: FitListener, place: Place | None
) -> FitSummary:
    settle_process(setup.recipe.threads)
    with session.signals() as stop:
        if place is None:
            place = _state(setup, 0, Momentum()), Totals()
            session.save(*place)
        else:
            _fill(setup.model, place[0])
        watcher.start(setup, session.folder.path, place[0])
        state, totals = session.play(_epochs(setup, *place), place, stop)
    return _finish(setup, session.folder, state, totals)


def _state(setup: FitSetup, epoch: int, momentum: Momentum) -> ServerState:
    """Return copies of all that the model and its training hold."""
    held = {name: x.detach().cpu().clone() for name, x in setup.model.state_dict().items()}
    values = {name: held.pop(name) for name in setup.layout.tensors}
    return ServerState(epoch, values, Support(), Carried(momentum, held))


def _fill(model: nn.Module, state: ServerState) -> None:
    """Copy a state into the model, whose tensors keep their place and order in memory."""
    values = model.state_dict()
    for name, value in {**state.values, **state.method.counters}.items():
        values[name].copy_(value)


def _epochs(
    setup: FitSetup, state: ServerState, totals: Totals
) -> Iterator[tuple[ServerState, EpochRecord]]:
    """Train to the end, and yield state and record after every epoch."""
    recipe, dataset = setup.recipe, setup.dataset
    carried: Carried = state.method
    trained = central.train_centrally(
        setup.model,
        dataset,
        recipe.fit,
        seed=recipe.seed,
        done=state.round,
        momentum=carried.momentum,
        augment=recipe.task.decide_augment(),
    )
    started = time.perf_counter()
    for epoch in trained:
        validation, test = (
            evaluate(setup.model, split, dataset) for split in (dataset.validation, dataset.test)
        )
        real_s = time.perf_counter() - started
        totals = replace(totals, real_s=totals.real_s + real_s)
        totals = totals.judged(dataset.task, validation, test, epoch.number)
        record = EpochRecord(
            epoch=epoch.number,
            loss=epoch.loss,
            lr=epoch.lr,
            validation=validation,
            test=test,
            real_s=real_s,
            cost=setup.cost,
            totals=totals,
        )
        yield _state(setup, epoch.number, epoch.momentum), record
        started = time.perf_counter()


def _finish(setup: FitSetup, folder: RunFolder, state: ServerState, totals: Totals) -> FitSummary:
    """Write the model of the last epoch, the figures and the checksums; return the summary."""
    task, dataset = setup.recipe.task, setup.dataset
    folder.final.mkdir(exist_ok=True)
    write_trained(
        folder.final,
        Trained(
            model=task.model,
            template=setup.model,
            layout=setup.layout,
            support=state.support,
            values=state.values,
            input_shape=tuple(dataset.input_shape),
            task=dataset.task,
            data=DataKey(task.data, task.validation_fraction, setup.recipe.seed),
            inputs=Inputs.of(dataset),
        ),
    )
    draw_fit(events.read_events(folder.events), folder.path)
    folder.write_checksums()
    test = evaluate(setup.model, dataset.test, dataset)
    return FitSummary(
        run=str(folder.path),
        epochs=state.round,
        seed=setup.recipe.seed,
        test=test.metrics,
        best=totals.best_test,
        loss=test.loss,
        real_s=totals.real_s,
        params=setup.cost.params,
        macs=setup.cost.macs,
        state_sha256=state_sha256(state.values),
    )
