from __future__ import annotations

import inspect

import pytest

from fpcli import plugins
from fpcli.errors import UsageError
from fpcli.models import MODELS
from fpcli.models.build import build, find_factory
from fpcli.tasks.classify import Classify


def test_a_network_of_one_width_names_those_that_have_more() -> None:
    with pytest.raises(UsageError, match="this network has one width only") as caught:
        find_factory("lenet5@0.5")
    told = caught.value.hint.removeprefix("those with others: ").split(", ")
    able = [
        n for n in MODELS if "width" in inspect.signature(plugins.lookup("models", n)).parameters
    ]
    assert told == able
    assert {"vgg11", "resnet20", "resnet110-pad", "alexnet"} <= set(told)
    with pytest.raises(UsageError, match="one width only"):
        find_factory("torchvision:resnet18@0.5")


@pytest.mark.parametrize("name", ["vgg11@0.01", "resnet20@0.01", "alexnet@0.001"])
def test_no_layer_is_ever_empty(name: str) -> None:
    model = build(name, (3, 32, 32), Classify(4), seed=0)
    assert min(min(p.shape) for p in model.parameters()) == 1
