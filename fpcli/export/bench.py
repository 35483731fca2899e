"""Bench: seconds of several models side by side, in turns, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.engine.process import using_threads
from fpcli.export.candidates import Candidate, skip_masked, try_out
from fpcli.structure.choice import LayerChoice
from fpcli.structure.stopwatch import TimedRun, Times, summarise_times, time_in_rotation
from fpcli.tasks.learning_task import LearningTask

LatencyTimer = Callable[..., list[Times]]
"""Like ``stopwatch.in_turns``; tests put in one that needs no time."""

_SHARES = {"forward": 0.6, "step": 0.3, "layers": 0.1}
"""What of the budget goes where."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        batches: sizes of batches.
        threads: numbers of threads of one operation.
        seconds: about how long everything may take, beyond a least number of runs.
    """

    batches: tuple[int, ...] = (1, 64)
    threads: tuple[int, ...] = (1,)
    seconds: float = 10.0

    def budget_s(self, part: str) -> float:
        """Return the seconds for one size of batch and number of threads."""
        count = 1 if part == "layers" else len(self.batches) * len(self.threads)
        return self.seconds * _SHARES[part] / count


@dataclass(frozen=True)
class Latency:
    """Seconds with one size of batch and number of threads.

    Attributes:
        ratio: median over that of the first model.
    """

    batch: int
    threads: int
    times: Times
    ratio: float


@dataclass
class BenchRow:
    """What was measured of one model.

    Attributes:
        name: its path, and which kernels.
        forward: forward passes, in the order of the plan.
        step: training steps likewise; only of our networks, and of batches of two and more.
        layers: module -> its kind and seconds of a forward pass with the largest batch.
        sparse: what was chosen for each masked layer, by size of batch and number of threads;
            empty for a model that was run as it is.
    """

    name: str
    candidate: Candidate
    forward: list[Latency] = field(default_factory=list)
    step: list[Latency] = field(default_factory=list)
    layers: dict[str, tuple[str, float]] = field(default_factory=dict)
    sparse: dict[tuple[int, int], list[LayerChoice]] = field(default_factory=dict)


def time_in_turns(
    candidates: Sequence[Candidate],
    plan: Plan,
    *,
    timer: LatencyTimer = time_in_rotation,
    tell: Callable[[str], None] = lambda text: None,
) -> list[BenchRow]:
    """Time models in turns.

    A model with masks has a second row, where layers skip masked weights if that is faster.

    Args:
        candidates: the first is what the others are compared with.
        tell: takes a line about what is being measured.

    Raises:
        DataError: a model does not take batches of such a size.
    """
    rows = [BenchRow(str(item.path), item) for item in candidates]
    sparse = [BenchRow(f"{item.path}, sparse kernels", item) for item in candidates if item.masks]
    for threads in plan.threads:
        with using_threads(threads):
            for batch in plan.batches:
                tell(f"forward passes: batch {batch}, threads {threads}")
                _forward(rows, sparse, batch, threads, plan, timer)
                if batch > 1:  # batch norm cannot train on a single sample
                    tell(f"training steps: batch {batch}, threads {threads}")
                    _steps(rows, batch, threads, plan, timer)
    with using_threads(plan.threads[0]):
        for row in rows:
            if row.candidate.build is not None:
                tell(f"layers of {row.name}")
                x = row.candidate.draw(max(plan.batches))
                budget_s = plan.budget_s("layers") / len(rows)
                row.layers = layer_times(row.candidate.build(), x, budget_s)
    return rows + sparse


def _forward(
    rows: list[BenchRow],
    sparse: list[BenchRow],
    batch: int,
    threads: int,
    plan: Plan,
    timer: LatencyTimer,
) -> None:
    runs = [try_out(row.candidate, row.candidate.draw(batch)) for row in rows]
    for row in sparse:
        candidate = row.candidate
        assert candidate.build is not None  # only our networks have masks
        run, choices = skip_masked(candidate.build, candidate.masks, candidate.draw(batch))
        row.sparse[batch, threads] = choices
        runs.append(run)
    times = timer(runs, budget_s=plan.budget_s("forward"))
    for row, seconds in zip(rows + sparse, times, strict=True):
        ratio = seconds.median_s / times[0].median_s
        row.forward.append(Latency(batch, threads, seconds, ratio))


def _steps(rows: list[BenchRow], batch: int, threads: int, plan: Plan, timer: LatencyTimer) -> None:
    ours, runs = [], []
    for row in rows:
        candidate = row.candidate
        if candidate.build is not None:
            assert candidate.task is not None  # only files of others do not say it
            ours.append(row)
            runs.append(step_run(candidate.build(), candidate.draw(batch), candidate.task))
    times = timer(runs, budget_s=plan.budget_s("step")) if runs else []
    for row, seconds in zip(ours, times, strict=True):
        ratio = seconds.median_s / times[0].median_s
        row.step.append(Latency(batch, threads, seconds, ratio))


def step_run(model: nn.Module, x: Tensor, task: LearningTask) -> TimedRun:
    """Return a training step: forward, the task's loss of made-up targets, backward, plain SGD.

    Args:
        model: is put in training mode; its weights stay as they are, since the rate is 0.
    """
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = (x, task.make_targets(len(x)))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        task.loss(model, batch).backward()
        optimizer.step()

    return run


@torch.no_grad()
def layer_times(
    model: nn.Module,
    x: Tensor,
    budget_s: float,
    *,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[str, float]]:
    """Return module -> kind and median seconds of one call of it in a forward pass, in order.

    Args:
        model: only modules without children count.
        budget_s: passes are made for so long, and ``least`` in any case.
    """
    seconds: dict[str, list[float]] = {}
    started: dict[str, float] = {}
    kinds, handles = {}, []
    for name, module in model.named_modules():
        if next(module.children(), None) is not None:
            continue
        kinds[name] = type(module).__name__

        def before(_: nn.Module, __: Any, name: str = name) -> None:
            started[name] = clock()

        def after(_: nn.Module, __: Any, ___: Any, name: str = name) -> None:
            seconds.setdefault(name, []).append(clock() - started[name])

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))
    model.eval()(x)
    seconds.clear()
    begun, passes = clock(), 0
    while passes < least or clock() - begun < budget_s:
        model(x)
        passes += 1
    for handle in handles:
        handle.remove()
    return {name: (kinds[name], summarise_times(times).median_s) for name, times in seconds.items()}
