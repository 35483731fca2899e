"""Sparse kernels against dense ones: ``pytest tests/bench -m bench -n 0 --benchmark-enable -s``."""

from __future__ import annotations

from typing import Any

import pytest

from fpcli.engine.process import settle_process
from fpcli.export.crossover import CrossoverRow, measure_crossover

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
