"""Build what a recipe for pruning names, beside the trained model that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fpcli import plugins
from fpcli.data.augment import check_augment
from fpcli.data.datasets import Dataset
from fpcli.engine.placement import check_device
from fpcli.engine.process import num_cores, settle_process
from fpcli.engine.trained import Trained
from fpcli.errors import UsageError
from fpcli.pruning.layers import count_weights_and_macs, select
from fpcli.pruning.prune import Pruned, PruneStage
from fpcli.pruning.pruner import Measure, PruneContext, Pruner, PruneTarget
from fpcli.pruning.recalibrate import USUAL_BATCHES, has_running_norms
from fpcli.settings.learning import FitConfig
from fpcli.settings.recipes import PruneRecipe
from fpcli.tasks.learning_task import LearningTask
from fpcli.units import parse_share

_TENTH = 10
_SHARES: tuple[Measure, ...] = ("params", "macs", "bytes")


@dataclass(frozen=True, eq=False)
class PruneSetup:
    """A recipe for pruning, built; the fields are the arguments of ``pruning.prune.prune``."""

    recipe: PruneRecipe
    pruner: Pruner
    px: PruneContext
    trained: Trained
    target: PruneTarget


def prepare_pruning(
    recipe: PruneRecipe,
    trained: Trained,
    dataset: Dataset | None,
    *,
    training_rate: float,
    tell: Callable[[str], None],
    log: Callable[..., None],
) -> PruneSetup:
    """Build what a recipe describes.

    Args:
        dataset: None where nothing needs it.
        training_rate: that the model was trained with; a tenth of it is the rate of retraining
            unless the recipe has one.
        tell: see ``PruneContext``; and ``log`` too.

    Raises:
        FpError: of many kinds; a place, device or file does not exist or does not fit the model.
    """
    check_device(recipe.device, "device")
    settle_process(recipe.threads or num_cores())
    if not recipe.retrain.lr:
        recipe = replace(recipe, retrain=replace(recipe.retrain, lr=training_rate / _TENTH))
    augment = recipe.task.decide_augment()
    if dataset is not None:
        check_augment(augment, recipe.task.data, dataset.train.images)
    pruner: Pruner = plugins.lookup("pruners", recipe.method.name)()
    options = pruner.Options(**recipe.method.options)
    rates = _rates(recipe, trained)
    px = PruneContext(
        found=dataset,
        options=options,
        retraining=FitConfig(**asdict(recipe.retrain)),
        seed=recipe.seed,
        ignore=frozenset(
            group
            for word in recipe.prune.ignore
            if not any(fnmatchcase(name, word) for name in trained.layout.opaque)
            for group in select(trained, word, "--ignore")
        ),
        rates=rates,
        round_to=recipe.prune.round_to,
        augment=augment,
        recalibrate=_count_recalibrating(recipe, trained, is_training=pruner.trains(options)),
        device=recipe.device,
        tell=tell,
        log=log,
    )
    target = _target(recipe, is_needed=not (rates or pruner.decides(options)))
    return PruneSetup(recipe, pruner, px, trained, target)


def _count_recalibrating(recipe: PruneRecipe, trained: Trained, *, is_training: bool) -> int:
    """Return on how many batches batch norm is measured again after a cut."""
    number = recipe.prune.recalibrate
    if has_running_norms(trained.template):
        usual = 0 if recipe.retrain.epochs or is_training else USUAL_BATCHES
        return usual if number is None else number
    if number:
        raise UsageError(
            f"`{trained.model}` has no batch norm that could be measured again",
            hint="leave out --recalibrate",
            where="--recalibrate",
        )
    return 0


def _target(recipe: PruneRecipe, *, is_needed: bool) -> PruneTarget:
    amounts = {name: getattr(recipe.prune, name) for name in ("ratio", *_SHARES)}
    given = [name for name, value in amounts.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"--{given[0]} and --{given[1]} exclude each other", hint="give one of them"
        )
    if not given and is_needed:
        raise UsageError(
            "it is not said how much is to go",
            hint="for example `--ratio 0.5`, or `--macs 0.3` to keep 30 % of the multiply-adds",
            where="--ratio",
        )
    for measure in _SHARES:
        if amounts[measure] is not None:
            return PruneTarget(measure, 1 - amounts[measure])
    return PruneTarget("ratio", amounts["ratio"] or 0.0)


def _rates(recipe: PruneRecipe, trained: Trained) -> dict[str, float]:
    """Return group -> ratio of the file, and over it those of single places."""
    rates: dict[str, float] = {}
    if recipe.prune.rates_file:
        from fpcli.pruning.sensitivity import read_rates

        file = Path(recipe.prune.rates_file)
        rates |= read_rates(file, recipe.prune.max_drop, trained.layout)
    for text in recipe.prune.rates:
        place, equals, number = text.rpartition("=")
        try:
            ratio = parse_share(number)
        except ValueError:
            ratio = -1.0
        if not (equals and place and 0 <= ratio < 1):
            raise UsageError(
                f"--rate {text}: not of the form PLACE=RATIO, with a ratio from 0 to below 1",
                hint="for example `--rate conv1=0.5` or `--rate 2-19=60%`",
                where="--rate",
            )
        groups = select(trained, place.strip(), "--rate")
        if ratio and not groups & trained.layout.prunable.keys():
            raise UsageError(
                f"--rate {text}: none of these channels may leave",
                hint="they are the output, or tied to an operation that needs all of them",
                where="--rate",
            )
        rates |= dict.fromkeys(sorted(groups), ratio)
    return rates


def report_pruning(setup: PruneSetup, result: Pruned) -> dict[str, Any]:
    """Return what a pruning came to, as ``fp prune --json`` names it."""
    layout, start, task = setup.trained.layout, setup.trained.support, setup.trained.task
    before, after = (
        dict(zip(("weights", "macs"), count_weights_and_macs(layout, support), strict=True))
        for support in (start, result.trained.support)
    )
    return {
        "method": setup.recipe.method.name,
        "metric": task.primary_name,
        "before": _stage(result.before, task),
        "pruned": _stage(result.pruned, task),
        "recalibrated": result.recalibrated
        and {**_stage(result.recalibrated, task), "batches": setup.px.recalibrate},
        "after": _stage(result.after, task),
        "groups": [
            {"name": name, "before": wide, "after": narrow}
            for name, (wide, narrow) in result.widths.items()
        ],
        "paper_count": {"before": before, "after": after},
        "max_difference": result.difference,
    }


def _stage(stage: PruneStage, task: LearningTask) -> dict[str, Any]:
    """Return a stage as plain data; its metrics are null where there was no data."""
    values: dict[str, Any] = asdict(stage.cost)
    for split, judged in (("", stage.test), ("validation_", stage.validation)):
        values |= {split + name: judged and judged.metrics[name] for name in task.metrics}
    return values
