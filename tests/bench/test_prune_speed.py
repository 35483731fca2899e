"""Speed of pruning one model: ``pytest tests/bench/test_prune_speed.py -m bench -s``."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prunings import context, named

from fpcli.engine.process import settle_process
from fpcli.pruning.filters import Filters
from fpcli.pruning.prune import plan_cut
from fpcli.pruning.pruner import PruneTarget

pytestmark = pytest.mark.bench
settle_process()

LIMIT_S = 2.0


@pytest.mark.parametrize("strategy", ["independent", "greedy"])
def test_pruning_and_shrinking_resnet56(benchmark: Any, strategy: str) -> None:
    """Scores, cut and small module, for a target that has to be searched for."""
    net = named("resnet56")
    px = context(strategy=strategy, residual="group-sum")

    def work() -> None:
        plan_cut(Filters(), px, net, PruneTarget("macs", 0.5)).trained.module()

    started = time.process_time()
    work()
    seconds = time.process_time() - started
    print(f"\nresnet56, {strategy}: {seconds:.2f} s of CPU after the trace")
    assert seconds < LIMIT_S
    benchmark.pedantic(work, rounds=3)
