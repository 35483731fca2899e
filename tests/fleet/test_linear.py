"""Linear time models: published numbers, and agreement with the clock."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from fpcli.errors import RecipeError
from fpcli.fleet.clock import stamp, train_seconds
from fpcli.fleet.devices import two_speed
from fpcli.fleet.linear import StepRates, model_device_time, model_slowest_time
from fpcli.models.build import build
from fpcli.structure.budget import list_masked_weights
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors
from fpcli.tasks.classify import Classify

COMM = 5.561621025626998e-06


def vgg() -> list[int]:
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = [9 * a * b for a, b in pairwise(widths)]
    return [*convolutions, 512 * 512, 512 * 512, 512 * 10]


def resnet() -> list[int]:
    sizes, before = [3 * 64 * 49], 64
    for width in (64, 128, 256, 512):
        sizes += [9 * before * width, *[9 * width * width] * 3]
        before = width
    return [*sizes, 51200]


PUBLISHED = {
    "femnist": (
        1.2492789765, [0, 7.098850e-6, 1.927325e-7, 1.782308e-7],
        [800, 51200, 3136 * 2048, 2048 * 62], 51.081068, 10.729862,
    ),
    "cifar10": (
        17.36990105989628,
        [0, 8.95507e-6, 2.495288e-6, 2.780686e-6, 1.024265e-6, 1.277773e-6, 1.843831e-6,
         8.066104e-7, 5.145334e-7, 2.430023e-7, 0],
        vgg(), 209.613988, 99.125954,
    ),
    "celeba": (
        1.5979929063378444,
        [3.404870760969184e-4, 6.07774046523071e-5, 1.7590354819798735e-5,
         3.7744218545217262e-6, 0],
        [864, 9216, 9216, 9216, 2304], 13.417367, 8.532705,
    ),
    "imagenet100": (
        14.560041482824728,
        [0, 2.340521716080689e-6, 1.0023681746470196e-5, 1.056062089141079e-5,
         4.237937059382076e-6, 5.6712687899939165e-6, 2.1231460738533592e-6,
         2.3287953360690104e-6, 6.735456426708777e-7, 6.624979740735464e-6,
         5.137498356286562e-7, 1.9743886037025985e-7, 3.703237561077147e-8,
         9.910993133200227e-7, 1.4966532573161931e-6, 7.477319510700925e-7,
         8.722523120339614e-7, 6.128180224224039e-6],
        resnet(), 201.265966, 85.646783,
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", sorted(PUBLISHED))
def test_published_round_times(task: str) -> None:
    """Five local steps; at density 1 and with a tenth of every layer."""
    c, comp, sizes, full, tenth = PUBLISHED[task]
    names = [str(layer) for layer in range(len(sizes))]
    time = StepRates(names, c, comp, COMM).round_time(5)
    alive = dict(zip(names, sizes, strict=True))
    assert time.round_s(alive) == pytest.approx(full, abs=1e-5)
    low = time.constant_s + 0.1 * (time.round_s(alive) - time.constant_s)
    assert low == pytest.approx(tenth, abs=1e-5)


LAYOUT = Layout(
    {
        "conv": TensorSpec((2, 1, 3, 3), True, 16.0),
        "bias": TensorSpec((2,), True),
        "fc": TensorSpec((4, 8), True, 1.0),
    },
    {},
    fixed_macs=10.0,
)


def test_a_model_with_no_dense_pass_is_the_clock() -> None:
    device = two_speed(0).nominal(1)
    time = model_device_time(LAYOUT, ["conv", "fc"], device, 50.0)
    whole = count_cost(LAYOUT, Support())
    assert whole.macs == 18 * 16 + 32 + 10
    want = sum(
        stamp(
            device,
            compute_s=train_seconds(whole.macs, 50.0, device),
            down_bytes=whole.bytes,
            up_bytes=whole.bytes,
        )
    )
    assert time.round_s({"conv": 18, "fc": 32}) == pytest.approx(want)
    dense = model_device_time(LAYOUT, ["conv", "fc"], device, 50.0, dense_passes=1)
    assert dense.round_s({"conv": 18, "fc": 32}) == pytest.approx(want)
    assert dense.constant_s - time.constant_s == pytest.approx(
        train_seconds(320.0, 50.0, device) / 3
    )


@pytest.mark.parametrize(
    ("task", "model", "shape", "num_classes"),
    [
        ("femnist", "conv2", (1, 28, 28), 62),
        ("cifar10", "vgg11-plain", (3, 32, 32), 10),
        ("celeba", "conv4", (3, 84, 84), 2),
    ],
)
def test_the_published_numbers_fit_the_registered_networks(
    task: str, model: str, shape: tuple[int, ...], num_classes: int
) -> None:
    c, comp, _, whole_s, _ = PUBLISHED[task]
    layout = list_tensors(
        build(model, shape, Classify(num_classes), seed=0), torch.zeros(1, *shape)
    )
    alive = Support().count(layout)
    seconds = StepRates(list_masked_weights(layout), c, comp, COMM).seconds(5, alive)
    assert sum(seconds) == pytest.approx(whole_s, abs=1e-6)
    assert seconds[1] == seconds[2] > 0


def test_the_slowest_client_decides() -> None:
    fleet = two_speed(0)
    times = [
        model_device_time(LAYOUT, ["fc"], fleet.nominal(k), n) for k, n in enumerate([10.0, 10.0])
    ]
    assert model_slowest_time(LAYOUT, ["fc"], fleet, [10.0, 10.0]) == times[1]
    assert model_slowest_time(LAYOUT, ["fc"], fleet, [10.0, 0.0]) == times[0], "it never takes part"


def test_every_layer_needs_its_number() -> None:
    with pytest.raises(RecipeError, match=r"`method\.comp` has 1 numbers, but 2 layers") as caught:
        StepRates(["a", "b"], 1.0, [0.5], COMM)
    assert (caught.value.where, caught.value.hint) == (
        "method.comp",
        "give one number for each of a, b",
    )


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        ("c", (1e308, [0.5, 0.5], COMM)),
        ("comp", (1.0, [0.5, 1e308], COMM)),
        ("comm", (1.0, [0.5, 0.5], math.inf)),
    ],
)
def test_seconds_that_overflow_are_refused_by_key(
    key: str, numbers: tuple[float, list[float], float]
) -> None:
    with pytest.raises(RecipeError, match=f"`method.{key}` holds .* seconds, too many") as caught:
        StepRates(["a", "b"], *numbers)
    assert (caught.value.where, caught.value.hint) == (f"method.{key}", "give at most 1e+100")
    time = StepRates(["a"], 1e100, [1e100], 1e100).round_time(1000)
    assert math.isfinite(1e9 * time.round_s({"a": 10**12}))
