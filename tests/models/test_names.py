"""The grammar of networks' names, in the parser, the factory, recipes and file names."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from fpcli.errors import RecipeError, UsageError
from fpcli.models.build import build, find_factory
from fpcli.models.names import ModelName, complete, parse_model_name
from fpcli.recipe.load import load_recipe
from fpcli.store.run_name import choose_name
from fpcli.tasks.classify import Classify

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vgg11", ("vgg11", False, None)),
        ("vgg11-gn", ("vgg11", True, None)),
        ("vgg11@.25", ("vgg11", False, 0.25)),
        ("resnet20-pad-gn@2", ("resnet20-pad", True, 2.0)),
        ("torchvision:resnet18-gn", ("torchvision:resnet18", True, None)),
        ("-gn", ("", True, None)),
    ],
)
def test_parts(name: str, parts: tuple[str, bool, float | None]) -> None:
    assert parse_model_name(name) == ModelName(*parts)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "10.5", "0,5", "0.5-gn", "1@1"])
def test_a_width_is_a_number_in_range(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number above 0 and up to 10") as caught:
        parse_model_name(f"vgg11@{text}")
    right = "`vgg11-gn@0.5`" if text.endswith("-gn") else "`vgg11@0.5`"
    assert caught.value.hint == f"write for example {right}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vgg166", "did you mean `vgg16`?"),
        ("vgg16-ng", "did you mean `vgg16-gn`?"),
        ("vgg16-bn", "did you mean `torchvision:vgg16_bn`?"),
        ("resnet20-nn@0.5", "did you mean `resnet20-gn`?"),
        ("mobilnet", "did you mean `torchvision:mobilenet_v2`?"),
        ("zzzzzzzz", "known: digits-cnn, lenet5, "),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown model") as caught:
        find_factory(name)
    assert caught.value.hint.startswith(hint)


def test_both_suffixes_together() -> None:
    model = build("vgg11-gn@0.125", CIFAR, Classify(7), seed=0)
    widths = [part.out_channels for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert widths == [8, 16, 32, 32, 64, 64, 64, 64]
    assert sum(isinstance(part, nn.GroupNorm) for part in model.modules()) == 8


def test_a_network_without_batch_norm_has_nothing_to_replace() -> None:
    with pytest.raises(RecipeError, match=r"`lenet5-gn` does not fit .*: it has no batch norm"):
        build("lenet5-gn", (1, 28, 28), Classify(10), seed=0)


def test_a_recipe_is_checked_where_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("recipe: 1\ntask:\n  data: cifar10\n  model: resnet20@half\n")
    with pytest.raises(RecipeError, match=r"r.yaml:4: model `resnet20@half`: width `half`"):
        load_recipe(path)
    with pytest.raises(UsageError, match="--model: model `lenet5@2`: this network has one width"):
        load_recipe(None, flags={"task.model": "lenet5@2"})
    path.write_text("recipe: 1\ntask:\n  data: cifar10\n  model: resnet20-gn@0.5\n")
    recipe = load_recipe(path)
    assert recipe.task.model == "resnet20-gn@0.5"
    assert choose_name(recipe) == "fedavg-cifar10-resnet20-gn-0.5-s0"


def test_completion_offers_group_norm_behind_a_whole_name() -> None:
    assert complete("resnet5") == ["resnet56", "resnet56-pad"]
    assert complete("resnet56") == [
        "resnet56", "resnet56-pad", "resnet56-gn",
    ]  # fmt: skip
    assert complete("resnet56-pad") == ["resnet56-pad", "resnet56-pad-gn"]


def test_width_scales_the_number_of_weights() -> None:
    whole, half = (
        sum(p.numel() for p in find_factory(name)(CIFAR, 10).parameters() if p.dim() == 4)
        for name in ("resnet20", "resnet20@0.5")
    )
    # All convolutions but the first have half the inputs and half the outputs.
    assert math.isclose((whole - 3 * 16 * 9) / (half - 3 * 8 * 9), 4.0)
