"""Sparse kernels against dense ones: ``pytest tests/bench -m bench -n 0 --benchmark-enable -s``."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import pytest
import torch
from torch import nn

from fpcli.engine.process import settle_process
from fpcli.export.crossover import CrossoverRow, measure_crossover
from fpcli.structure.packed_kernel import PackedLinear, find_bands

pytestmark = pytest.mark.bench
settle_process()


def test_the_crossover(benchmark: Any) -> None:
    """Large linear layers pay in evaluation; small convolutions never do."""
    shapes = ((3136, 512, 0, 1), (64, 64, 3, 8), (512, 512, 3, 4))
    rows: list[CrossoverRow] = benchmark.pedantic(
        lambda: measure_crossover([32], shapes=shapes), rounds=1
    )
    for row in rows:
        print(f"\n{row.layer} {row.use}: {row.ratios}, pays from {row.sparsity}")
        benchmark.extra_info[f"{row.layer} {row.use}"] = row.sparsity


@pytest.mark.parametrize("shape", [(84, 120), (512, 512), (2048, 3136)], ids=str)
def test_dense_products_of_half_columns(benchmark: Any, shape: tuple[int, int]) -> None:
    """In milliseconds, a layer whose mask keeps half of the half-columns: masked and packed take
    turns, in evaluation and in a step of training."""
    rows, columns = shape
    generator = torch.Generator().manual_seed(0)
    bits = torch.stack([torch.randperm(columns, generator=generator) for _ in range(2)])
    mask = (bits < columns // 2).repeat_interleave(rows // 2, 0)
    masked, packed = nn.Linear(columns, rows), PackedLinear(columns, rows)
    with torch.no_grad():
        masked.weight.mul_(mask)
    packed.take(masked, find_bands(mask))
    x = torch.randn(32, columns, generator=generator)

    def evaluate(layer: nn.Linear) -> None:
        with torch.no_grad():
            layer(x)

    def train(layer: nn.Linear) -> None:
        layer(x.clone().requires_grad_()).sum().backward()

    def measure() -> dict[str, float]:
        seconds: dict[str, list[float]] = {}
        for _ in range(200):
            for use in (evaluate, train):
                for name, layer in (("masked", masked), ("packed", packed)):
                    layer.train(use is train)
                    use(layer)  # evaluation cuts the weight in the first call
                    began = perf_counter()
                    use(layer)
                    seconds.setdefault(f"{use.__name__} {name}", []).append(perf_counter() - began)
        return {name: round(1e3 * median(each), 4) for name, each in seconds.items()}

    found = benchmark.pedantic(measure, rounds=1)
    print(f"\n{rows} x {columns}: {found}")
    benchmark.extra_info.update(found)
