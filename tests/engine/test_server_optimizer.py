"""Server optimisers: two rounds of each by hand, dead parameters, and runs that are resumed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import begin, go_on, history, newest
from replies import rounds, setup_of

from fpcli.engine.server_optimizer import OptimizerMoments
from fpcli.engine.server_step import optimize
from fpcli.engine.types import ServerState, Support
from fpcli.errors import FpError
from fpcli.recipe.load import load_recipe
from fpcli.settings.learning import ServerConfig
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.train import federated_run

LAYOUT = Layout({"w": TensorSpec((3,), True), "mean": TensorSpec((1,), False)}, {})


def state(*w: float, mean: float = 0.0, **fields: Any) -> ServerState:
    values = {"w": torch.tensor(w), "mean": torch.tensor([mean])}
    return ServerState(0, values, **{"support": Support(), **fields})


def after(config: ServerConfig, old: ServerState, *change: float) -> ServerState:
    """Return what comes of a state when a method changes it by this much."""
    new = {"w": old.values["w"] + torch.tensor(change), "mean": old.values["mean"] + 7.0}
    return optimize(config, LAYOUT, old, replace(old, values=new))


@pytest.mark.parametrize(
    ("optimizer", "lr", "first", "second"),
    [
        ("none", 0.5, 1.0, 1.5),
        ("momentum", 1.0, 2.0, 4.0),
        ("adam", 1.0, 0.3874259, 0.8179268),
        ("yogi", 1.0, 0.3660254, 0.7534513),
        ("adagrad", 1.0, 0.3090170, 0.5989149),
        ("adagrad", 0.5, 0.1545085, 0.2994574),
    ],
)
def test_two_rounds_by_hand(optimizer: Any, lr: float, first: float, second: float) -> None:
    """Start at 0, and let the mean change be 2 and then 1; both betas 0.5, tau 1.

    none, lr 0.5: 0.5 * 2 = 1; 1 + 0.5 * 1 = 1.5.
    momentum: m = 2, x = 2; m = 0.5 * 2 + 1 = 2, x = 4.
    The rest: m = 0.5 * 2 = 1, then 0.5 * 1 + 0.5 * 1 = 1; v_0 = tau² = 1.
    adam: v = 0.5 + 0.5 * 4 = 2.5, x = 1 / (sqrt(2.5) + 1) = 0.3874259; v = 1.25 + 0.5 = 1.75,
    x += 1 / (sqrt(1.75) + 1) = 0.4305009.
    yogi: v = 1 - 0.5 * 4 * sign(1 - 4) = 3, x = 1 / (sqrt(3) + 1) = 0.3660254;
    v = 3 - 0.5 * 1 * sign(3 - 1) = 2.5, x += 0.3874259.
    adagrad: v = 1 + 4 = 5, x = 1 / (sqrt(5) + 1) = 0.3090170; v = 6, x += 1 / (sqrt(6) + 1) =
    0.2898979.
    """
    config = ServerConfig(optimizer, lr=lr, momentum=0.5, beta2=0.5, tau=1.0)
    one = after(config, state(0.0, 0.0, 0.0), 2.0, 2.0, 2.0)
    assert one.values["w"].tolist() == pytest.approx([first] * 3, abs=1e-6)
    two = after(config, one, 1.0, 1.0, 1.0)
    assert two.values["w"].tolist() == pytest.approx([second] * 3, abs=1e-6)
    assert two.values["mean"].tolist() == [14.0], "a buffer is not optimised"


def test_the_default_is_what_the_method_made() -> None:
    old = state(0.1, 0.2, 0.3)
    new = replace(old, values={name: x + 1.1 for name, x in old.values.items()})
    assert optimize(ServerConfig(), LAYOUT, old, new) is new
    assert [ServerConfig(name).rate for name in ("momentum", "adam", "yogi")] == [1.0, 0.01, 0.01]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_dead_parameters_are_what_the_method_made_them(optimizer: Any) -> None:
    """The middle weight dies in round 2, is set to 0, stays so, and revives in round 4.

    With beta 0.5 and changes of 2, momentum's m is 2, 3, 3.5, 3.75. The revived weight starts
    afresh: in round 4 it is what the method made it, in round 5 its m is 2.
    """
    config = ServerConfig(optimizer, lr=1.0, momentum=0.5)
    whole = Support()
    part = Support(mask={"w": torch.tensor([True, False, True])})
    now = after(config, state(0.0, 0.0, 0.0), 2.0, 2.0, 2.0)
    for support, made in ((part, 0.0), (part, 0.0), (whole, 5.0)):
        new = now.values["w"] + 2.0
        new[1] = made
        merged = replace(now, values={**now.values, "w": new}, support=support)
        now = optimize(config, LAYOUT, now, merged)
        assert now.values["w"][1] == made
        assert now.moments is not None
        assert now.moments.first["w"][1] == 0.0
        assert now.moments.first["w"][0] > 0.0
    now = after(config, now, 2.0, 2.0, 2.0)
    assert now.moments is not None
    if optimizer == "momentum":
        assert now.moments == OptimizerMoments(now.moments.first, {})
        assert now.moments.first["w"].tolist() == [3.875, 2.0, 3.875]
    else:
        tau2 = math.pow(config.tau, 2)
        assert now.moments.second["w"][1].item() == pytest.approx(0.99 * tau2 + 0.01 * 4)


def test_pruned_channels_have_no_moments() -> None:
    """Channels that leave the global model leave the optimiser too."""
    setup = setup_of("fedavg")
    layout, config = setup.fed.layout, ServerConfig("momentum", momentum=0.5)
    gone = Support({"stem": torch.tensor([0, 2, 3, 4, 5, 6, 7])})
    old = ServerState(0, setup.values, Support(), moments=None)
    new = replace(old, values={name: x + 1.0 for name, x in old.values.items()}, support=gone)
    moved = optimize(config, layout, old, new)
    assert moved.moments is not None
    assert moved.moments.first["stem.weight"].flatten(1).mean(1).tolist() == [
        1,
        0,
        1,
        1,
        1,
        1,
        1,
        1,
    ]
    assert all(torch.equal(moved.values[name], new.values[name]) for name in new.values)


def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federated_run, "draw_run", lambda history, folder: [])
    flags = {"server__optimizer": "adam", "server__lr": 0.05}
    begin(tmp_path, "whole", "fedmp", **flags)
    begin(tmp_path, "parts", "fedmp", rounds=1, **flags)
    go_on(tmp_path, "parts", rounds=3)
    found = newest(tmp_path, "parts")
    assert found == newest(tmp_path, "whole")
    assert any("moments/first" in name for name in found[2])
    assert history(tmp_path, "parts") == history(tmp_path, "whole")


def test_a_round_is_optimised() -> None:
    """Half a rate makes half the change; running statistics are as without."""
    setup = setup_of("fedavg")
    half = replace(setup, fed=replace(setup.fed, server=ServerConfig(lr=0.5)))
    (plain, _), (slow, _) = next(rounds(setup)), next(rounds(half))
    for name, start in setup.values.items():
        share = 0.5 if setup.fed.layout.tensors[name].is_parameter else 1.0
        expected = start + share * (plain.values[name] - start)
        assert torch.allclose(slow.values[name], expected, atol=1e-7), name


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("server.optimizer", "adma", "did you mean `adam`"),
        ("server.optimiser", "adam", "server.optimizer"),
        ("server.tau", 0, "> 0"),
        ("server", "adam", "section"),
    ],
)
def test_wrong_settings_are_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(FpError) as caught:
        load_recipe(None, flags={key: value})
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_null_asks_for_the_usual_rate() -> None:
    recipe = load_recipe(None, flags={"server.optimizer": "yogi", "server.lr": "null"})
    assert (recipe.server.lr, recipe.server.rate) == (None, 0.01)
