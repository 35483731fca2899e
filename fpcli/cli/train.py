"""`fp train`: from the options to a recipe, a run, and its result."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli import options as o
from fpcli.cli.call import Call, check_output, code_words
from fpcli.cli.session import Session
from fpcli.errors import RecipeError, UsageError
from fpcli.units import parse_seconds

if TYPE_CHECKING:
    from fpcli.recipe.schema import Recipe


def train(
    ctx: typer.Context,
    recipe: o.RecipeName = None,
    set_: o.Settings = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    model: o.Model = None,
    clients: o.Clients = None,
    partition: o.Partition = None,
    alpha: o.Alpha = None,
    method: o.Method = None,
    rounds: o.Rounds = None,
    clients_per_round: o.PerRound = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    seed: o.Seed = None,
    eval_every: o.EvalEvery = None,
    target: o.Target = None,
    fleet: o.Fleet = None,
    deadline: o.Deadline = None,
    codec: o.Codec = None,
    min_clients: o.MinClients = None,
    round_retries: o.RoundRetries = None,
    device: o.Device = None,
    executor: o.Executor = None,
    workers: o.Workers = None,
    client_timeout: o.ClientTimeout = None,
    checkpoint_every: o.CheckpointEvery = None,
    track: o.Track = None,
    name: o.Name = None,
    runs: o.Runs = Path("runs"),
    resume: o.Resume = None,
    force: o.Force = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    json_lines: o.JsonLines = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
) -> None:
    """Train a model on the data of many simulated clients."""
    check_output(ctx.params)
    call = _Call(ctx.params)
    if dry_run:
        _dry_run(ctx.obj, call)
    else:
        _train(ctx.obj, call)


class _Call(Call["Recipe"]):
    command = "train"
    keys = o.KEYS

    def kind(self) -> type[Recipe]:
        from fpcli.recipe.schema import Recipe

        return Recipe

    def recipe(self) -> Recipe:
        recipe = super().recipe()
        if self.run is not None and recipe.method.options.get("ratio") == "auto":
            folder = shlex.quote(str(self.folder().path))
            raise RecipeError(
                f"{folder} is an unlearning whose share of channels is still to be found",
                hint=f"`fp unlearn --resume {folder}{code_words(recipe)}`",
                where="method.ratio",
            )
        return recipe

    def flags(self) -> dict[str, Any]:
        given = super().flags()
        for key, flag in (
            ("fleet.deadline_s", "--deadline"),
            ("executor.client_timeout_s", "--client-timeout"),
        ):
            if key in given and given[key] not in ("none", "null"):
                given[key] = _seconds(flag, given[key])
        if given.get("executor.workers") == "auto":
            given["executor.workers"] = 0
        return given


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"`{flag} 60s`", where=flag) from error


def _dry_run(session: Session, call: _Call) -> None:
    from fpcli.cli.result import first_plan, plan_text
    from fpcli.recipe.idle import idle
    from fpcli.recipe.load import flatten

    recipe = call.recipe()
    session.warnings += idle(recipe)
    plan = first_plan(recipe)
    data = {"recipe": flatten(recipe), "plan": plan}
    session.finish(data, plan_text(recipe, plan))
    session.warn()
    session.hint("nothing was written; leave out --dry-run to train")


def _train(session: Session, call: _Call) -> None:
    from fpcli.cli.result import closing_table, first_plan, shortfall
    from fpcli.cli.watch import RunWatcher
    from fpcli.run import experiment
    from fpcli.run.track import check, tracking
    from fpcli.store import events

    around = partial(tracking, check(call.options["track"] or ""))
    watch = partial(RunWatcher, is_verbose=call.options["verbose"])
    folder, recipe, summary = call.carry_out(session, watch, experiment, first_plan, around)
    history = events.read(folder.events)
    table = closing_table(folder, summary, history)
    folder.add_log(table)
    again = f"fp train --resume {shlex.quote(str(folder.path))}{code_words(recipe)}"
    more = f"train on with `{again} --rounds {2 * recipe.rounds}`"
    data = {key: value for key, value in asdict(summary).items() if value is not None}
    session.finish(data, table, shortfall(recipe, history, hint=more))
    session.hint(more)
