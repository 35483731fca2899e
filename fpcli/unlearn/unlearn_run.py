"""One unlearning in its run folder: the run itself, the two it is compared with, and its result.

The folder is that of an ordinary run of the method `unlearn`; beside what every run has it holds
``pruned/`` (the model before the first round), ``forgetting.safetensors`` (per class and layer
``class-7/LAYER/activations``, ``/scores`` and ``/pruned``), the runs ``finetune-only/`` and
``retrained/``, ``unlearn.json``, and ``search.json`` if the share of channels had to be found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from fpcli import plugins
from fpcli.audit import suite
from fpcli.audit.stage import AuditData
from fpcli.engine.process import num_cores, using_threads
from fpcli.errors import DataError, DivergedError, FpError, LayoutError, ResumeError
from fpcli.files import delete_folder, write_atomic
from fpcli.methods.unlearn import Scored
from fpcli.recipe.load import digest_recipe, read_stored
from fpcli.report.forgetting_plots import draw_forgetting
from fpcli.report.runs import read_run
from fpcli.report.trials import read_search, search_file
from fpcli.settings.recipes import Recipe
from fpcli.store.checkpoint import load_newest
from fpcli.store.model_folder import read_trained, write_trained
from fpcli.store.purge import purge, purge_unlearned
from fpcli.store.run_folder import RunFolder
from fpcli.store.weights import explain_unreadable
from fpcli.train.federated_run import RunListener, play_federated
from fpcli.unlearn.compared_models import (
    LOGIT_DROPPED,
    Costs,
    Spending,
    WithoutLogits,
    divide_samples,
    find_folders,
    judge_stages,
    measure_speedup,
    read_models,
)
from fpcli.unlearn.original import METHOD, Original, count_rounds, make_retraining, skip_pruning
from fpcli.unlearn.ratio_search import find_ratio

USUAL_AUDITS = ("relearn", "server-diff")
"""Audits that every result has; they can do without a retrained model."""


@dataclass(frozen=True, eq=False)
class Unlearning:
    """One unlearning at work.

    Attributes:
        watch: gives what follows the run in a folder, while it is played.
        command: words of the command line.
        has_retrained: retrain without the classes too; a retraining that was begun is always
            finished.
        other: a finished run and its recipe, to stand for the retraining.
        audits: names of audits, which need a retraining; those of an earlier call are made again.
        drops_logit: judge the fine-tuned model without the classes' logits too.
        say: gets a line for each trial and audit that begins.
    """

    folder: RunFolder
    recipe: Recipe
    source: Original
    watch: Callable[[RunFolder], AbstractContextManager[RunListener]]
    command: tuple[str, ...] = ()
    has_retrained: bool = False
    other: tuple[RunFolder, Recipe] | None = None
    audits: tuple[str, ...] = ()
    drops_logit: bool = False
    say: Callable[[str], None] = lambda text: None

    def run(self) -> dict[str, Any]:
        """Play what is not played yet, judge all models, and write and return ``unlearn.json``.

        Raises:
            Interrupted: by a signal, after a checkpoint; another call goes on.
            NotForgottenError: no share of channels forgets that may be tried.
            FpError: anything that a user can mend; what was finished is kept.
        """
        if self.recipe.method.options["ratio"] == "auto":
            with _leave_nothing(self.folder):
                recipe = find_ratio(
                    self.folder, self.recipe, self.source, self._carry_on, self.say, self.command
                )
            return replace(self, recipe=recipe).run()
        self._carry_on(self.folder, self.recipe)
        scored, names = self._keep_evidence()
        rounds = count_rounds(self.folder)
        self._carry_on(self._inside("finetune-only"), skip_pruning(self.recipe, rounds))
        retraining = self._inside("retrained")
        if self.other is None and (self.has_retrained or retraining.path.exists()):
            self._carry_on(retraining, make_retraining(self.recipe, self.source))
        result = self._result()
        result["pictures"] = [str(path) for path in self._draw(result, scored, names)]
        with self.folder.lock():
            write_atomic(result_file(self.folder), json.dumps(result, indent=1) + "\n")
            self.folder.write_checksums()
        return result

    def _inside(self, name: str) -> RunFolder:
        return RunFolder(self.folder.path / name)

    def _carry_on(self, folder: RunFolder, recipe: Recipe) -> None:
        """Play a run to its end: from the start, from where it was left, or not at all."""
        is_as_long = folder.is_whole and read_stored(folder.recipe).get("rounds") == recipe.rounds
        if is_as_long and not read_run(folder.path).problem():
            return
        with self.watch(folder) as watcher:
            if not folder.recipe.is_file():
                folder.path.mkdir(exist_ok=True)
                folder.write_recipe(recipe)
            with _leave_nothing(folder):
                play_federated(recipe, folder, watcher, command=self.command, is_part=True)

    def _keep_evidence(self) -> tuple[tuple[Scored, ...], tuple[str, ...]]:
        """Write the pruned model, and what chose its channels; return these and class names."""
        unlearned = read_trained(self.folder.path, code=self.recipe.task.model)
        state_type = plugins.lookup("methods", METHOD).State
        state, _, _ = load_newest(
            self.folder.path, method_state=state_type, digest=digest_recipe(self.recipe)
        )
        tensors = {
            f"class-{scored.target}/{layer}/{what}": value.contiguous()
            for scored in state.method.classes
            for what in ("activations", "scores", "pruned")
            for layer, value in getattr(scored, what).items()
        }
        place = self.folder.path / "pruned"
        with self.folder.lock():
            place.mkdir(exist_ok=True)
            # Rounds change no support, so that of the last one is that of the pruned model.
            write_trained(place, self.source.trained.cut(unlearned.support))
            write_atomic(self.folder.path / "forgetting.safetensors", save(tensors))
            self.folder.write_checksums()
        assert unlearned.inputs is not None  # a run of this version says them
        return state.method.classes, unlearned.inputs.class_names

    def _result(self) -> dict[str, Any]:
        recipe, folder = self.recipe, self.folder
        places = find_folders(folder, recipe, self.other[0].path if self.other else None)
        recipes = {"finetuned": recipe, "finetune_only": skip_pruning(recipe, recipe.rounds)}
        if "retrained" in places:
            recipes["retrained"] = (
                self.other[1] if self.other else make_retraining(recipe, self.source)
            )
        spent = {
            stage: Costs(places[stage], stage_recipe) for stage, stage_recipe in recipes.items()
        }
        search = read_search(folder.path)
        searched = Spending(**search["cost"]) if search else None
        costs = {stage: stage_recipe.whole for stage, stage_recipe in spent.items()}
        costs["pruned"] = spent["finetuned"].begun
        data, models = divide_samples(recipe), read_models(places, recipe)
        stage_recipe = read_earlier(folder)
        audits = self._audited(models, data, stage_recipe["audits"])
        if self.drops_logit or stage_recipe["drops_logit"]:
            models[LOGIT_DROPPED] = WithoutLogits(models["finetuned"], recipe.task.withhold)
        with using_threads(num_cores()):
            last = recipe.executor.channels_last
            stages = judge_stages(models, data, costs, channels_last=last)
        ratio = None
        if "retrained" in spent:
            ratio = measure_speedup(spent["finetuned"], spent["retrained"], searched)
        return {
            "classes": list(recipe.task.withhold),
            "search": search,
            "stages": [asdict(stage) for stage in stages],
            "speedup": ratio,
            "audits": audits,
            "retrained": str(self.other[0].path.resolve()) if self.other else None,
            "run": str(folder.path),
        }

    def _audited(
        self, models: Mapping[str, nn.Module], data: AuditData, needed: Sequence[str]
    ) -> dict[str, Any]:
        """Return what the usual audits find, and those that were asked for now or earlier; the
        latter are made again, since their models may have been other ones."""
        names = list(dict.fromkeys([*USUAL_AUDITS, *needed, *self.audits]))
        if "retrained" not in models:
            names = list(USUAL_AUDITS)
            models = {stage: models[stage] for stage in ("original", "pruned", "finetuned")}
        try:
            return suite.run_audits(names, models, data, seed=self.recipe.seed, say=self.say)
        except (DataError, LayoutError, DivergedError) as error:
            if len(names) > len(USUAL_AUDITS):
                raise
            self.say(f"without audits: {error.message}")
            return {}

    def _draw(
        self, result: Mapping[str, Any], scored: Sequence[Scored], names: Sequence[str]
    ) -> list[Path]:
        """Draw the chosen channels, and all runs' accuracies over the rounds."""
        begun = {
            stage["stage"]: (stage["forget_accuracy"], stage["retain_accuracy"])
            for stage in result["stages"]
        }
        other = self.other[0].path if self.other else None
        places = find_folders(self.folder, self.recipe, other)
        shown = {
            "pruned, then tuned": "finetuned",
            "tuned alone": "finetune_only",
            "retrained": "retrained",
        }
        return draw_forgetting(
            scored,
            {word: read_run(places[key]).rounds for word, key in shown.items() if key in places},
            self.folder.path,
            starts={"pruned, then tuned": begun["pruned"], "tuned alone": begun["original"]},
            class_names=names,
            search=result["search"],
        )


@contextmanager
def _leave_nothing(folder: RunFolder) -> Iterator[None]:
    """Delete the folder if what is done in it fails before there is anything to go on from."""
    try:
        yield
    except ResumeError:  # another process works there
        raise
    except (FpError, KeyboardInterrupt):
        if not (any(folder.path.rglob("checkpoints")) or search_file(folder.path).is_file()):
            delete_folder(folder.path)
        raise


def result_file(folder: RunFolder) -> Path:
    """Return where an unlearning keeps its result."""
    return folder.path / "unlearn.json"


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return the result of a finished unlearning.

    Raises:
        DataError: its file is damaged.
    """
    path = result_file(folder)
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if lacking := {"classes", "stages", "speedup", "audits"} - {*result}:
            raise ValueError(f"`{min(lacking)}` is missing")
        if strange := {*result["audits"]} - {*plugins.list_names("audits")}:
            raise ValueError(f"audit `{min(strange)}` is unknown")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise explain_unreadable(path, error) from error
    return result


def read_earlier(folder: RunFolder) -> dict[str, Any]:
    """Return what an earlier call asked for: ``audits``, the run ``retrained``, ``drops_logit``."""
    result = read_result(folder) if result_file(folder).is_file() else {}
    stages = [stage["stage"] for stage in result.get("stages", [])]
    return {
        "audits": list(result.get("audits", {})),
        "retrained": result.get("retrained"),
        "drops_logit": LOGIT_DROPPED in stages,
    }


def is_purged(folder: RunFolder, source: RunFolder) -> bool:
    """Tell whether the models that hold the classes have been deleted, perhaps only in part."""
    return source.purged.is_file() and result_file(folder).is_file()


def purge_original(folder: RunFolder, source: RunFolder, result: Mapping[str, Any]) -> None:
    """Delete what still holds the classes, once an unlearning has its result.

    That is the original run's model, checkpoints and clients' memories; and of the unlearning those
    of ``finetune-only`` (its first checkpoint is the original model), the pruned model, and all
    checkpoints but the newest. The same call goes on with a deletion that was cut short.

    Raises:
        ResumeError: a live process works on one of the runs.
        NeedError: something cannot be deleted.
    """
    classes = ", ".join(map(str, result["classes"]))
    reason = f"deleted after class {classes} was unlearned; see {folder.path.resolve()}"
    purge(source, reason)
    purge(RunFolder(folder.path / "finetune-only"), reason)
    purge_unlearned(folder)
