from __future__ import annotations

import numpy as np
import pytest
import torch
from audits import seen

from fpcli.audit.mia import attack_model, judge_threshold, measure_rates

INF = float("inf")


def test_perfect_separation() -> None:
    assert measure_rates(np.array([5.0, 4.0, 1.0, 0.0]), np.arange(4) < 2) == {
        "auc": 1.0,
        "tpr1": 1.0,
    }


def test_equal_scores_say_nothing() -> None:
    assert measure_rates(np.zeros(10), np.arange(10) < 5) == {"auc": 0.5, "tpr1": 0.0}


def test_ties_count_half() -> None:
    # Of the four pairs one is won, two are tied, one is lost.
    found = measure_rates(np.array([2.0, 1.0, 1.0, 2.0]), np.array([True, True, False, False]))
    assert found["auc"] == (1 + 2 / 2) / 4


def test_rate_at_one_percent_of_false_alarms() -> None:
    others = np.arange(200.0)  # 1 % of them are two: those with 198 and 199
    members = np.array([500.0, 199.5, 198.5, 197.5, 197.0, -1, -1, -1, -1, -1])
    scores, is_member = np.concatenate([members, others]), np.arange(210) < 10
    # At the threshold 197.5 three members... and two others are at or above: four of ten members.
    assert measure_rates(scores, is_member)["tpr1"] == 0.4
    # A member that ties with the third of the others is found with it only, which is too late.
    assert measure_rates(np.where(scores == 197.5, 197.0, scores), is_member)["tpr1"] == 0.3


def test_a_threshold_is_judged_on_samples_it_was_not_chosen_on() -> None:
    is_member = np.array([True, True, False, False])
    is_first = np.array([True, False, True, False])
    assert judge_threshold(np.array([3.0, 3.0, 1.0, 2.0]), is_member, is_first) == 1.0
    # Each half separates by itself, by a threshold that calls everything of the other one thing.
    assert judge_threshold(np.array([1.0, 9.0, 0.0, 8.0]), is_member, is_first) == 0.5


def test_confident_members_are_found_by_every_attack() -> None:
    count = 20
    found = attack_model(
        seen([[0.0, 0, 8]] * count, [2] * count), seen([[0.0, 0, 1]] * count, [2] * count)
    )
    assert set(found.values()) == {1.0}
    assert len(found) == 12


def test_attacks_differ_where_a_model_is_confidently_wrong() -> None:
    count = 10
    found = attack_model(
        seen([[8.0, 0, 0]] * count, [2] * count), seen([[0.0, 0, 1]] * count, [2] * count)
    )
    assert found["confidence_auc"] == found["entropy_auc"] == 1.0
    assert found["loss_auc"] == 0.0


def test_a_masked_logit_leaves_the_loss_nothing_to_say_and_makes_no_nan() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 12, 3, generator=generator).tolist()
    masked = [seen([[a, b, -INF] for a, b, _ in part], [2] * 12) for part in rows]
    found = attack_model(*masked)
    assert found["loss_auc"] == 0.5
    assert found["loss_balanced"] == 0.5
    assert found["confidence_auc"] != 0.5
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_same_outputs_cannot_be_told_apart(count: int) -> None:
    one = seen([[float(number), 0, 1] for number in range(count)], [2] * count)
    found = attack_model(one, one)
    assert {found[f"{attack}_auc"] for attack in ("confidence", "loss", "entropy", "model")} == {
        0.5
    }
