"""`fp train`: from the options to a recipe, a run, and its result."""

from __future__ import annotations

import shlex
from functools import partial

import typer

from fpcli.cli.call import Call, check_output
from fpcli.cli.session import Session
from fpcli.errors import RecipeError
from fpcli.settings import options as o
from fpcli.settings.recipes import Recipe, code_words


def run_train(ctx: typer.Context, given: o.TrainOptions, output: o.RunOutput) -> None:
    """Train a model on the data of many simulated clients."""
    check_output(ctx.params)
    (_dry_run if given.dry_run else _train)(ctx.obj, _Call(ctx.params))


class _Call(Call[Recipe]):
    command = "train"
    cls = Recipe

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


def _dry_run(session: Session, call: _Call) -> None:
    from fpcli.cli.result import first_plan_text, plan_first_round
    from fpcli.recipe.idle import find_idle
    from fpcli.recipe.load import flatten

    recipe = call.recipe()
    session.warnings += find_idle(recipe)
    plan = plan_first_round(recipe)
    data = {"recipe": flatten(recipe), "plan": plan}
    session.finish(data, first_plan_text(recipe, plan))
    session.warn()
    session.hint("nothing was written; leave out --dry-run to train")


def _train(session: Session, call: _Call) -> None:
    from fpcli.cli.result import check_target, closing_table, plan_first_round
    from fpcli.cli.watch import RunWatcher
    from fpcli.store import events
    from fpcli.train.federated_run import play_federated
    from fpcli.train.trackers import check_trackers, track_run

    around = partial(track_run, check_trackers(call.options["track"] or ""))
    watch = partial(RunWatcher, is_verbose=call.options["verbose"])
    folder, recipe, summary = call.carry_out(
        session, watch, play_federated, plan_first_round, around
    )
    history = events.read_events(folder.events)
    table = closing_table(folder, summary, history)
    folder.add_log(table)
    again = f"fp train --resume {shlex.quote(str(folder.path))}{code_words(recipe)}"
    more = f"train on with `{again} --rounds {2 * recipe.rounds}`"
    session.finish(summary.to_json(), table, check_target(recipe, history, hint=more))
    session.hint(more)
