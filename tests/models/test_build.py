from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fpcli.errors import LayoutError, RecipeError, UsageError
from fpcli.models.build import build, find_factory, measure_shapes
from fpcli.tasks.classify import Classify

DIGITS, CIFAR = (1, 8, 8), (3, 32, 32)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write the user's module `ownnets`, forgotten afterwards."""

    def write(body: str) -> None:
        text = f"import torch\nfrom torch import nn\ndef net(shape, classes):\n    {body}\n"
        (tmp_path / "ownnets.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("ownnets", None)


def weights(seed: int) -> torch.Tensor:
    model = build("digits-cnn", DIGITS, Classify(10), seed=seed)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_seed_decides_the_initial_values() -> None:
    assert weights(0).equal(weights(0))
    assert not weights(0).equal(weights(1))


def test_random_state_of_the_caller_is_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build("digits-cnn", DIGITS, Classify(10), seed=0)
    assert torch.rand(3).equal(expected)


def test_model_comes_in_training_mode_with_untouched_statistics() -> None:
    model = build("resnet20", CIFAR, Classify(10), seed=0)
    assert all(part.training for part in model.modules())
    assert int(model.state_dict()["bn.num_batches_tracked"]) == 0


def test_factory_makes_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = find_factory("resnet20")(CIFAR, 10)
    assert all(value.is_meta for value in model.state_dict().values())


def test_torchvision_network() -> None:
    model = build("torchvision:squeezenet1_1", (3, 32, 32), Classify(5), seed=0)
    assert model(torch.zeros(2, *CIFAR)).shape == (2, 5)


def test_torchvision_googlenet_has_one_output_in_training() -> None:
    model = build("torchvision:googlenet", (3, 64, 64), Classify(5), seed=0)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet81", "fasterrcnn_resnet50_fpn", "fcn_resnet50"])
def test_torchvision_offers_classification_only(name: str) -> None:
    with pytest.raises(UsageError, match=f"no classification network `{name}`") as caught:
        build(f"torchvision:{name}", CIFAR, Classify(5), seed=0)
    assert caught.value.hint


def test_unknown_model_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown model `resnet2O`") as caught:
        build("resnet2O", CIFAR, Classify(10), seed=0)
    assert caught.value.hint == "did you mean `resnet20`?"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("lenet5", (1, 8, 8), "1x8x8 images and 10 classes: 8x8 images are too small"),
        ("digits-cnn", (1, 1, 8), "too small"),
        ("torchvision:squeezenet1_1", (1, 32, 32), "take images of 3 channels"),
        ("torchvision:alexnet", (3, 8, 8), "does not fit 3x8x8 images"),
    ],
)
def test_network_that_does_not_fit(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build(name, shape, Classify(10), seed=0)
    assert f"`{name}`" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["digits-cnn", "resnet20", "torchvision:resnet18"])
def test_a_network_for_images_refuses_a_table(name: str) -> None:
    with pytest.raises(RecipeError, match=f"`{name}` does not fit 30 features and 2 cl") as caught:
        build(name, (30,), Classify(2), seed=0)
    assert "`tabular-mlp`" in caught.value.hint


def test_a_network_for_tables() -> None:
    """30 * 64 + 64, 64 * 32 + 32 and 32 * 2 + 2 parameters."""
    model = build("tabular-mlp", (30,), Classify(2), seed=0)
    assert sum(x.numel() for x in model.parameters()) == 4130
    assert model(torch.zeros(5, 30)).shape == (5, 2)


def test_own_network_runs_only_when_allowed(module: Callable[[str], None]) -> None:
    module("return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))")
    with pytest.raises(RecipeError, match="would run code") as caught:
        build("ownnets:net", DIGITS, Classify(10), seed=0)
    assert "--model ownnets:net" in caught.value.hint
    assert "ownnets" not in sys.modules
    first, again = (
        build("ownnets:net", DIGITS, Classify(10), seed=0, allow_code=True) for _ in range(2)
    )
    assert first(torch.ones(1, *DIGITS)).equal(again(torch.ones(1, *DIGITS)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "it is a int, not a torch.nn.Module"),
        ("return nn.Linear(8, 10)", r"returns \[1, 1, 8, 10\] for one sample, wanted \[1, 10\]"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))", r"returns \[1, 9\]"),
        ("return nn.Conv2d(3, 4, 1)", "does not fit 1x8x8 images and 10 classes"),
        (
            "m = nn.Linear(64, 10); nn.init.constant_(m.bias, float('nan')); "
            "return nn.Sequential(nn.Flatten(), m)",
            "non-finite",
        ),
        ("raise KeyError", "KeyError"),
    ],
)
def test_faulty_own_network(module: Callable[[str], None], body: str, message: str) -> None:
    module(body)
    with pytest.raises(RecipeError, match=message) as caught:
        build("ownnets:net", DIGITS, Classify(10), seed=0, allow_code=True)
    assert "`ownnets:net`" in caught.value.message


FLAT = "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (f"return {FLAT}.double()", "`1.weight` is float64", "model.float()"),
        (f"return {FLAT}.bfloat16()", "`1.weight` is bfloat16", "model.float()"),
        (f"return {FLAT}.to('meta')", "`1.weight` is on the device meta", "outside"),
        (
            "return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes)).double()",
            "`1.weight` is float64",
            "model.float()",
        ),
        (
            "return nn.Sequential(nn.Flatten(), nn.LSTM(64, 10))",
            "model `ownnets:net` returns a tuple of 2 values",
            "(x)[0]`",
        ),
        (
            f"m = {FLAT}; m.register_forward_hook(lambda *a: dict(out=a[2])); return m",
            "model `ownnets:net` returns a dict with `out`",
            "['out']`",
        ),
        (
            f"m = {FLAT}; m.register_forward_hook(lambda *a: a[2].half()); return m",
            "model `ownnets:net` returns float16 [1, 10] for one sample",
            "float()",
        ),
        (
            f"m = {FLAT}; m.register_forward_hook(lambda *a: a[2] > 0); return m",
            "model `ownnets:net` returns bool [1, 10] for one sample",
            "one row of scores",
        ),
        (
            "m = nn.Sequential(nn.Flatten()); m.run = lambda x: None; m.forward = m.run; "
            "m.fc = nn.Linear(1, 1); return m",
            "model `ownnets:net` returns nothing",
            "add `return`",
        ),
    ],
)
def test_a_network_that_is_not_plain_has_one_code(
    module: Callable[[str], None], body: str, message: str, hint: str
) -> None:
    module(body)
    with pytest.raises(LayoutError) as caught:
        build("ownnets:net", DIGITS, Classify(10), seed=0, allow_code=True)
    assert message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20", (3, 32, 32)), ("torchvision:regnet_y_400mf", (3, 64, 64)), ("lenet5-gn", None)],
)
def test_measured_shapes_are_those_of_the_built_network(
    name: str, shape: tuple[int, ...] | None
) -> None:
    if shape is None:
        with pytest.raises(ValueError, match="no batch norm"):
            measure_shapes(name, (1, 28, 28), 10)
        return
    state = build(name, shape, Classify(10), seed=0).state_dict()
    floats = {key: tuple(x.shape) for key, x in state.items() if x.is_floating_point()}
    assert measure_shapes(name, shape, 10) == floats


def test_code_is_not_run_to_measure_it() -> None:
    assert measure_shapes("os:abort", (3, 32, 32), 10) is None
