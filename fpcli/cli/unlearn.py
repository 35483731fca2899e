"""`fp unlearn`: from a finished run and some of its classes to a model without them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli import options as o
from fpcli.cli import unlearn_options as u
from fpcli.cli.call import code_words, open_run
from fpcli.cli.session import Session
from fpcli.cli.words import CODE, make_importable, overrides
from fpcli.errors import DataError, UsageError

if TYPE_CHECKING:
    from fpcli.cli.watch import RunWatcher
    from fpcli.recipe.schema import Recipe
    from fpcli.run.folder import RunFolder
    from fpcli.run.forgetting import Source
    from fpcli.run.unlearning import Unlearning


def unlearn(
    ctx: typer.Context,
    run: u.Run = None,
    class_: u.Class = None,
    class_name: u.ClassName = None,
    recipe: u.Recipe = None,
    set_: o.Settings = None,
    data: u.Data = None,
    data_dir: o.DataDir = None,
    model: u.Model = None,
    ratio: u.Ratio = None,
    scope: u.Scope = None,
    direction: u.Direction = None,
    idf_ref: u.IdfRef = None,
    agg: u.Agg = None,
    min_keep: u.MinKeep = None,
    score_batches: u.ScoreBatches = None,
    finetune_rounds: u.FinetuneRounds = None,
    compare_retrain: u.CompareRetrain = False,
    retrained: u.Retrained = None,
    audit: u.Audit = None,
    drop_logit: u.DropLogit = False,
    purge: u.Purge = False,
    executor: o.Executor = None,
    workers: o.Workers = None,
    name: u.Name = None,
    runs: o.Runs = Path("runs"),
    resume: u.Resume = None,
    force: u.Force = False,
    dry_run: u.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
) -> None:
    """Make a trained model forget a class, and compare."""
    u.check(ctx.params)
    call = _Call(ctx.obj, ctx.params)
    if dry_run:
        call.plan()
    else:
        call.unlearn()


@dataclass(frozen=True)
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    def plan(self) -> None:
        """Show what would be done."""
        from fpcli.cli.unlearn_result import plan_text
        from fpcli.recipe.load import flatten

        _, recipe, plan = self._new()
        self.session.finish({"recipe": flatten(recipe), "plan": plan}, plan_text(recipe, plan))
        self.session.hint("nothing was written; leave out --dry-run to unlearn")

    def unlearn(self) -> None:
        """Unlearn, or go on with it, and show what came of it."""
        from fpcli.cli.unlearn_result import not_forgotten, result_text
        from fpcli.run.purge import num_checkpoints
        from fpcli.run.unlearning import is_purged, purge_original, read_result

        audits = u.audits(self.options)
        folder, recipe, original = self._begun() if self.options["resume"] else self._fresh()
        left = num_checkpoints(original)
        if self.options["purge"] and is_purged(folder, original):
            u.check_purged(self.options)
            result = read_result(folder)  # a deletion that was cut short
        else:
            result = self._work(folder, recipe, original, audits).run()
        if self.options["purge"]:
            purge_original(folder, original, result)
        is_gone = bool(self.options["purge"])
        text = result_text(result, original.path, left, is_purged=is_gone)
        folder.add_log(text)
        self.session.warnings += not_forgotten(result)
        self.session.warn()
        self.session.finish(result, text)
        if result["speedup"] is None and not is_gone:
            words = self._again(folder, recipe, more=" --compare-retrain")
            self.session.hint(f"`{words}` adds the model that never saw the class")

    def _fresh(self) -> tuple[RunFolder, Recipe, RunFolder]:
        """Check everything that can be, and make the folder."""
        from fpcli.run.folder import RunFolder

        source, recipe, plan = self._new()
        original = source.folder
        classes = "-".join(map(str, plan["classes"]))
        name = self.options["name"] or f"{original.path.resolve().name[:100]}-without-{classes}"
        other = self._other(recipe, source)
        for known in (original.path, other[0].path if other else original.path):
            if known.resolve().is_relative_to((self.options["runs"] / name).resolve()):
                raise UsageError(
                    f"{known} is what this starts from", hint="choose another name", where="--name"
                )
        folder = RunFolder.create(self.options["runs"], name, recipe, force=self.options["force"])
        return folder, recipe, original

    def _begun(self) -> tuple[RunFolder, Recipe, RunFolder]:
        from fpcli.run.folder import RunFolder
        from fpcli.run.forgetting import METHOD

        folder = open_run(self.options["resume"], self.options["runs"])
        recipe = self._load(folder, self._flags())
        if recipe.method.name != METHOD or not recipe.task.start:
            raise UsageError(
                f"{folder.path} is a run of `{recipe.method.name}`, not of `fp unlearn`",
                hint=f"go on with `fp resume {folder.path}`",
                where="--resume",
            )
        start, here = Path(recipe.task.start), Path.cwd()
        shown = start.relative_to(here) if start.is_relative_to(here) else start
        return folder, recipe, RunFolder.open(shown)

    def _work(
        self, folder: RunFolder, recipe: Recipe, original: RunFolder, audits: tuple[str, ...]
    ) -> Unlearning:
        from fpcli.run.forgetting import source_of
        from fpcli.run.unlearning import Unlearning

        source = source_of(original, self._load(original, self._code()))
        self.session.log = folder.log
        more = "".join(
            f" --{key.replace('_', '-')}"
            for key in ("compare_retrain", "drop_logit")
            if self.options[key]
        )
        self.session.again = self._again(folder, recipe, more)
        return Unlearning(
            folder,
            recipe,
            source,
            self._watch,
            command=("fp", *sys.argv[1:]),
            has_retrained=self.options["compare_retrain"] or bool(audits),
            other=self._other(recipe, source, folder),
            audits=audits,
            drops_logit=self.options["drop_logit"],
            say=self.session.note,
        )

    @contextmanager
    def _watch(self, folder: RunFolder) -> Iterator[RunWatcher]:
        from fpcli.cli.watch import RunWatcher

        is_moving = not (self.options["no_progress"] or self.session.is_json)
        watcher = RunWatcher(
            self.session, folder, is_quiet=self.options["quiet"], is_moving=is_moving
        )
        try:
            yield watcher
        finally:
            watcher.end()
            if not self.session.log or not self.session.log.parent.exists():
                # Nothing had been done that could be continued.
                self.session.log, self.session.again = None, ""

    def _again(self, folder: RunFolder, recipe: Recipe, more: str) -> str:
        """Return the command that goes on with an unlearning."""
        if self.options["audit"]:
            more += f" --audit {self.options['audit']}"
        if self.options["retrained"] and "--compare-retrain" not in more:
            more += f" --retrained {shlex.quote(self.options['retrained'])}"
        code = code_words({"--data": recipe.task.data, "--model": recipe.task.model})
        return f"fp unlearn --resume {shlex.quote(str(folder.path))}{more}{code}"

    def _new(self) -> tuple[Source, Recipe, dict[str, Any]]:
        """Return run, recipe and plan of a new unlearning, as far as both can be checked."""
        from fpcli.recipe.load import command_of, read_settings
        from fpcli.run.forgetting import (
            METHOD,
            check_task,
            find_classes,
            planned,
            source_of,
            usual_rounds,
        )
        from fpcli.run.setup import load_data

        original = open_run(self.options["run"], self.options["runs"])
        if (command := command_of(original.recipe)) != "train":
            raise DataError(
                f"{original.path} is a run of `fp {command}`, which has no clients to ask",
                hint="give a run of `fp train`",
                where=str(original.path),
            )
        source = source_of(original, self._load(original, self._code()))
        dataset = load_data(source.recipe)
        classes = find_classes(dataset, *u.classes(self.options))
        overlay = u.overlay(self.options)
        flags = self._flags() | {
            "method.name": METHOD,
            "task.start": str(original.path.resolve()),
            "task.withhold": list(classes),
        }
        said = {key for key, _ in overrides(self.options["set_"])}
        u.check_settings(said)
        if "rounds" not in said | set(read_settings(overlay) if overlay else ()):
            flags.setdefault("rounds", usual_rounds(source))
        recipe = self._load(original, flags, overlay, is_new=True)
        if "target_accuracy" not in said:  # that of the run is not one for fine-tuning
            recipe = replace(recipe, target_accuracy=None)
        check_task(recipe, source)
        return source, recipe, planned(source, recipe, dataset)

    def _other(
        self, recipe: Recipe, source: Source, begun: RunFolder | None = None
    ) -> tuple[RunFolder, Recipe] | None:
        """Return the run that stands for the retraining, if one is named, now or earlier."""
        from fpcli.run.forgetting import check_retrained, retrained
        from fpcli.run.unlearning import earlier

        name = self.options["retrained"]
        if begun and not self.options["compare_retrain"]:
            name = name or earlier(begun)["retrained"]
        if name is None:
            return None
        folder = open_run(name, self.options["runs"])
        found = self._load(folder, self._code())
        check_retrained(folder, found, retrained(recipe, source))
        return folder, found

    def _load(
        self,
        folder: RunFolder,
        flags: Mapping[str, Any],
        overlay: Path | None = None,
        *,
        is_new: bool = False,
    ) -> Recipe:
        from fpcli.recipe.load import load

        pairs = overrides(self.options["set_"]) if is_new else []
        return load(folder.recipe, pairs, flags, overlay=overlay)

    def _flags(self) -> dict[str, Any]:
        """Return dotted key -> value of every option that sets a key."""
        from fpcli.recipe.settings import Setting

        given = {u.KEYS[k]: v for k, v in self.options.items() if k in u.KEYS and v is not None}
        if "rounds" in given:
            given["rounds"] = Setting(given["rounds"], "--finetune-rounds", is_in_file=False)
        if given.get("executor.workers") == "auto":
            given["executor.workers"] = 0
        return given | self._code()

    def _code(self) -> dict[str, Any]:
        """Return the keys that say where the run's data and code are, which may be said again."""
        found = {}
        for key in ("data", "model"):
            value = self.options[key]
            if value is not None and not CODE.fullmatch(value):
                raise UsageError(
                    f"--{key} {value}: {key} and all else of the task are those of the run",
                    hint=f"--{key} is only for `module:function`, which no file may name",
                    where=f"--{key}",
                )
            if value is not None:
                found[f"task.{key}"] = value
        make_importable(found.values())
        if self.options["data_dir"] is not None:
            found["task.data_dir"] = self.options["data_dir"]
        return found
