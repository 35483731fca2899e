from __future__ import annotations

from typing import Any

import pytest
import torch
from prunable import context, of_model
from torch import nn

from fpcli.engine.central import train_centrally
from fpcli.errors import CheckError
from fpcli.pruning.imt import IMT, Options
from fpcli.pruning.pruner import PruneTarget
from fpcli.structure.cost import count_cost

NONE = PruneTarget("ratio", 0.0)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 10)
    )


def larger() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))


def cut(
    model: nn.Module, target: PruneTarget = NONE, **options: Any
) -> tuple[Any, list[dict[str, Any]]]:
    logged: list[dict[str, Any]] = []
    px = context(Options(**options), log=lambda **values: logged.append(values))
    return IMT().cut(px, of_model(model), target), logged


def test_a_fixed_rate_masks_exactly_that_many_weights_of_the_smallest() -> None:
    """Eligible: 64*8 + 8 + 8*10 + 10 = 610 (batch norm is not); floor(0.3 * 610) = 183 leave."""
    pruned, _ = cut(small(), PruneTarget("ratio", 0.3), rate="fixed", warmup_steps=0)
    masks = pruned.support.mask
    assert sum(int((~bits).sum()) for bits in masks.values()) == 183
    assert not any("2." in name for name in masks)
    values = {name: small().state_dict()[name] for name in masks}
    gone = torch.cat([values[name][~masks[name]].abs() for name in masks])
    left = torch.cat([values[name][masks[name]].abs() for name in masks])
    assert float(gone.max()) <= float(left.min())


def test_survivors_are_rewound_or_go_on() -> None:
    fixed = {"rate": "fixed", "warmup_steps": 4}
    target = PruneTarget("ratio", 0.5)
    rewound, _ = cut(small(), target, **fixed)
    going_on, _ = cut(small(), target, rewind="none", **fixed)
    initial = small().state_dict()
    for name, bits in rewound.support.mask.items():
        assert torch.equal(rewound.values[name], torch.where(bits, initial[name], 0.0))
        assert torch.equal(bits, going_on.support.mask[name])  # both rank at W'
    assert not torch.equal(going_on.values["1.weight"], rewound.values["1.weight"])


def test_the_report_says_where_the_rate_came_from() -> None:
    """On a network of this size the estimator decides: along the segment no gap is wide enough."""
    pruned, (found,) = cut(small())
    assert found["event"] == "curvature"
    assert found["is_exact"]
    assert found["branch"] == "spectrum"
    assert found["widest"] < 4 * found["lipschitz"]
    assert 0 < found["rate"] <= 0.98
    size = count_cost(pruned.layout, pruned.support)
    total = count_cost(pruned.layout, type(pruned.support)())
    assert size.params == total.params - int(found["rate"] * 610 + 1e-9)


def test_the_local_estimate_finds_a_gap_and_the_cap_holds() -> None:
    _, (found,) = cut(small(), lipschitz="local", max_rate=0.9)
    assert found["branch"] == "gap"
    assert found["rate"] <= 0.9
    assert found["widest"] > 4 * found["lipschitz"]


def test_no_gap_can_be_an_error_or_a_fixed_rate() -> None:
    with pytest.raises(CheckError, match="no spectral gap"):
        cut(small(), no_gap="stop")
    _, (found,) = cut(small(), PruneTarget("ratio", 0.25), no_gap="fixed")
    assert (found["branch"], found["rate"]) == ("fixed", 0.25)
    with pytest.raises(CheckError, match="fixed rate"):
        cut(small(), no_gap="fixed")


def test_larger_networks_take_lanczos() -> None:
    """64*48 + 48 + 48*10 + 10 = 3,610 parameters are above the limit of exact eigenvalues."""
    _, (found,) = cut(larger(), rate="spectrum", lanczos_steps=8, probes=2)
    assert not found["is_exact"]
    assert found["branch"] == "spectrum"


def test_masked_weights_stay_zero_through_training() -> None:
    pruned, _ = cut(small(), PruneTarget("ratio", 0.6), rate="fixed")
    px = context(Options())
    model = pruned.module()
    mask = pruned.support.block_mask(pruned.layout)
    for _ in train_centrally(model, px.dataset, px.retraining, seed=0, mask=mask):
        pass
    state = model.state_dict()
    for name, bits in mask.items():
        assert not bool(state[name][~bits].any())
        assert bool(state[name][bits].all())
