"""What `fp bench` prints: its tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpcli.cli import show
from fpcli.export.bench import BenchRow, Latency, Plan
from fpcli.export.crossover import SPARSITIES, CrossoverRow
from fpcli.units import format_bytes

Needs = Mapping[Path, Mapping[str, int] | None]

_MOST_LAYERS = 12
"""Of more layers the table shows the slowest."""


def bench_fields(rows: Sequence[BenchRow], plan: Plan, needs: Needs) -> dict[str, Any]:
    """Return the command's ``data``."""
    return {
        "batch": list(plan.batches),
        "threads": list(plan.threads),
        "models": [
            {
                "name": row.name,
                "path": str(row.candidate.path),
                "kind": row.candidate.kind,
                "bytes": row.candidate.bytes,
                "forward": [_timing(timing) for timing in row.forward],
                "training_step": [_timing(timing) for timing in row.step],
                "layers": [
                    {"name": name, "kind": kind, "median_s": seconds}
                    for name, (kind, seconds) in row.layers.items()
                ],
                "memory": None if row.sparse else needs.get(row.candidate.path),
                "sparse": [
                    {"batch": batch, "threads": threads, "layers": [asdict(c) for c in choices]}
                    for (batch, threads), choices in row.sparse.items()
                ],
            }
            for row in rows
        ],
    }


def _timing(timing: Latency) -> dict[str, Any]:
    return {"batch": timing.batch, "threads": timing.threads} | {
        "median_s": timing.times.median_s,
        "p90_s": timing.times.p90_s,
        "runs": timing.times.num,
        "ratio": timing.ratio,
    }


def bench_panels(
    rows: Sequence[BenchRow],
) -> tuple[list[str], dict[str, list[tuple[float, float]]]]:
    """Return what a picture needs: names, and per panel milliseconds of every model."""
    bars: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for timing in row.forward:
            title = f"batch {timing.batch}, {_threads(timing.threads)}"
            numbers = (1e3 * timing.times.median_s, 1e3 * timing.times.p90_s)
            bars.setdefault(title, []).append(numbers)
    return [row.name for row in rows], bars


def bench_text(rows: Sequence[BenchRow], plan: Plan, needs: Needs, files: Sequence[Path]) -> str:
    """Return the tables for people."""
    parts = [_speed(rows), _sizes(rows, plan, needs)]
    parts += [_layers(row, plan) for row in rows if row.layers]
    parts += [_skipping_text(row) for row in rows if row.sparse]
    if files:
        parts.append(f"wrote {', '.join(map(str, files))}")
    return "\n\n".join(parts)


def _speed(rows: Sequence[BenchRow]) -> str:
    cells = []
    for what, kind in (("forward pass", "forward"), ("training step", "step")):
        for number in range(max(len(getattr(row, kind)) for row in rows)):
            for row in rows:
                if number >= len(getattr(row, kind)):
                    continue
                timing: Latency = getattr(row, kind)[number]
                of = timing.times
                numbers = (_ms(of.median_s), _ms(of.p90_s), f"{of.num}", f"{timing.ratio:.2f}")
                setting = (str(timing.batch), str(timing.threads))
                cells.append((what, *setting, *numbers, row.name))
    heads = ("", "batch", "threads", "median ms", "p90 ms", "runs", "ratio to first", "model")
    return show.align(heads, cells, right=range(1, 7), leave=(5, 4))


def _sizes(rows: Sequence[BenchRow], plan: Plan, needs: Needs) -> str:
    cells = []
    for row in rows:
        need = needs.get(row.candidate.path)
        if row.sparse:
            continue
        keys = ("peak_bytes", "own_bytes")
        memory = [format_bytes(need[key]) if need else "?" for key in keys]
        cells.append((f"{row.candidate.bytes:,} B", *memory, row.name))
    heads = ("file", f"peak memory, batch {max(plan.batches)}", "beyond libraries", "model")
    return show.align(heads, cells, right=range(3))


def _layers(row: BenchRow, plan: Plan) -> str:
    total = sum(seconds for _, seconds in row.layers.values())
    shown = list(row.layers.items())
    if len(shown) > _MOST_LAYERS:
        shown = sorted(shown, key=lambda item: -item[1][1])[:_MOST_LAYERS]
    cells = [
        (name, kind, _ms(seconds), f"{seconds / total:.0%}") for name, (kind, seconds) in shown
    ]
    is_cut = len(shown) < len(row.layers)
    less = f", the {len(shown)} slowest of {len(row.layers)}" if is_cut else ""
    title = f"layers of {row.name}, batch {max(plan.batches)}, {_threads(plan.threads[0])}{less}"
    table = show.align(("layer", "kind", "median ms", "share"), cells, right=(2, 3))
    return f"{show.prose(title)}\n{table}"


def _skipping_text(row: BenchRow) -> str:
    cells = [
        (
            choice.name, str(batch), str(threads), f"{1 - choice.density:.1%}",
            f"{choice.sparse_s / choice.dense_s:.2f}", "sparse" if choice.is_sparse else "dense",
        )
        for (batch, threads), choices in row.sparse.items()
        for choice in choices
    ]  # fmt: skip
    heads = ("weight", "batch", "threads", "sparsity", "sparse / dense", "runs")
    title = show.prose(f"{row.name}: each layer measured both ways")
    return f"{title}\n{show.align(heads, cells, right=range(1, 5))}"


def crossover_fields(rows: Sequence[tuple[int, CrossoverRow]]) -> dict[str, Any]:
    """Return the ``data`` of ``--crossover``."""
    return {
        "rows": [
            {
                "layer": row.layer,
                "batch": row.batch,
                "threads": threads,
                "use": row.use,
                "ratios": [{"sparsity": s, "ratio": r} for s, r in row.ratios.items()],
                "crossover_sparsity": row.sparsity,
            }
            for threads, row in rows
        ]
    }


def crossover_text(rows: Sequence[tuple[int, CrossoverRow]]) -> str:
    """Return the table of ``--crossover``."""
    cells = [
        (
            row.layer, str(row.batch), str(threads),
            "forward" if row.use == "evaluate" else "and backward",
            *(f"{row.ratios[sparsity]:.2f}" for sparsity in SPARSITIES),
            _from(row.sparsity),
        )
        for threads, row in rows
    ]  # fmt: skip
    sparsities = [f"{sparsity:.0%}" for sparsity in SPARSITIES]
    heads = ("layer", "batch", "threads", "pass", *sparsities, "pays from")
    scale = range(4, 4 + len(SPARSITIES))
    right = (1, 2, *scale, scale.stop)
    table = show.align(heads, cells, right=right, leave=show.thin_out(scale))
    title = "seconds of sparse kernels over those of dense ones, by sparsity"
    return f"{show.prose(title)}\n{table}"


def _from(sparsity: float | None) -> str:
    if sparsity is None:
        return "never"
    return f"<= {sparsity:.0%}" if sparsity == SPARSITIES[0] else f"{sparsity:.0%}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"
