from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.errors import LayoutError
from fpcli.structure.shrink import hollow_out, shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace


def halves(model, x):
    layout = trace(model, x)
    keep = {n: torch.arange(0, g.width, 2) for n, g in layout.prunable.items() if g.block == 1}
    state = model.state_dict()
    return layout, Support(keep).gather(layout, {n: state[n] for n in layout.tensors})


def test_sizes_are_told_by_the_modules(net):
    model, x = net("plain")
    _, block = halves(model, x)
    small = shrink(model, block)
    assert "Conv2d(3, 4" in str(small) and "ConvTranspose2d(4, 3" in str(small)
    assert "PReLU(num_parameters=4)" in str(small) and "BatchNorm1d(6" in str(small)
    assert "in_features=48, out_features=6" in str(small)
    assert small.body[4] is not model.body[4]


def test_nothing_is_shared_with_the_template(net):
    model, x = net("resnet20")
    layout = trace(model, x)
    state = model.state_dict()
    small = shrink(model, {name: state[name] for name in layout.tensors})
    mine = {value.data_ptr() for value in model.state_dict().values()}
    assert not mine & {value.data_ptr() for value in small.state_dict().values()}
    small.train()(x).sum().backward()
    assert model.bn1.num_batches_tracked == 0 and small.bn1.num_batches_tracked == 1
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.processor
def test_where_tensors_lie_in_memory_changes_no_digit():
    """As they lie in a file; a product of matrices takes another kernel for such a start."""
    weight = torch.randn(40, 56, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 56, generator=torch.Generator().manual_seed(1))
    wanted = shrink(nn.Linear(56, 40, bias=False), {"weight": weight})(x)
    room = torch.empty(weight.numel() + 16)
    for start in range(16):
        elsewhere = room[start : start + weight.numel()].view_as(weight).copy_(weight)
        small = shrink(nn.Linear(56, 40, bias=False), {"weight": elsewhere})
        assert small.weight.data_ptr() % 64 == 0
        assert torch.equal(small(x), wanted)


def test_mode_and_flags_carry_over(net):
    model, x = net("lenet5")
    _, block = halves(model, x)
    model.train()
    model.conv1.weight.requires_grad_(False)
    small = shrink(model, block)
    assert small.training and small.conv2.training
    assert not small.conv1.weight.requires_grad and small.conv1.bias.requires_grad


def test_meta_tensors_give_a_meta_module(net):
    model, x = net("lenet5")
    _, block = halves(model, x)
    meta = shrink(model, {name: value.to("meta") for name, value in block.items()})
    assert meta(x.to("meta")).shape == (2, 10)
    again = shrink(hollow_out(model), block)
    assert torch.equal(again(x), shrink(model, block)(x))


def test_shared_parameters_stay_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    small = shrink(model, {n: x[:2, :2] if x.dim() == 2 else x[:2] for n, x in state(model)})
    assert small[0].weight is small[1].weight and small[0].in_features == 2


def test_values_outside_the_state_dict_are_copied():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("scale", torch.tensor(3.0), persistent=False)

    model = Scaled()
    small = shrink(model, dict(state(model)))
    assert small.scale == 3.0 and small.scale.data_ptr() != model.scale.data_ptr()


def state(model):
    return [(name, value.clone()) for name, value in model.state_dict().items()]


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (nn.Linear(3, 2), {"bias": None}, "tensor 'bias' is missing"),
        (nn.Linear(3, 2), {"weight": torch.ones(2, 3, 1)}, r"tensor 'weight' is \[2, 3, 1\]"),
        (nn.Linear(3, 2), {"bias": torch.ones(1)}, "do not fit Linear"),
        (nn.Conv2d(3, 4, 3), {"weight": torch.ones(4, 3, 3, 2)}, "do not fit Conv2d"),
        (nn.Conv2d(4, 4, 1, groups=2), {"weight": torch.ones(3, 2, 1, 1)}, "do not fit Conv2d"),
        (nn.Conv2d(4, 4, 1, groups=4), {"weight": torch.ones(3, 2, 1, 1)}, "do not fit Conv2d"),
        (nn.ConvTranspose2d(4, 2, 1), {"weight": torch.ones(4, 1, 1, 1)}, "fit ConvTranspose2d"),
        (nn.BatchNorm2d(4), {"running_var": torch.ones(3)}, "do not fit BatchNorm2d"),
        (nn.GroupNorm(2, 4), {"weight": torch.ones(3), "bias": torch.ones(3)}, "fit GroupNorm"),
        (nn.LayerNorm(4), {"weight": torch.ones(3)}, "do not fit LayerNorm"),
    ],
)
def test_shapes_that_fit_no_module_are_named(model, change, message):
    block = dict(state(model)) | change
    with pytest.raises(LayoutError, match=message) as caught:
        shrink(model, {name: x for name, x in block.items() if x is not None})
    assert caught.value.hint
