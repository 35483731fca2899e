"""`fp bench`: how long models take on this machine, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.session import Session
from fpcli.cli.words import make_importable, new_files
from fpcli.errors import UsageError
from fpcli.settings import options as o

if TYPE_CHECKING:
    from fpcli.export.bench import Plan
    from fpcli.export.candidates import Candidate


def run_bench(ctx: typer.Context, given: o.BenchOptions) -> None:
    """Time models on this machine, side by side and layer by layer."""
    call = _Call(ctx.obj, ctx.params)
    if given.crossover:
        call.crossover()
    else:
        call.bench()


_LARGEST = 1_000_000


@dataclass(frozen=True)
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    def bench(self) -> None:
        """Open the models, time them, show what was found."""
        from fpcli.cli.bench_result import bench_fields, bench_panels, bench_text
        from fpcli.engine.process import settle_process
        from fpcli.export import peak_memory
        from fpcli.export.bench import time_in_turns
        from fpcli.export.candidates import open_candidate

        plan, options = self._plan(), self.options
        files = self._files()
        if not options["paths"]:
            raise UsageError(
                "nothing to time",
                hint="give runs or files, as `fp bench runs/NAME model.onnx`, or --crossover",
            )
        settle_process()
        make_importable([options["model"]])
        code = options["model"] or ""
        candidates = [open_candidate(path, code=code) for path in options["paths"]]
        profiled = self._profiled(candidates)
        rows = time_in_turns(candidates, plan, tell=self.session.note)
        needs = {}
        for candidate in candidates:
            self.session.note(f"memory of {candidate.path}")
            needs[candidate.path] = peak_memory.measure_peak(
                candidate.path, max(plan.batches), code
            )
            if needs[candidate.path] is None:
                self.session.warnings.append(f"{candidate.path}: its memory could not be measured")
        data = bench_fields(rows, plan, needs)
        if profiled is not None:
            self._save_profile(profiled, plan)
        if options["out"]:
            from fpcli.report.bench_plot import draw_bench

            labels, bars = bench_panels(rows)
            draw_bench(labels, bars, options["out"].with_suffix(""))
        data["files"] = [str(path) for path in files]
        self.session.warn()
        self.session.finish(data, bench_text(rows, plan, needs, files))
        if profiled is not None:
            self.session.hint(
                f"`fp train --method prunefl --fleet {options['save_profile']}` plans with it"
            )

    def crossover(self) -> None:
        """Time layers of typical shapes at several sparsities."""
        from fpcli.cli.bench_result import crossover_fields, crossover_text
        from fpcli.engine.process import settle_process, using_threads
        from fpcli.export.crossover import measure_crossover

        plan = self._plan()
        for name in ("paths", "out", "save_profile"):
            if self.options[name]:
                raise UsageError(
                    "--crossover is about single layers",
                    hint="leave out paths, -o and --save-profile",
                    where="--crossover",
                )
        settle_process()
        rows = []
        for number in plan.threads:
            self.session.note(f"layers, threads {number}")
            with using_threads(number):
                rows += [(number, row) for row in measure_crossover(plan.batches)]
        self.session.finish(crossover_fields(rows), crossover_text(rows))

    def _plan(self) -> Plan:
        from fpcli.export.bench import Plan

        options = self.options
        batches = parse_numbers("--batch", options["batch"])
        return Plan(batches, parse_numbers("--threads", options["threads"]), options["seconds"])

    def _files(self) -> list[Path]:
        """Return what will be written."""
        names = {"-o": ("out", ".png", ".svg"), "--save-profile": ("save_profile", ".yaml")}
        return [
            file
            for flag, (key, *suffixes) in names.items()
            if (path := self.options[key]) is not None
            for file in new_files(flag, path, *suffixes, force=self.options["force"])
        ]

    def _profiled(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the model whose training step makes the profile, if one is wanted."""
        if self.options["save_profile"] is None:
            return None
        ours = next((item for item in candidates if item.build is not None), None)
        if ours is None:
            raise UsageError(
                "--save-profile needs a network that can be trained",
                hint="give a run or a .safetensors file first",
                where="--save-profile",
            )
        return ours

    def _save_profile(self, candidate: Candidate, plan: Plan) -> None:
        from fpcli.engine.process import using_threads
        from fpcli.export.profile import profile_device
        from fpcli.files import write_atomic
        from fpcli.recipe.fleet_file import fleet_text

        build, task, shape = candidate.build, candidate.task, candidate.input_shape
        assert build is not None and task is not None
        batch, threads = max(plan.batches), plan.threads[0]
        self.session.note(f"training steps of {candidate.path}, layer by layer")
        with using_threads(threads):
            device_class = profile_device(
                f"measured, threads {threads}", build(), shape, batch, task
            )
        remark = "Written by `fp bench`: flops and step are measured, down and up are not."
        write_atomic(self.options["save_profile"], fleet_text([device_class], remark))


def parse_numbers(flag: str, words: str) -> tuple[int, ...]:
    """Return a list of whole numbers from 1 to a million.

    Raises:
        UsageError: it is none.

    >>> parse_numbers("--batch", "1,64")
    (1, 64)
    """
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in words.split(",")))
    except ValueError:
        numbers = (0,)
    if not 1 <= min(numbers) <= max(numbers) <= _LARGEST:
        raise UsageError(
            f"{flag}: `{words}` is no list of whole numbers from 1 to {_LARGEST:,}",
            hint=f"for example `{flag} 1,64`",
            where=flag,
        )
    return numbers
