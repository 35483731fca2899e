"""`fp unlearn`: from a finished run and some of its classes to a model without them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.call import open_run
from fpcli.cli.session import Session
from fpcli.cli.unlearn_recipe import Wanted, check_options, check_purged, choose_audits
from fpcli.errors import UsageError
from fpcli.settings import options as o
from fpcli.settings.recipes import Recipe, code_words
from fpcli.settings.unlearning import UnlearnOptions

if TYPE_CHECKING:
    from fpcli.cli.watch import RunWatcher
    from fpcli.store.run_folder import RunFolder
    from fpcli.unlearn.unlearn_run import Unlearning


def run_unlearn(ctx: typer.Context, given: UnlearnOptions, output: o.Output) -> None:
    """Make a trained model forget a class, and compare."""
    check_options(ctx.params)
    call = _Call(ctx.obj, ctx.params)
    if given.dry_run:
        call.plan()
    else:
        call.unlearn()


@dataclass(frozen=True)
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    @property
    def wanted(self) -> Wanted:
        """What the options say."""
        return Wanted(self.options)

    def plan(self) -> None:
        """Show what would be done."""
        from fpcli.cli.unlearn_result import unlearning_plan_text
        from fpcli.recipe.load import flatten

        _, recipe, plan = self.wanted.new()
        self.session.finish(
            {"recipe": flatten(recipe), "plan": plan}, unlearning_plan_text(recipe, plan)
        )
        self.session.hint("nothing was written; leave out --dry-run to unlearn")

    def unlearn(self) -> None:
        """Unlearn, or go on with it, and show what came of it."""
        from fpcli.cli.unlearn_result import search_text, unlearning_text, warn_of_shortcomings
        from fpcli.store.purge import count_checkpoints
        from fpcli.unlearn.ratio_search import NotForgottenError
        from fpcli.unlearn.unlearn_run import is_purged, purge_original, read_result

        names = choose_audits(self.options)
        folder, recipe, original = self._begun() if self.options["resume"] else self._fresh()
        left = count_checkpoints(original)
        if self.options["purge"] and is_purged(folder, original):
            check_purged(self.options)
            result = read_result(folder)  # a deletion that was cut short
        else:
            work = self._work(folder, recipe, original, names)
            try:
                result = work.run()
            except NotForgottenError as error:
                data = {"search": error.search, "run": str(folder.path)}
                text = f"{search_text(error.search)}\nrun folder {folder.path}"
                folder.add_log(text)
                self.session.finish(data, text, error)
        if self.options["purge"]:
            purge_original(folder, original, result)
        is_gone = bool(self.options["purge"])
        text = unlearning_text(result, original.path, left, is_purged=is_gone)
        folder.add_log(text)
        self.session.warnings += warn_of_shortcomings(result)
        self.session.warn()
        self.session.finish(result, text)
        if result["speedup"] is None and not is_gone:
            words = self._again(folder, recipe, more=" --compare-retrain")
            self.session.hint(f"`{words}` adds the model that never saw the class")

    def _fresh(self) -> tuple[RunFolder, Recipe, RunFolder]:
        """Check everything that can be, and make the folder."""
        from fpcli.store.run_folder import RunFolder
        from fpcli.store.run_name import AUTO, number_name

        source, recipe, plan = self.wanted.new()
        original = source.folder
        classes = "-".join(map(str, plan["classes"]))
        usual = f"{original.path.resolve().name[:100]}-without-{classes}"
        name = self.options["name"] or usual
        if name == AUTO:
            name = number_name(self.options["runs"], usual)
        other = self.wanted.other(recipe, source)
        for needed in (original.path, other[0].path if other else original.path):
            if needed.resolve().is_relative_to((self.options["runs"] / name).resolve()):
                raise UsageError(
                    f"{needed} is what this starts from", hint="choose another name", where="--name"
                )
        folder = RunFolder.create(
            self.options["runs"], name, recipe, force=self.options["force"], command="unlearn"
        )
        return folder, recipe, original

    def _begun(self) -> tuple[RunFolder, Recipe, RunFolder]:
        from fpcli.store.run_folder import RunFolder
        from fpcli.unlearn.original import METHOD

        folder = open_run(self.options["resume"], self.options["runs"])
        recipe = self.wanted.load(folder, self.wanted.flags())
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
        from fpcli.unlearn.original import read_original
        from fpcli.unlearn.unlearn_run import Unlearning

        source = read_original(original, self.wanted.load(original, self.wanted.code()))
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
            other=self.wanted.other(recipe, source, folder),
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
        return f"fp unlearn --resume {shlex.quote(str(folder.path))}{more}{code_words(recipe)}"
