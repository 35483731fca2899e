from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prunings import named

from fpcli.engine.process import settle_process
from fpcli.errors import UsageError
from fpcli.pruning.prune import plan_cut
from fpcli.pruning.pruner import PruneTarget
from fpcli.recipe.load import find_recipe, load_recipe
from fpcli.settings.recipes import PruneRecipe
from fpcli.train.prune_setup import PruneSetup, prepare_pruning, report_pruning


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    settle_process()


def setup_of(recipe: PruneRecipe, trained: Any) -> PruneSetup:
    return prepare_pruning(
        recipe, trained, None, training_rate=0.3, tell=lambda text: None, log=lambda **event: None
    )


@pytest.mark.parametrize(
    ("name", "weights", "macs"),
    [
        ("vgg16_a", 5_390_176, 206_279_680),
        ("resnet56_a", 769_456, 112_435_840),
        ("resnet56_b", 732_016, 90_907_264),
        ("resnet110_a", 1_680_688, 212_779_648),
        ("resnet110_b", 1_161_712, 155_124_352),
    ],
)
def test_recipes_of_the_paper_cut_what_its_table_says(name: str, weights: int, macs: int) -> None:
    recipe = load_recipe(find_recipe(f"filters/{name}"), cls=PruneRecipe)
    net = named(recipe.task.model)
    setup = setup_of(recipe, net)
    result = plan_cut(setup.pruner, setup.px, setup.trained, setup.target)
    count = report_pruning(setup, result)["paper_count"]
    assert count["after"] == {"weights": weights, "macs": macs}
    assert (setup.px.retraining.epochs, setup.px.retraining.lr) == (40, 0.001)
    assert setup.px.augment == "crop-flip"


def test_shares_that_stay_become_a_target_of_what_goes() -> None:
    net = named("digits-cnn", (1, 8, 8))

    def target(**said: Any) -> PruneTarget:
        flags = {f"prune.{key}": value for key, value in said.items()}
        return setup_of(load_recipe(None, flags=flags, cls=PruneRecipe), net).target

    assert target(ratio=0.3) == PruneTarget("ratio", 0.3)
    assert target(bytes=0.25) == PruneTarget("bytes", 0.75)
    assert target(rates=["conv1=0.5"]) == PruneTarget("ratio", 0.0)
    with pytest.raises(UsageError, match="not said how much"):
        target()
    with pytest.raises(UsageError, match="exclude each other"):
        target(params=0.5, bytes=0.5)


def test_places_become_groups_and_later_ratios_win() -> None:
    net = named("digits-cnn", (1, 8, 8))
    flags = {"prune.rates": ["1-2=50%", "conv2=0.25"], "prune.ignore": ["fc*"]}
    setup = setup_of(load_recipe(None, flags=flags, cls=PruneRecipe), net)
    assert setup.px.rates == {"conv1": 0.5, "conv2": 0.25}
    assert setup.px.ignore == {"fc1", "fc2"}
    # A tenth of the training rate, which the resolved recipe says too.
    assert setup.recipe.retrain.lr == setup.px.retraining.lr == pytest.approx(0.03)
