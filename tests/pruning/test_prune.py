from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from prunings import context, trained_of

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, DivergedError, LayoutError, UsageError
from fpcli.models.build import build
from fpcli.pruning.filters import Filters
from fpcli.pruning.gdp import GDP
from fpcli.pruning.prune import TOLERANCE, plan_cut, prune_in_steps, retrain
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.settings.learning import FitConfig
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify


def test_steps_cut_retrain_and_leave_a_history(cnn: Trained, digits: Dataset) -> None:
    history: list[dict[str, Any]] = []
    px = context(digits, epochs=1, log=lambda **values: history.append(values))
    result = prune_in_steps(Filters(), px, cnn, PruneTarget("ratio", 0.5), num_steps=2)
    assert [event["event"] for event in history] == [
        "before", "cut", "epoch", "cut", "epoch", "after",
    ]  # fmt: skip
    assert [event.get("step") for event in history] == [None, 1, 1, 2, 2, None]
    # A quarter goes first: 12 of 16, 24 of 32, 48 of 64.
    assert history[1]["widths"] == {"conv1": (16, 12), "conv2": (32, 24), "fc1": (64, 48)}
    assert result.widths == {"conv1": (16, 8), "conv2": (32, 16), "fc1": (64, 32)}
    assert result.before.cost.params == 38_282
    # 8 * 9 + 8, 16 * 72 + 16, 32 * 256 + 32, 10 * 32 + 10
    assert result.after.cost.params == result.pruned.cost.params == 80 + 1168 + 8224 + 330
    assert result.after.validation is not None and result.pruned.validation is not None
    assert result.after.validation.loss < result.pruned.validation.loss
    small = dict(result.trained.module().named_parameters())
    assert small["conv2.weight"].shape == (16, 8, 3, 3)


@pytest.mark.parametrize("name", ["digits-cnn", "resnet20"])
def test_the_small_network_computes_what_the_masked_one_does(digits: Dataset, name: str) -> None:
    """With batch norm too, whose shift would leak through a kernel of zeros."""
    net = trained_of(build(name, (1, 8, 8), Classify(10), seed=3), (1, 8, 8))
    shaken = {key: x + 0.1 * torch.rand_like(x) for key, x in net.values.items()}
    px = context(digits, residual="group-sum")
    result = prune_in_steps(Filters(), px, replace(net, values=shaken), PruneTarget("ratio", 0.5))
    assert 0 <= result.difference <= TOLERANCE
    assert result.after == result.pruned


def test_nothing_asked_for_changes_nothing(cnn: Trained) -> None:
    cut = Filters().cut(context(), cnn, PruneTarget("ratio", 0.0))
    assert all(torch.equal(cut.values[name], x) for name, x in cnn.values.items())
    with pytest.raises(CheckError, match="nothing was removed"):
        plan_cut(Filters(), context(), cnn, PruneTarget("ratio", 0.0))


class Lazy(Pruner):
    """Removes one channel whatever is asked for."""

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        return trained.cut(Support({"fc1": torch.arange(63)}))


def test_a_method_that_misses_its_target_is_found_out(cnn: Trained) -> None:
    with pytest.raises(CheckError, match=r"bytes cannot fall to 50.00%: the closest is 98.63%"):
        plan_cut(Lazy(), context(), cnn, PruneTarget("bytes", 0.5))


@pytest.mark.parametrize("measure", ["params", "macs", "bytes"])
def test_targets_are_of_the_model_at_the_start(cnn: Trained, measure: Any) -> None:
    whole = getattr(count_cost(cnn.layout, Support()), measure)
    first = plan_cut(Filters(), context(), cnn, PruneTarget(measure, 0.5))
    second = plan_cut(Filters(), context(), first.trained, PruneTarget(measure, 0.5))
    sizes = [getattr(result.after.cost, measure) for result in (first, second)]
    assert 0.4 * whole < sizes[0] <= 0.5 * whole
    assert 0.4 * sizes[0] < sizes[1] <= 0.5 * sizes[0]


def test_retraining_obeys_masks_and_repeats_its_bits(cnn: Trained, digits: Dataset) -> None:
    mask = {"fc1.weight": torch.rand(64, 512, generator=torch.Generator().manual_seed(0)) > 0.9}
    sparse = cnn.cut(Support({"conv1": torch.arange(4)}, mask))
    one, two = (retrain(context(digits, epochs=1), sparse, purpose="test") for _ in range(2))
    assert not one.values["fc1.weight"][~mask["fc1.weight"]].any()
    assert not torch.equal(one.values["fc1.weight"], sparse.values["fc1.weight"])
    assert all(torch.equal(one.values[name], two.values[name]) for name in one.values)


def test_retraining_changes_the_images_if_asked(cnn: Trained, digits: Dataset) -> None:
    plain, crop = (
        retrain(context(digits, epochs=1, augment=augment), cnn, purpose="test")
        for augment in ("none", "crop")
    )
    assert not torch.equal(plain.values["conv1.weight"], crop.values["conv1.weight"])


def test_a_method_that_trains_cannot_be_planned(cnn: Trained) -> None:
    with pytest.raises(UsageError, match="while it trains"):
        plan_cut(GDP(), replace(context(), options=GDP.Options()), cnn, PruneTarget("ratio", 0.5))


def test_what_cannot_be_pruned_or_trained_is_said(digits: Dataset, cnn: Trained) -> None:
    linear = trained_of(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), (1, 8, 8))
    with pytest.raises(LayoutError, match="no channels that may leave"):
        plan_cut(Filters(), context(), linear, PruneTarget("ratio", 0.5))
    wild = replace(context(digits), retraining=FitConfig(epochs=1, lr=1e30))
    with pytest.raises(DivergedError, match="not finite"):
        prune_in_steps(Filters(), wild, cnn, PruneTarget("ratio", 0.5))
