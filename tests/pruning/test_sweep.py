"""The sweep: what a point means, what it must not change, and how it goes on."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from fpcli.data.datasets import Dataset
from fpcli.engine.evaluate import evaluate
from fpcli.engine.trained import Trained
from fpcli.pruning import sweep as module
from fpcli.pruning.sensitivity import digest_model
from fpcli.pruning.sweep import (
    BASELINE,
    SweepConfig,
    Tally,
    choose_images,
    count_kept,
    judge_cuts,
    key_after_retraining,
    key_of,
    list_cuts,
)
from fpcli.settings.learning import FitConfig
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support

GRID = tuple(number / 10 for number in range(10))


def swept(
    trained: Trained, dataset: Dataset, config: SweepConfig, known: dict[str, Tally] | None = None
) -> dict[str, Tally]:
    cuts = list_cuts(trained, dataset, config)
    return {**(known or {}), **dict(judge_cuts(trained, dataset, config, cuts, known or {}))}


def test_ratio_zero_is_the_whole_model_and_the_model_stays(
    learned_cnn: Trained, residual: Trained, digits: Dataset
) -> None:
    config = SweepConfig(("l1", "activation-mean-std"), (0.0, 0.5))
    for trained in (learned_cnn, residual):
        before = digest_model(trained)
        tallies = swept(trained, digits, config)
        whole = evaluate(trained.module(), choose_images(digits, config), digits)
        baseline = tallies[BASELINE]
        assert baseline.seen == whole.num_examples == len(digits.validation)
        assert baseline.metric == whole.metrics["accuracy"] > 0.5
        for name, group in trained.layout.prunable.items():
            for score in config.scores:
                point = tallies[key_of(score, name, group.width)]
                assert (point.metric, point.loss_sum) == (baseline.metric, baseline.loss_sum)
        assert digest_model(trained) == before


@pytest.mark.processor
@torch.no_grad()
def test_a_point_is_the_whole_model_with_zeros_behind_the_activation(
    residual: Trained, digits: Dataset
) -> None:
    """The channels of `stem` also come out of `branch`, through a batch norm only on one way."""
    config = SweepConfig(("l1",), (0.5,))
    (cut,) = [cut for cut in list_cuts(residual, digits, config) if cut.group == "stem"]
    gone = torch.ones(8, dtype=torch.bool)
    gone[cut.keep] = False
    x = digits.normalise(digits.validation.images)
    small = residual.cut(Support({"stem": cut.keep})).module()(x)

    masked = residual.module()
    for layer in (masked.norm, masked.branch):
        layer.register_forward_hook(lambda layer, inputs, y: y * ~gone[:, None, None])
    assert torch.allclose(small, masked(x), atol=1e-5)

    # The trap: without its convolution a channel still has the shift of its batch norm.
    values = {name: value.clone() for name, value in residual.values.items()}
    for name in ("stem.weight", "stem.bias", "branch.weight", "branch.bias"):
        values[name][gone] = 0
    trapped = shrink(residual.template, values).eval()(x)
    assert (trapped - small).abs().max() > 0.1

    found = swept(residual, digits, config)[cut.key]
    judged = Tally().plus(digits.task, small, digits.validation.labels)
    assert found.metric == judged.metric
    assert found.loss_sum == pytest.approx(judged.loss_sum, rel=1e-5)


def test_smallest_first_beats_random_beats_largest_first(
    learned_cnn: Trained, digits: Dataset
) -> None:
    def mean(score: str, seed: int = 0) -> float:
        tallies = swept(learned_cnn, digits, SweepConfig((score,), GRID[1:], seed=seed))
        return statistics.fmean(tally.metric for key, tally in tallies.items() if key != BASELINE)

    random = statistics.fmean(mean("random", seed) for seed in range(3))
    assert mean("l1") > random > mean("largest")


def test_an_interrupted_sweep_goes_on(
    residual: Trained, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SweepConfig(("l1", "random"), (0.25, 0.5, 0.75))
    whole = swept(residual, digits, config)
    # With little memory the images come in two parts: 128 and 15.
    monkeypatch.setattr(module, "_RECORDED_BYTES", 1)
    cuts = list_cuts(residual, digits, config)
    steps = list(judge_cuts(residual, digits, config, cuts, {}))
    assert len(steps) == 2 * (len(cuts) + 1)
    assert {key: tally.metric_sum for key, tally in steps} == {
        key: tally.metric_sum for key, tally in whole.items()
    }
    for done in (1, 5, len(cuts) + 1, len(cuts) + 3, len(steps)):
        known = dict(steps[:done])
        rest = list(judge_cuts(residual, digits, config, cuts, known))
        assert len(rest) == len(steps) - done
        assert {**known, **dict(rest)} == dict(steps)


def test_samples_are_drawn_and_test_images_only_on_request(digits: Dataset) -> None:
    config = SweepConfig(("l1",), (0.5,), samples=50)
    one, other = choose_images(digits, config), choose_images(digits, replace(config, seed=1))
    assert len(one) == 50
    assert not torch.equal(one.images, other.images)
    assert torch.equal(one.images, choose_images(digits, config).images)
    assert len(choose_images(digits, replace(config, samples=10_000, is_test=True))) == len(
        digits.test
    )


def test_channels_are_counted_by_the_papers_rule_among_those_alive(
    learned_cnn: Trained, digits: Dataset
) -> None:
    assert count_kept(learned_cnn, "conv1", (0.0, 0.1, 0.5, 0.9)) == [16, 14, 8, 1]
    smaller = learned_cnn.cut(Support({"conv1": torch.tensor([1, 4, 5, 9, 12])}))
    config = SweepConfig(("l1",), (0.0, 0.5, 0.9))
    assert count_kept(smaller, "conv1", config.ratios) == [5, 2, 1]
    tallies = swept(smaller, digits, config)
    assert tallies[key_of("l1", "conv1", 5)] == tallies[BASELINE]
    for cut in list_cuts(smaller, digits, config):
        if cut.group == "conv1":
            assert set(cut.keep.tolist()) <= {1, 4, 5, 9, 12}
            assert torch.equal(torch.tensor([1, 4, 5, 9, 12])[cut.places], cut.keep)


def test_retraining_judges_again_and_repeats_itself(learned_cnn: Trained, digits: Dataset) -> None:
    small = replace(digits, train=digits.train.take(torch.arange(128)))
    config = SweepConfig(
        ("l1",), (0.8,), retraining=FitConfig(epochs=1, lr=0.01, schedule="constant")
    )
    first, second = (swept(learned_cnn, small, config) for _ in range(2))
    assert first == second
    keys = [
        key_of("l1", name, count_kept(learned_cnn, name, (0.8,))[0])
        for name in learned_cnn.layout.prunable
    ]
    assert {key_after_retraining(key) for key in keys} < first.keys()
    assert sum(first[key_after_retraining(key)].loss_sum for key in keys) < sum(
        first[key].loss_sum for key in keys
    )
    known = {key: tally for key, tally in first.items() if key != key_after_retraining(keys[0])}
    cuts = list_cuts(learned_cnn, small, config)
    assert [key for key, _ in judge_cuts(learned_cnn, small, config, cuts, known)] == [
        key_after_retraining(keys[0])
    ]
