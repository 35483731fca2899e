"""`fp train`: from the options to a recipe, a run, and its result."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli import options as o
from fpcli.cli.session import Session
from fpcli.data import PREFIXES
from fpcli.errors import FpError, UsageError
from fpcli.units import parse_seconds

if TYPE_CHECKING:
    from fpcli.cli.watch import RunWatcher
    from fpcli.recipe.schema import Recipe
    from fpcli.run.folder import RunFolder
    from fpcli.run.summary import Summary

_CODE = re.compile(rf"(?!{'|'.join(PREFIXES)}|torchvision:)[A-Za-z_][\w.]*:[A-Za-z_]\w*")


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
    call = _Call(ctx.params, ctx.params["resume"])
    if json and json_lines:
        raise UsageError("--json and --json-lines exclude each other", hint="give one of them")
    if dry_run:
        _dry_run(ctx.obj, call)
    else:
        _train(ctx.obj, call)


@dataclass(frozen=True)
class _Call:
    """The options of one call."""

    options: Mapping[str, Any]
    run: str | None

    def recipe(self) -> Recipe:
        """Return what the recipe file (of the run that is resumed) and the options say together."""
        from fpcli.recipe.load import find_recipe, load

        flags, overrides = self.flags(), self.overrides()
        make_importable([*flags.values(), *(value for _, value in overrides)])
        if self.run is not None:
            self._check_resume()
            return load(self.folder().recipe, overrides, flags)
        name = self.options["recipe"]
        return load(find_recipe(name) if name else None, overrides, flags)

    def folder(self) -> RunFolder:
        """Return the folder of the run that is resumed, which may go without that of all runs."""
        from fpcli.run.folder import RunFolder

        path = Path(self.run or "")
        inside = self.options["runs"] / path
        return RunFolder.open(inside if inside.is_dir() and not path.is_dir() else path)

    def stored(self, folder: RunFolder) -> Recipe:
        """Return the recipe of the run that is resumed, as it was."""
        from fpcli.recipe.load import load

        # Code that the file names may run only if the command line names the same code.
        text = folder.recipe.read_text("utf-8")
        same = {k: v for k, v in self.flags().items() if _CODE.fullmatch(str(v)) and v in text}
        return load(folder.recipe, (), same)

    def flags(self) -> dict[str, Any]:
        """Return dotted key -> value of every option that was given."""
        given = {o.KEYS[k]: v for k, v in self.options.items() if k in o.KEYS and v is not None}
        for key, flag in (
            ("fleet.deadline_s", "--deadline"),
            ("executor.client_timeout_s", "--client-timeout"),
        ):
            if key in given and given[key] not in ("none", "null"):
                given[key] = _seconds(flag, given[key])
        if given.get("executor.workers") == "auto":
            given["executor.workers"] = 0
        if "target_accuracy" in given:
            given["target_accuracy"] = o.target_text(given["target_accuracy"])
        return given

    def overrides(self) -> list[tuple[str, str]]:
        """Return key and text of every ``--set``."""
        pairs = []
        for word in self.options["set_"] or ():
            key, equals, value = word.partition("=")
            if not (key and equals):
                raise UsageError(
                    f"--set {word}: not of the form KEY=VALUE",
                    hint="for example `--set local.momentum=0.9`",
                    where="--set",
                )
            pairs.append((key.strip(), value.strip()))
        return pairs

    def _check_resume(self) -> None:
        for name in ("recipe", "name"):
            if self.options[name]:
                raise UsageError(
                    f"--resume and --{name} exclude each other",
                    hint="a resumed run keeps its recipe and name; --set changes single keys",
                    where=f"--{name}",
                )


def make_importable(values: list[Any]) -> None:
    """Let ``module:function`` name a file of the current folder."""
    here = str(Path.cwd())
    if any(_CODE.fullmatch(str(value)) for value in values) and here not in sys.path:
        sys.path.insert(0, here)


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"`{flag} 60s`", where=flag) from error


def _dry_run(session: Session, call: _Call) -> None:
    from fpcli.cli.result import first_plan, plan_text
    from fpcli.recipe.load import flatten

    recipe = call.recipe()
    plan = first_plan(recipe)
    data = {"recipe": flatten(recipe), "plan": plan}
    session.finish(data, plan_text(recipe, plan))
    session.hint("nothing was written; leave out --dry-run to train")


def _train(session: Session, call: _Call) -> None:
    from fpcli.cli.watch import RunWatcher
    from fpcli.run.experiment import resume, start
    from fpcli.run.folder import RunFolder, default_name
    from fpcli.run.track import check, tracking

    recipe, options = call.recipe(), call.options
    trackers = check(options["track"] or "")
    command = ("fp", *sys.argv[1:])
    if call.run is not None:
        folder = call.folder()
        stored = call.stored(folder)
    else:
        name = options["name"] or default_name(recipe)
        folder = RunFolder.create(options["runs"], name, force=options["force"])
    session.log = folder.log
    watcher = RunWatcher(
        session,
        folder,
        is_quiet=options["quiet"],
        is_verbose=options["verbose"],
        is_moving=not (options["no_progress"] or session.is_lines),
    )
    with (
        _cleanup(session, folder, watcher, is_new=call.run is None),
        tracking(trackers, watcher, recipe, folder) as told,
    ):
        if call.run is not None:
            force = options["force"]
            summary = resume(recipe, stored, folder, told, command=command, force=force)
        else:
            summary = start(recipe, folder, told, command=command)
    _finish(session, folder, recipe, summary)


@contextmanager
def _cleanup(
    session: Session, folder: RunFolder, watcher: RunWatcher, *, is_new: bool
) -> Iterator[None]:
    """Leave a clear screen, and no folder of a run that failed before it had anything to keep."""
    try:
        yield
    except (FpError, KeyboardInterrupt):
        if is_new and not folder.checkpoints.exists():
            session.log = None
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    finally:
        watcher.end()


def _finish(session: Session, folder: RunFolder, recipe: Recipe, summary: Summary) -> None:
    from fpcli.cli.result import closing_table, shortfall
    from fpcli.run import events

    history = events.read(folder.events)
    table = closing_table(folder, summary, history)
    folder.add_log(table)
    more = f"train on with `{_words_to_continue(folder, recipe)} --rounds {2 * recipe.rounds}`"
    data = {key: value for key, value in asdict(summary).items() if value is not None}
    session.finish(data, table, shortfall(recipe, history, hint=more))
    session.hint(more)


def _words_to_continue(folder: RunFolder, recipe: Recipe) -> str:
    named = {
        "--data": recipe.task.data,
        "--model": recipe.task.model,
        "--method": recipe.method.name,
    }
    # What a recipe file may not name has to be said again.
    code = [f" {flag} {value}" for flag, value in named.items() if _CODE.fullmatch(value)]
    return f"fp train --resume {shlex.quote(str(folder.path))}{''.join(code)}"
