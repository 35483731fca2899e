"""`fp sensitivity`: which share of each channel group a trained model can lose."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.prune_command import with_inputs
from fpcli.cli.session import Session, to_json
from fpcli.cli.words import make_importable
from fpcli.errors import UsageError
from fpcli.settings import options as o
from fpcli.units import parse_share

if TYPE_CHECKING:
    from fpcli.data.datasets import Dataset
    from fpcli.engine.trained import Trained
    from fpcli.pruning.sweep import SweepConfig, Tally

_SAVE_EVERY_S = 1.0
_MAX_RATIOS = 1000
_SAID_AGAIN = {
    "-w": "weights",
    "--model": "model",
    "--data": "data",
    "--data-dir": "data_dir",
    "--normalise": "normalise",
}


def run_sensitivity(ctx: typer.Context, given: o.SweepOptions, output: o.Output) -> None:
    """Measure how much each layer of a trained model can lose."""
    _Call(ctx.obj, ctx.params).run()


@dataclass
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    def run(self) -> None:
        """Sweep, and write and show the result."""
        from fpcli.cli.sensitivity_result import sweep_text
        from fpcli.engine.process import num_cores, settle_process
        from fpcli.files import write_atomic
        from fpcli.pruning.sensitivity import identify_sweep, order_by_steepness, result
        from fpcli.report.sensitivity_plots import draw_sensitivity
        from fpcli.store.partial import locate_partial, read_partial

        config, out = self._config(), self.options["out"]
        if not out.parent.is_dir():
            raise UsageError(f"no folder {out.parent}", hint="make it first", where="-o")
        settle_process(num_cores())
        trained, dataset = self._materials()
        same = identify_sweep(trained, config)
        earlier = read_partial(out, same, force=self.options["force"])
        started = time.perf_counter()
        tallies = self._sweep(trained, dataset, config, earlier)
        content = result(
            trained,
            config,
            tallies,
            max_drop=self.options["max_drop"],
            seconds=time.perf_counter() - started,
        )
        write_atomic(out, to_json(content) + "\n")
        pictures = draw_sensitivity(content, out.with_suffix(""))
        locate_partial(out).unlink(missing_ok=True)
        data = _to_json(content) | {
            "steep_to_flat": order_by_steepness(content["groups"]),
            "out": str(out),
            "pictures": [str(path) for path in pictures],
        }
        self.session.finish(data, sweep_text(content, out, pictures))
        self.session.hint(f"use it: {self._next(out)}")

    def _config(self) -> SweepConfig:
        from fpcli.pruning.sweep import SweepConfig
        from fpcli.settings.learning import FitConfig

        split, epochs = self.options["split"], self.options["retrain"]
        if split not in ("validation", "test"):
            raise UsageError(
                f"--split {split}: unknown", hint="give validation or test", where="--split"
            )
        if split == "test":
            self.session.warnings.append(
                "test images judge: ratios chosen by them make the pruned model look too good on "
                "test data"
            )
        # The paper's retraining; its weight decay is that of the networks' own paper.
        retraining = FitConfig(
            epochs=epochs, lr=self.options["lr"], schedule="constant", weight_decay=1e-4
        )
        return SweepConfig(
            scores=tuple(dict.fromkeys(self.options["score"] or ["l1"])),
            ratios=parse_ratios(self.options["ratios"]),
            samples=self.options["samples"],
            is_test=split == "test",
            retraining=retraining if epochs else None,
            seed=self.options["seed"],
        )

    def _materials(self) -> tuple[Trained, Dataset]:
        """Return the model and its data."""
        from fpcli.errors import LayoutError
        from fpcli.settings.recipes import PruneRecipe
        from fpcli.settings.tasks import FitTask
        from fpcli.store.model_folder import read_trained
        from fpcli.train.model_source import build_named, find_folder, load_data_of

        word, weights, code, data, data_dir, normalise = (
            self.options[key]
            for key in ("source", "weights", "model", "data", "data_dir", "normalise")
        )
        make_importable([word, code, data, *(self.options["score"] or ())])
        name = word or code
        folder = find_folder(word, self.options["runs"], weights)
        if folder is not None:
            trained = read_trained(folder, code=code or "")
            place = Path(data_dir) if data_dir else None
            dataset = load_data_of(trained, data, place, normalise)
        elif name is None or weights is None or data is None:
            missing = "model" if name is None else "weights" if weights is None else "data"
            raise UsageError(
                f"no {missing} given",
                hint="for example `fp sensitivity lenet5 -w FILE --data mnist`, or a run",
            )
        else:
            task = FitTask(
                data=data, model=name, data_dir=data_dir or "", normalise=normalise or "auto"
            )
            trained, loaded = build_named(
                PruneRecipe(task=task, seed=self.options["seed"]), weights
            )
            assert loaded is not None  # only a plan goes without
            dataset = loaded
        if not trained.layout.prunable:
            raise LayoutError(
                f"`{trained.model}` has no channels that may leave",
                hint="its layers meet operations that tie all channels together",
            )
        return with_inputs(trained, dataset, self.session, self.options), dataset

    def _sweep(
        self,
        trained: Trained,
        dataset: Dataset,
        config: SweepConfig,
        earlier: Mapping[str, Tally],
    ) -> dict[str, Tally]:
        """Return all tallies; whatever stops the sweep, what it has found is kept."""
        from fpcli.cli.sweep_watch import SweepWatcher
        from fpcli.pruning.sensitivity import identify_sweep
        from fpcli.pruning.sweep import judge_cuts, list_cuts
        from fpcli.store.partial import write_partial

        out, same = self.options["out"], identify_sweep(trained, config)
        cuts = list_cuts(trained, dataset, config)
        tallies = dict(earlier)
        watcher = SweepWatcher(
            trained, dataset, config, cuts, is_quiet=self.options["quiet"] or self.session.is_json,
            is_moving=not self.options["no_progress"],
        )  # fmt: skip
        watcher.start(tallies)
        saved = time.monotonic()
        try:
            for key, tally in judge_cuts(trained, dataset, config, cuts, earlier):
                tallies[key] = tally
                watcher.update(key, tallies)
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    write_partial(out, same, tallies)
                    saved = time.monotonic()
        except BaseException:
            if tallies != earlier:
                write_partial(out, same, tallies)
                watcher.stopped()
            raise
        finally:
            watcher.end()
        return tallies

    def _next(self, out: Path) -> str:
        words = ["fp", "prune"]
        if self.options["source"]:
            words.append(self.options["source"])
        for flag, key in _SAID_AGAIN.items():
            if self.options[key]:
                words += [flag, str(self.options[key])]
        drop = f"{self.options['max_drop']:g}"
        return f"`{shlex.join([*words, '--rates', str(out), '--max-drop', drop])}`"


def parse_ratios(text: str) -> tuple[float, ...]:
    """Return the ratios of ``FIRST:LAST:STEP`` or of a list, ascending.

    Raises:
        UsageError: it is neither, or a ratio is not in [0, 1).

    >>> parse_ratios("0.1:0.5:0.2"), parse_ratios("0.5, 0.25")
    ((0.1, 0.3, 0.5), (0.25, 0.5))
    """
    hint = "for example `--ratios 0.1:0.9:0.1` or `--ratios 25%,50%`"
    try:
        if ":" in text:
            first, last, step = (parse_share(word) for word in text.split(":"))
            count = (last - first) / step + 1e-9
            if not (step > 0 and 0 <= count < _MAX_RATIOS):
                raise ValueError
            steps: Sequence[float] = [first + number * step for number in range(int(count) + 1)]
        else:
            steps = [parse_share(word) for word in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(f"--ratios {text}: no grid and no list of ratios", hint=hint,
                         where="--ratios") from error  # fmt: skip
    ratios = tuple(sorted({round(ratio, 9) for ratio in steps}))
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise UsageError(
                f"--ratios {text}: {ratio:g} is no share from 0 to below 1",
                hint=hint,
                where="--ratios",
            )
    return ratios


def _to_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``--json``: the result without what only pictures need."""
    baseline = f"baseline_{content['metric']}"
    keys = ("model", "metric", baseline, "baseline_loss", "images", "ratios", "max_drop")
    drawn = {"norms"} if len(content["scores"]) > 1 else {"norms", "curves"}
    groups = [{k: v for k, v in group.items() if k not in drawn} for group in content["groups"]]
    return {key: content[key] for key in keys} | {"groups": groups, "seconds": content["seconds"]}
