"""`fp prune`: from the options to a recipe and a trained model, to a smaller one and its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.build_command import read_options
from fpcli.cli.session import Session
from fpcli.cli.words import make_importable, split_overrides
from fpcli.errors import DataError, UsageError
from fpcli.settings import options as o
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import PruneRecipe

if TYPE_CHECKING:
    from fpcli.cli.prune_watch import PruneWatch
    from fpcli.data.datasets import Dataset
    from fpcli.engine.trained import Trained
    from fpcli.pruning.prune import Pruned
    from fpcli.train.prune_setup import PruneSetup


def run_prune(ctx: typer.Context, given: o.PruneOptions, output: o.Output) -> None:
    """Make a trained model smaller, and retrain it."""
    call = _Call(ctx.obj, ctx.params)
    if given.dry_run:
        call.plan()
    else:
        call.prune()


@dataclass(frozen=True)
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    def plan(self) -> None:
        """Cut, but judge, train and write nothing."""
        from fpcli.cli.prune_result import pruning_text
        from fpcli.pruning.prune import plan_cut
        from fpcli.train.prune_setup import report_pruning

        setup, _ = self._setup(self._folder(is_planned=True), is_planned=True)
        result = plan_cut(setup.pruner, setup.px, setup.trained, setup.target)
        report = report_pruning(setup, result)
        self.session.finish(report, pruning_text(report))
        self.session.hint("nothing was written; leave out --dry-run to prune")

    def prune(self) -> None:
        """Cut, retrain and write."""
        from fpcli.cli.prune_result import hint_at_collapse, pruning_text
        from fpcli.pruning.prune import prune_in_steps
        from fpcli.train.prune_folder import check_free, write_pruned
        from fpcli.train.prune_setup import report_pruning

        out, force = self.options["out"], self.options["force"]
        check_free(out, force=force)
        folder = self._folder(is_planned=False)
        setup, watch = self._setup(folder, is_planned=False)
        try:
            result = prune_in_steps(
                setup.pruner, setup.px, setup.trained, setup.target, setup.recipe.prune.steps
            )
        finally:
            watch.end()
        report = report_pruning(setup, result)
        report["source"] = Path(folder or self.options["weights"]).resolve().name
        self._look_closer(setup, result, report, watch)
        write_pruned(
            out, result, recipe=setup.recipe, report=report, history=watch.history, force=force
        )
        report["out"] = str(out)
        self.session.finish(report, pruning_text(report))
        is_trained = bool(setup.recipe.retrain.epochs) or setup.pruner.trains(setup.px.options)
        if hint := hint_at_collapse(report, self.options["source"] or "", is_trained=is_trained):
            self.session.hint(hint)

    def _look_closer(
        self, setup: PruneSetup, result: Pruned, report: dict[str, Any], watch: PruneWatch
    ) -> None:
        """Warn where the small model is not what one would expect, and time it if asked."""
        from fpcli.cli.prune_result import measure_latencies, warn_of_latency
        from fpcli.pruning.prune import TOLERANCE

        if result.difference > TOLERANCE:
            watch.tell(
                f"warning: outputs of the small and the masked network differ by "
                f"{result.difference:.1e}: a layer looks at all channels at once"
            )
        if self.options["latency"]:
            device = setup.recipe.device
            report |= measure_latencies(setup.trained, result.trained, device)
            for text in warn_of_latency(report["latency_pairs"]):
                watch.tell(f"warning: {text}")

    def _setup(self, folder: Path | None, *, is_planned: bool) -> tuple[PruneSetup, PruneWatch]:
        from fpcli.cli.prune_watch import PruneWatch
        from fpcli.cli.show import dot
        from fpcli.train.model_source import read_training_rate
        from fpcli.train.prune_setup import prepare_pruning

        given = (value for _, value in split_overrides(self.options["set_"]))
        make_importable([self.options["source"], *self._flags().values(), *given])
        recipe, trained, dataset = self._materials(folder, is_planned=is_planned)
        if dataset is not None and not is_planned:
            trained = with_inputs(trained, dataset, self.session, self.options)
        watch = PruneWatch(
            self.session,
            recipe.retrain.epochs,
            is_quiet=self.options["quiet"],
            is_moving=not (self.options["no_progress"] or self.session.is_json),
        )
        rate = read_training_rate(folder)
        setup = prepare_pruning(
            recipe, trained, dataset, training_rate=rate, tell=watch.tell, log=watch.log
        )
        parts = [setup.recipe.method.name, trained.model, str(folder or "")]
        watch.say(dot().join(part for part in parts if part))
        return setup, watch

    def _folder(self, *, is_planned: bool) -> Path | None:
        """Return the folder of the trained model, or None if its parts are named one by one."""
        from fpcli.train.model_source import find_folder

        word, names_model = self.options["source"], self.options["recipe"] or self.options["model"]
        if word is None and is_planned and names_model:
            return None
        return find_folder(word, self.options["runs"], self.options["weights"])

    def _materials(
        self, folder: Path | None, *, is_planned: bool
    ) -> tuple[PruneRecipe, Trained, Dataset | None]:
        from fpcli.store.model_folder import read_trained
        from fpcli.train.model_source import build_named, load_data_of

        word, weights, code = (self.options[key] for key in ("source", "weights", "model"))
        if folder is None:
            recipe = self._recipe({"task.model": word} if word else {})
            if weights is None and not is_planned:
                raise UsageError(
                    f"no weights for `{recipe.task.model}`",
                    hint="give them with -w FILE, or name a run",
                    where="-w",
                )
            trained, dataset = build_named(recipe, weights, is_planned=is_planned)
            return recipe, trained, dataset
        # Which network it is only the folder tells, and that is not read yet.
        ignore = self._recipe({"task.model": "lenet5"}).prune.ignore
        trained = read_trained(folder, code=code or "", ignore=ignore)
        recipe = self._recipe(_settings_of(trained))
        if recipe.task.head == "new":
            raise UsageError(
                f"{folder} has a last layer for its own data",
                hint="--head new is for weights of a file, given with -w",
                where="--head",
            )
        data_dir = Path(recipe.task.data_dir) if recipe.task.data_dir else None
        try:
            dataset = load_data_of(trained, self.options["data"], data_dir, recipe.task.normalise)
            return recipe, trained, dataset
        except DataError:
            if not is_planned or self.options["data"]:
                raise
            return recipe, trained, None

    def _flags(self) -> dict[str, Any]:
        return read_options(self.options, collect_flags(PruneRecipe))

    def _recipe(self, more: Mapping[str, Any]) -> PruneRecipe:
        from fpcli.recipe.load import find_recipe, load_recipe

        flags = {**more, **self._flags()}
        pairs = split_overrides(self.options["set_"])
        name = self.options["recipe"]
        return load_recipe(find_recipe(name) if name else None, pairs, flags, cls=PruneRecipe)


def with_inputs(
    trained: Trained, dataset: Dataset, session: Session, options: Mapping[str, Any]
) -> Trained:
    """Return a model with the inputs that it gets here; tell what was done to them, and warn where
    they may be the wrong ones."""
    from fpcli.engine.trained import Inputs
    from fpcli.train.model_source import doubt_about_inputs

    for text in dataset.notes:
        session.note(text)
    is_said = options["normalise"] is not None
    if doubt := doubt_about_inputs(trained, dataset, options["weights"], is_said=is_said):
        session.warnings.append(doubt)
    session.warn()
    return replace(trained, inputs=Inputs.of(dataset))


def _settings_of(trained: Trained) -> dict[str, Any]:
    """Return what a trained model says of itself, by the recipe's keys."""
    flags: dict[str, Any] = {"task.model": trained.model}
    if trained.data is not None:
        flags["task.data"] = trained.data.name
        flags["task.validation_fraction"] = trained.data.validation_fraction
    if trained.inputs is not None:
        flags["task.normalise"] = trained.inputs.normalised_by
    return flags
