from __future__ import annotations

import pytest
import torch

from fpcli.structure.cost import Cost, count_cost, count_macs
from fpcli.structure.patterns import count_kept_channels
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace


def first_half(layout) -> Support:
    kept = {n: count_kept_channels(g.width, 0.5, g.block) for n, g in layout.prunable.items()}
    return Support({name: torch.arange(count) for name, count in kept.items()})


def test_lenet5_by_hand(net):
    """Half width: 3*26 + 8*76 + 60*201 + 42*61 + 10*43 = 15738 parameters."""
    layout = trace(*net("lenet5"))
    assert count_cost(layout, Support()) == Cost(61_706, 416_520.0, 4 * 61_706)
    assert count_cost(layout, first_half(layout)) == Cost(15_738, 133_740.0, 4 * 15_738)


def test_a_masked_weight_saves_its_multiply_adds(net):
    """100 weights of conv2 are used at 10*10 places each."""
    layout = trace(*net("lenet5"))
    mask = torch.ones(16, 6, 5, 5, dtype=torch.bool)
    mask.view(-1)[:100] = False
    got = count_cost(layout, Support(mask={"conv2.weight": mask}))
    assert got == Cost(61_606, 416_520.0 - 100 * 100, 4 * 61_606)


def test_buffers_are_bytes_but_not_parameters(net):
    model, x = net("resnet20")
    got = count_cost(trace(model, x), Support())
    assert got.params == sum(p.numel() for p in model.parameters())
    floats = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert got.bytes == 4 * sum(t.numel() for t in floats)


NETS = ["plain", "norms", "resnet20", "squeezenet1_1", "mobilenet_v3_small"]
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("densenet121", "convnext_tiny", "swin_t")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*NETS, *SLOW])
def test_equals_the_flop_counter_on_the_cut_module(net, name):
    model, x = net(name)
    layout = trace(model, x)
    support = first_half(layout)
    state = model.state_dict()
    small = shrink(model, support.gather(layout, {n: state[n] for n in layout.tensors}))
    got = count_cost(layout, support)
    assert got.macs == count_macs(small, x).total
    assert got.params == sum(p.numel() for p in small.parameters())
    assert count_cost(layout, Support()).macs == count_macs(model, x).total
