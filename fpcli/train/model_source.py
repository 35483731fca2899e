"""Source: which trained model a command is about, and the data that it is for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fpcli import plugins
from fpcli.data.catalogue import CATALOGUE
from fpcli.data.datasets import Dataset, load_dataset
from fpcli.engine.trained import DataKey, Inputs, Trained
from fpcli.errors import DataError, UsageError, suggest
from fpcli.recipe.load import read_settings
from fpcli.settings.learning import FitConfig
from fpcli.settings.recipes import PruneRecipe
from fpcli.store.model_folder import build_untrained
from fpcli.store.run_folder import RunFolder
from fpcli.store.weights import read_weights
from fpcli.tasks import TASKS
from fpcli.tasks.learning_task import LearningTask
from fpcli.tasks.rank import Rank
from fpcli.train.client_data import load_data
from fpcli.units import format_input

_RATES: Mapping[str, float] = {"fit.lr": 1.0, "local.lr": 1.0, "retrain.lr": 10.0}
"""Key of a stored recipe -> what its value has to be multiplied with for a training rate."""

_FEW = 3


def find_folder(word: str | None, runs: Path, weights: Path | None = None) -> Path | None:
    """Return the folder of a trained model, or None if a word is no folder but a model's name.

    Args:
        word: a path, or the name of a run; None means the newest run.
        runs: the folder of all runs.
        weights: that are given too; without a word they are those of a model.

    Raises:
        UsageError: nothing was said and there is no run, the word means nothing, or a folder has
            weights of its own.
    """
    if word is None:
        return None if weights else find_newest_run(runs)
    for path in (Path(word), runs / word):
        if path.is_dir():
            if weights:
                raise UsageError(
                    f"{path} has weights of its own",
                    hint="give a model's name with -w, or a folder without",
                    where="-w",
                )
            return path
    names = plugins.list_names("models")
    base = re.split("@|-gn", word)[0]
    if base in names or plugins.is_code(word) or word.startswith(plugins.TORCHVISION):
        return None
    methods = {name: f"--method {name}" for name in plugins.list_names("pruners")}
    candidates = [*names, *(path.parent.name for path in runs.glob("[!.]*/final"))]
    if Path(word).exists():
        raise UsageError(
            f"`{word}` is a file, not a folder or a model's name",
            hint="give the run or the output folder of `fp prune` that it comes from; files of "
            "`fp export` (.safetensors, .pt2, .onnx) are for `fp bench`",
            where=word,
        )
    raise UsageError(
        f"`{word}` is neither a folder nor a model",
        hint=suggest(word, [*candidates, *methods], methods)
        or "give a run, an output folder of `fp prune`, or a model's name",
        where=word,
    )


def find_newest_run(runs: Path) -> Path:
    """Return the finished run that was written last.

    Raises:
        UsageError: there is none.
    """
    folders = [path.parent.parent for path in runs.glob("[!.]*/final/layout.json")]
    finished = [path for path in folders if not RunFolder(path).purged.is_file()]
    if not finished:
        raise UsageError(
            f"no finished run in {runs}/",
            hint="make one with `fp fit` or `fp train`, or give a model's name and its weights: "
            "`lenet5 -w FILE --data mnist`",
        )
    return max(finished, key=lambda path: (path / "final" / "layout.json").stat().st_mtime)


def read_training_rate(folder: Path | None) -> float:
    """Return the learning rate that a model was trained with, or the usual one if nobody knows."""
    usual = FitConfig.lr
    recipe = folder / "recipe.yaml" if folder else None
    if recipe is None or not recipe.is_file():
        return usual
    settings = read_settings(recipe)
    for key, factor in _RATES.items():
        try:
            return float(settings[key].value) * factor
        except (KeyError, TypeError, ValueError):
            continue
    return usual


def load_data_of(
    trained: Trained, data: str | None, data_dir: Path | None, normalise: str | None = None
) -> Dataset:
    """Return the data that a model is for, with the validation split that it was trained beside.

    Args:
        data: other data; needed where the model's own is unknown or code.
        data_dir: see ``datasets.load``.
        normalise: other than the model was trained with.

    Raises:
        UsageError: the model does not say what it is for, or names code.
        DataError: the data is missing or damaged, or its images or classes do not fit the model.
    """
    data_key = trained.data
    name = data or (data_key.name if data_key else "")
    if not name or (plugins.is_code(name) and not data):
        raise UsageError(
            f"the data is code of yours (`{name}`), which runs only if you name it"
            if name
            else f"`{trained.model}` does not say what data it is for",
            hint=f"add `--data {name or 'NAME'}`",
            where="--data",
        )
    key = data_key or DataKey(name, 0.1, 0)
    learned = trained.task
    dataset = load_dataset(
        name,
        data_dir,
        kind=learned.kind,
        sampled_negatives=learned.num_sampled if isinstance(learned, Rank) else 0,
        validation_fraction=key.validation_fraction,
        normalise=normalise or (trained.inputs.normalised_by if trained.inputs else "auto"),
        seed=key.seed,
        allow_code=True,
    )
    have, want = (
        f"{format_input(tuple(item.input_shape), item.task.kind)} and {item.task.describe()}"
        for item in (dataset, trained)
    )
    if have != want:
        raise DataError(
            f"data `{name}` has {have}; the model is for {want}",
            hint="give the data that the model is for with --data",
            where="--data",
        )
    # Its outputs are in the units of its own training targets, whatever those of this data.
    return replace(dataset, task=learned)


def build_named(
    recipe: PruneRecipe, weights: Path | None, *, is_planned: bool = False
) -> tuple[Trained, Dataset | None]:
    """Return a network by name and its data.

    Args:
        recipe: names network and data; either may be code, which runs.
        weights: see ``weights.read_weights``; None gives it initial ones.
        is_planned: data that is known by name need not be there, and is None then.

    Raises:
        FpError: of many kinds; data or weights are missing, damaged, or do not fit the network.
    """
    task, entry = recipe.task, CATALOGUE.get(recipe.task.data)
    dataset: Dataset | None = None
    learns: LearningTask
    try:
        dataset = load_data(recipe)
        shape, learns = dataset.input_shape, dataset.task
    except DataError:
        if not is_planned or entry is None:
            raise
        shape, learns = entry.input_shape, TASKS[entry.kind](entry.num_outputs)
    key = DataKey(task.data, task.validation_fraction, recipe.seed)
    trained = build_untrained(
        task.model, shape, learns, data=key, code=task.model, ignore=recipe.prune.ignore
    )
    if dataset is not None:
        trained = replace(trained, inputs=Inputs.of(dataset))
    if weights is None:
        return trained, dataset
    values, notes = read_weights(weights, trained.template, trained.values, learns, head=task.head)
    if dataset is not None:
        dataset = replace(dataset, notes=dataset.notes + notes)
    return replace(trained, values=values), dataset


def doubt_about_inputs(
    trained: Trained, dataset: Dataset, weights: Path | None, *, is_said: bool
) -> str:
    """Return a warning where a network may get other inputs than it was trained with, or "".

    Args:
        weights: the file of its weights, which say nothing of inputs; None for a folder's model.
        is_said: the user has said how inputs are normalised.
    """
    here = Inputs.of(dataset)
    if weights is not None:
        if is_said or dataset.normalised_by != "auto":
            return ""
        return (
            f"{weights} does not say what its network was trained with; here it gets "
            f"{_words(here)} of `{dataset.name}`. If that is wrong, so is its accuracy: "
            "`--normalise none`, `unit`, `imagenet` or MEAN/STD gives it others, `auto` the same "
            "without this warning"
        )
    if trained.inputs is None or not trained.inputs.differ_from(here):
        return ""
    return (
        f"`{trained.model}` was trained with {_words(trained.inputs)}, and gets {_words(here)}: "
        "accuracies before retraining are not its own"
    )


def _words(inputs: Inputs) -> str:
    mean, std = (
        ",".join(f"{value:.4g}" for value in values[:_FEW]) + ",..." * (len(values) > _FEW)
        for values in (inputs.mean, inputs.std)
    )
    values = f"values / {1 / inputs.scale:.4g}" if inputs.scale != 1 else "values"
    return f"{values}, normalised by {mean}/{std} (`{inputs.normalised_by}`)"
