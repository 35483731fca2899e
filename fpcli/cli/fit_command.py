"""`fp fit`: plain training of one model where all data is in one place."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.call import Call, check_output
from fpcli.cli.session import Session
from fpcli.settings import options as o
from fpcli.settings.recipes import FitRecipe, code_words
from fpcli.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from fpcli.store.run_folder import RunFolder
    from fpcli.train.run_summary import FitSummary


def run_fit(ctx: typer.Context, given: o.FitOptions, output: o.RunOutput) -> None:
    """Train one model where the data is, to prune it afterwards."""
    check_output(ctx.params)
    (_dry_run if given.dry_run else _fit)(ctx.obj, _Call(ctx.params))


class _Call(Call[FitRecipe]):
    command = "fit"
    cls = FitRecipe


def _dry_run(session: Session, call: _Call) -> None:
    from fpcli.cli import show
    from fpcli.recipe.load import flatten, to_yaml
    from fpcli.train.fit_run import prepare_fit

    setup = prepare_fit(call.recipe())
    dataset, size = setup.dataset, setup.cost
    plan = {
        "model": asdict(size),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
    }
    rows = [
        ("model", f"{size.params:,} params, {size.macs:,.0f} multiply-adds"),
        ("tensors", format_bytes(size.bytes)),
        ("training samples", f"{plan['train']:,}"),
        ("validation samples", f"{plan['validation']:,}"),
        ("test samples", f"{plan['test']:,}"),
    ]
    text = f"{to_yaml(setup.recipe)}\n{show.align(('', ''), rows)}"
    session.finish({"recipe": flatten(setup.recipe), "plan": plan}, text)
    session.hint("nothing was written; leave out --dry-run to train")


def _fit(session: Session, call: _Call) -> None:
    from fpcli.cli.result import check_target
    from fpcli.cli.watch import FitWatcher
    from fpcli.store import events
    from fpcli.train.fit_run import play_fit, prepare_fit

    folder, recipe, summary = call.carry_out(session, FitWatcher, play_fit, prepare_fit)
    history = events.read_events(folder.events)
    table = _closing_table(folder, summary, history)
    folder.add_log(table)
    longer = f"start again with more epochs: `--epochs {2 * recipe.fit.epochs}`"
    session.finish(summary.to_json(), table, check_target(recipe, history, hint=longer))
    words = f"{shlex.quote(str(folder.path))}{code_words(recipe)}"
    session.hint(f"prune it with `fp prune {words} --ratio 0.5`")


def _closing_table(
    folder: RunFolder, summary: FitSummary, history: Sequence[Mapping[str, Any]]
) -> str:
    """Return names and values of the results, one per line."""
    from fpcli.cli import show
    from fpcli.cli.result import list_scores

    rows = [
        *list_scores(summary, history, "epoch"),
        ("model", f"{summary.params:,} params, {summary.macs:,.0f} multiply-adds"),
        ("real time", format_seconds(summary.real_s)),
        ("run folder", str(folder.path)),
        ("model of the last epoch", str(folder.final / "model.safetensors")),
        ("picture", str(folder.path / "curves.png")),
    ]
    return show.align(("", ""), rows)
