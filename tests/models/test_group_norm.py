"""Group norm for batch norm: what is replaced, and that pruning still means the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fpcli.models.build import build
from fpcli.models.group_norm import replace_batch_norm
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        (nn.BatchNorm2d(16), 4),
        (nn.BatchNorm2d(512), 128),
        (nn.BatchNorm2d(6), 3),
        (nn.BatchNorm2d(5), 5),
        (nn.BatchNorm2d(4), 2),
        (nn.BatchNorm2d(1), 1),
        (nn.BatchNorm1d(512), 32),
        (nn.BatchNorm1d(16), 2),
    ],
)
def test_size_of_the_groups(layer: nn.Module, groups: int) -> None:
    model = nn.Sequential(layer)
    assert replace_batch_norm(model) == 1
    assert model[0].num_groups == groups


def test_scale_and_shift_carry_over() -> None:
    old = nn.BatchNorm2d(8, eps=1e-3)
    nn.init.constant_(old.weight, 0.5)
    nn.init.constant_(old.bias, 2.0)
    model = nn.Sequential(nn.Sequential(old), nn.BatchNorm2d(8, affine=False))
    assert replace_batch_norm(model) == 2
    new, plain = model[0][0], model[1]
    assert (new.weight.mean().item(), new.bias.mean().item(), new.eps) == (0.5, 2.0, 1e-3)
    assert plain.weight is None and plain.bias is None
    assert replace_batch_norm(model) == 0


def test_normalises_by_hand() -> None:
    """Two groups of two channels: (1, 3) and (10, 30) become -1 and 1 each."""
    model = nn.Sequential(nn.BatchNorm2d(4, eps=0.0))
    replace_batch_norm(model)
    x = torch.tensor([1.0, 3.0, 10.0, 30.0]).reshape(1, 4, 1, 1)
    assert model(x).flatten().tolist() == pytest.approx([-1.0, 1.0, -1.0, 1.0])


def test_no_statistics_are_left_to_learn() -> None:
    assert not list(build("vgg16-gn@0.125", CIFAR, Classify(10), seed=0).buffers())


@pytest.mark.parametrize(
    "name",
    [
        *["resnet20-gn", "resnet20-pad-gn", "vgg16-gn@0.25", "hetero-cnn-gn", "alexnet@0.125"],
        *[
            "resnet20-gn@0.3",
            "vgg11@0.25",
            pytest.param("torchvision:resnet18-gn", marks=pytest.mark.slow),
        ],
    ],
)
def test_a_pruned_network_computes_what_the_masked_one_does(name: str) -> None:
    model = build(name, CIFAR, Classify(10), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    layout = trace(model, torch.zeros(1, *CIFAR))
    state = {key: model.state_dict()[key].clone() for key in layout.tensors}
    scores = {k: torch.rand(g.width, generator=generator) for k, g in layout.prunable.items()}
    x = torch.randn(2, *CIFAR, generator=generator)
    for ratio in (0.1, 0.5, 0.9):
        keep = Support(keep_ranked(layout, scores, ratio))
        small = shrink(model, keep.gather(layout, state))
        dense, covered = keep.scatter(layout, keep.gather(layout, state))
        masked: dict[str, Tensor] = {k: dense[k] * covered[k] for k in dense}
        model.load_state_dict(masked, strict=False)
        with torch.no_grad():
            want = model(x)
            assert (small(x) - want).abs().max() <= 1e-5 * want.abs().max()
