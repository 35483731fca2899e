"""From the options of `fp unlearn` to recipes: checks, and what a new or a begun unlearning is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpcli.cli.build_command import read_options
from fpcli.cli.call import open_run
from fpcli.cli.words import make_importable, split_overrides
from fpcli.errors import DataError, UsageError
from fpcli.plugins import is_code
from fpcli.settings.unlearning import CHOICES, FLAGS

if TYPE_CHECKING:
    from fpcli.settings.recipes import Recipe
    from fpcli.store.run_folder import RunFolder
    from fpcli.unlearn.original import Original


@dataclass(frozen=True)
class Wanted:
    """What the options of one call say."""

    options: Mapping[str, Any]

    def new(self) -> tuple[Original, Recipe, dict[str, Any]]:
        """Return run, recipe and plan of a new unlearning, as far as both can be checked."""
        from fpcli.recipe.load import find_command, read_settings
        from fpcli.train.client_data import load_data
        from fpcli.unlearn.original import (
            METHOD,
            check_task,
            choose_rounds,
            find_classes,
            read_original,
        )
        from fpcli.unlearn.unlearn_plan import plan_unlearning

        original = open_run(self.options["run"], self.options["runs"])
        if (command := find_command(original.recipe)) != "train":
            raise DataError(
                f"{original.path} is a run of `fp {command}`, which has no clients to ask",
                hint="give a run of `fp train`",
                where=str(original.path),
            )
        source = read_original(original, self.load(original, self.code()))
        dataset = load_data(source.recipe)
        labels = find_classes(dataset, *split_classes(self.options))
        overlay = find_overlay(self.options)
        flags = self.flags() | {
            "method.name": METHOD,
            "task.start": str(original.path.resolve()),
            "task.withhold": list(labels),
        }
        set_keys = {key for key, _ in split_overrides(self.options["set_"])}
        check_settings(set_keys)
        said_anywhere = set_keys | set(read_settings(overlay) if overlay else ())
        for key, usual in (("rounds", choose_rounds(source)), ("method.ratio", "auto")):
            if key not in said_anywhere:
                flags.setdefault(key, usual)
        recipe = self.load(original, flags, overlay, is_new=True)
        if "target" not in set_keys:  # that of the run is not one for fine-tuning
            recipe = replace(recipe, target={})
        check_task(recipe, source)
        return source, recipe, plan_unlearning(source, recipe, dataset)

    def other(
        self, recipe: Recipe, source: Original, begun: RunFolder | None = None
    ) -> tuple[RunFolder, Recipe] | None:
        """Return the run that stands for the retraining, if one is named, now or earlier."""
        from fpcli.unlearn.original import check_retrained, make_retraining
        from fpcli.unlearn.unlearn_run import read_earlier

        name = self.options["retrained"]
        if begun and not self.options["compare_retrain"]:
            name = name or read_earlier(begun)["retrained"]
        if name is None:
            return None
        folder = open_run(name, self.options["runs"])
        other = self.load(folder, self.code())
        check_retrained(folder, other, make_retraining(recipe, source))
        return folder, other

    def load(
        self,
        folder: RunFolder,
        flags: Mapping[str, Any],
        overlay: Path | None = None,
        *,
        is_new: bool = False,
    ) -> Recipe:
        """Return the recipe of a run, with flags and what else wins over it."""
        from fpcli.recipe.load import load_recipe

        pairs = split_overrides(self.options["set_"]) if is_new else []
        return load_recipe(folder.recipe, pairs, flags, overlay=overlay)

    def flags(self) -> dict[str, Any]:
        """Return dotted key -> value of every option that sets a key."""
        from fpcli.recipe.resolve import Setting

        return {
            key: Setting(value, FLAGS[key].name, is_in_file=False)
            for key, value in read_options(self.options, FLAGS).items()
        } | self.code()

    def code(self) -> dict[str, Any]:
        """Return the keys that say where the run's data and code are, which may be said again."""
        code = {}
        for key in ("data", "model"):
            value = self.options[key]
            if value is not None and not is_code(value):
                raise UsageError(
                    f"--{key} {value}: {key} and all else of the task are those of the run",
                    hint=f"--{key} is only for `module:function`, which no file may name",
                    where=f"--{key}",
                )
            if value is not None:
                code[f"task.{key}"] = value
        make_importable(code.values())
        if self.options["data_dir"] is not None:
            code["task.data_dir"] = self.options["data_dir"]
        return code


def check_options(given: Mapping[str, Any]) -> None:
    """Check that the options go together, before anything is read.

    Raises:
        UsageError: they do not.
    """
    if given["purge"] and not given["force"]:
        raise UsageError(
            "--purge deletes the model and the checkpoints of the original run",
            hint="add --force if that is what you want",
            where="--purge",
        )
    if given["retrained"] and given["compare_retrain"]:
        raise UsageError(
            "--retrained and --compare-retrain exclude each other",
            hint="--retrained takes a run that is there, --compare-retrain trains one",
            where="--retrained",
        )
    if given["resume"] is None:
        if given["run"] is None:
            raise UsageError(
                "`fp unlearn` needs a run", hint="for example `fp unlearn runs/NAME --class 7`"
            )
        return
    for key in (*CHOICES, "dry_run"):
        if given[key]:
            word = "RUN" if key == "run" else f"--{key.strip('_').replace('_', '-')}"
            raise UsageError(
                f"--resume and {word} exclude each other",
                hint="an unlearning that has begun keeps its run, classes and settings",
                where=word,
            )


def check_settings(keys: Collection[str]) -> None:
    """Check that ``--set`` leaves alone what makes an unlearning.

    Raises:
        UsageError: it does not.
    """
    for key in ("method.name", "task.start", "task.withhold"):
        if key in keys:
            raise UsageError(
                f"--set {key}: that is settled by run and --class",
                hint="`--set` may change method, local, server, fleet, wire, executor and rounds",
                where="--set",
            )


def check_purged(given: Mapping[str, Any]) -> None:
    """Check that nothing is asked of a model that has been deleted.

    Raises:
        UsageError: something is.
    """
    for key in ("compare_retrain", "retrained", "audit", "drop_logit"):
        if given[key]:
            raise UsageError(
                f"--{key.replace('_', '-')}: the original model has been deleted",
                hint="leave it out: what was found earlier is kept",
                where=f"--{key.replace('_', '-')}",
            )


def find_overlay(given: Mapping[str, Any]) -> Path | None:
    """Return the recipe file whose method and training win over the run's.

    Raises:
        UsageError: it is of another method.
        FpError: there is none, or it is wrong.
    """
    from fpcli.recipe.load import find_recipe, read_settings
    from fpcli.unlearn.original import METHOD

    if not given["recipe"]:
        return None
    path = find_recipe(given["recipe"])
    method = read_settings(path).get("method.name")
    if method is None or method.value != METHOD:
        raise UsageError(
            f"-c {given['recipe']}: no recipe of the method `{METHOD}`",
            hint="for example `-c unlearn/digits`",
            where="-c",
        )
    return path


def choose_audits(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the audits that are wanted, each once.

    Raises:
        UsageError: one is unknown.
    """
    from fpcli import plugins

    wanted = _words(given["audit"])
    for name in wanted:
        if name != "all":
            plugins.lookup("audits", name)
    return tuple(plugins.list_names("audits") if "all" in wanted else dict.fromkeys(wanted))


def split_classes(given: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """Return the classes that are named by number, and those by name.

    Raises:
        UsageError: a number is none.
    """
    numbers = []
    for word in _words(given["class_"]):
        if not word.isdecimal():
            raise UsageError(
                f"--class {word}: not the number of a class",
                hint=f"`--class 7,9`, or by name: `--class-name {word}`",
                where="--class",
            )
        numbers.append(int(word))
    return numbers, _words(given["class_name"])


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]
