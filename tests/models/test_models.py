from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fpcli import plugins
from fpcli.data import DATASETS
from fpcli.models import DEFAULT_MODEL, MODELS
from fpcli.models.build import build, find_factory
from fpcli.tasks.classify import Classify

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SEQUENCE = (50,)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("digits-cnn", DIGITS, 38_282),
        ("lenet5", MNIST, 61_706),
        ("mnist-cnn", MNIST, 429_746),
        ("mnist-mlp", MNIST, 159_010),
        ("tabular-mlp", MNIST, 52_650),
        ("fedavg-cnn", MNIST, 1_663_370),
        ("conv2", MNIST, 6_497_162),
        ("conv4", (3, 84, 84), 40_426),
        ("subfedavg-cifar", CIFAR, 62_006),
        ("subfedavg-cifar-bn", CIFAR, 62_050),
        ("subfedavg-mnist", MNIST, 21_840),
        ("subfedavg-mnist-bn", MNIST, 21_900),
        ("fedsparsify-mlp", MNIST, 118_282),
        ("fedsparsify-cnn", CIFAR, 1_609_930),
        ("alexnet", CIFAR, 23_272_266),
        ("resnet20", CIFAR, 272_474),
        ("resnet32", CIFAR, 466_906),
        ("resnet44", CIFAR, 661_338),
        ("resnet56", CIFAR, 855_770),
        ("resnet110", CIFAR, 1_730_714),
        ("resnet20-pad", CIFAR, 269_722),
        ("resnet32-pad", CIFAR, 464_154),
        ("resnet44-pad", CIFAR, 658_586),
        ("resnet56-pad", CIFAR, 853_018),
        ("resnet110-pad", CIFAR, 1_727_962),
        ("vgg11", CIFAR, 9_228_362),
        ("vgg11-plain", CIFAR, 9_750_922),
        ("vgg13", CIFAR, 9_413_066),
        ("vgg16", CIFAR, 14_987_210),
        ("vgg19", CIFAR, 20_035_018),
        ("hetero-cnn", MNIST, 1_556_874),
        ("preresnet-hfl", CIFAR, 9_622_090),
        ("preresnet18", CIFAR, 11_172_170),
        ("mlp-reg", MNIST, 52_650),
        ("fmlp", SEQUENCE, 77_376),
        ("fmlp-parity", SEQUENCE, 77_376),
        ("sasrec", SEQUENCE, 45_760),
        ("gru4rec", SEQUENCE, 25_664),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, ...], parameters: int) -> None:
    with torch.device("meta"):
        model = plugins.lookup("models", name)(shape, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "parameters"),
    [
        ("conv2", MNIST, 62, 6_603_710),
        ("conv4", (3, 84, 84), 2, 31_202),
        ("torchvision:resnet18", (3, 168, 168), 100, 11_227_812),
    ],
)
def test_the_networks_of_prunefl_have_the_sizes_that_its_authors_print(
    name: str, shape: tuple[int, int, int], num_classes: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = find_factory(name)(shape, num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_linear_layers_of_prunefl_start_as_its_code_has_it() -> None:
    """Kaiming-uniform: within gain * sqrt(3 / fan), and near the ends of that range."""
    wide = build("conv2", MNIST, Classify(10), seed=0)
    plain = build("vgg11-plain", CIFAR, Classify(10), seed=0)
    bounds = {
        wide.fc1: (6 / 2048) ** 0.5,  # fan_out
        wide.fc2: (6 / 10) ** 0.5,
        plain.fc1: (6 / 512) ** 0.5,
        plain.fc3: (2 / (1 + 1.5**2) * 3 / 10) ** 0.5,  # fan_out again, a = 1.5
    }
    for layer, bound in bounds.items():
        assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound * (1 + 1e-6)


def test_conv4_has_no_relu() -> None:
    model = build("conv4", (3, 84, 84), Classify(2), seed=0)
    assert not any(isinstance(part, nn.ReLU) for part in model.modules())
    assert model.fc.in_features == 1152


def test_every_model_is_counted_above() -> None:
    mark = test_parameter_counts.pytestmark[0]  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(MODELS)


@pytest.mark.parametrize(
    ("name", "shape", "macs"),
    [("lenet5", MNIST, 416_520), ("digits-cnn", DIGITS, 337_536), ("mnist-mlp", MNIST, 158_800)],
)
def test_multiply_adds(name: str, shape: tuple[int, int, int], macs: int) -> None:
    """Digits: 64 * 9 * 16 + 64 * 9 * 16 * 32 + 512 * 64 + 64 * 10 = 337,536."""
    model = build(name, shape, Classify(10), seed=0)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    assert counter.get_total_flops() == 2 * macs


LARGE = {"alexnet", "vgg13", "vgg16", "vgg19", "resnet110", "resnet110-pad"}
"""Networks that take long; elsewhere smaller ones of the same families stand for them."""
OF_ITEMS = {"fmlp", "fmlp-parity", "sasrec", "gru4rec"}
OTHERS = [f"{name}@0.125" if name in LARGE else name for name in MODELS if name not in OF_ITEMS]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (2, 15, 17)])
def test_other_shapes_and_class_counts(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, Classify(7), seed=0)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", OTHERS)
def test_all_parameters_get_a_gradient(name: str) -> None:
    model = build(name, MNIST, Classify(10), seed=0)
    model(torch.randn(4, *MNIST, generator=torch.manual_seed(0))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_layer_names_of_lenet5() -> None:
    model = build("lenet5", MNIST, Classify(10), seed=0)
    weighted = [
        name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    assert weighted == ["conv1", "conv2", "fc1", "fc2", "fc3"]


def test_resnet_projects_exactly_where_the_shape_changes() -> None:
    model = build("resnet20", CIFAR, Classify(10), seed=0)
    projected = [
        name for name, part in model.named_modules() if name.endswith("shortcut.0") and part
    ]
    assert projected == ["stage2.0.shortcut.0", "stage3.0.shortcut.0"]


def test_defaults_name_known_things() -> None:
    assert {key for key in DEFAULT_MODEL if not key.endswith(":")} == set(DATASETS)
    assert set(DEFAULT_MODEL.values()) <= set(MODELS)


def test_a_network_for_regression_has_one_output_and_any_width() -> None:
    """10 * 64 + 64, 64 * 32 + 32 and 32 + 1 parameters; at half the width 32 and 16 neurons."""
    shapes = [(10 * 64 + 64) + (64 * 32 + 32) + (32 + 1), (10 * 32 + 32) + (32 * 16 + 16) + 17]
    for name, parameters in zip(("mlp-reg", "mlp-reg@0.5"), shapes, strict=True):
        model = find_factory(name)((10,), 1)
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        assert model(torch.zeros(5, 10)).shape == (5, 1)


def test_regression_is_learned() -> None:
    torch.manual_seed(0)
    model, x = find_factory("mlp-reg")((4,), 1), torch.randn(256, 4)
    y = x[:, 0] - 2 * x[:, 1] + 0.5 * x[:, 2] * x[:, 3]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for part in torch.arange(256).repeat(20).split(32):
        optimiser.zero_grad()
        (model(x[part])[:, 0] - y[part]).square().mean().backward()
        optimiser.step()
    assert float((model(x)[:, 0] - y).square().mean().detach()) < 0.1 * float(y.var())
