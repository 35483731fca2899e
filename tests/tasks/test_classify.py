"""Accuracies of a client by hand, with all logits and with those of its own classes only."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from fpcli.tasks.classify import Classify, judge_top1
from fpcli.tasks.learning_task import Score


def judged(logits: list[list[float]], labels: list[int], own: list[int]) -> Score:
    """Judge a network that returns its inputs, which are therefore the logits."""
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = torch.eye(3)
    batch = torch.tensor(logits), torch.tensor(labels)
    mask = torch.zeros(3, dtype=torch.bool)
    mask[own] = True
    score = Classify(3).score(model, [batch], mask)
    whole = Classify(3).score(model, [batch])
    assert whole == Score(score.loss, {"accuracy": score.metrics["accuracy"]}, len(labels))
    return score


def test_without_the_logits_of_other_classes_more_is_right() -> None:
    """Class 2 is not the client's: of five samples three are right, and without it four.

    Without it the second is right as well; in the last both own logits are negative, so that class
    2, with its 0, wins as before.
    """
    logits = [[2.0, 1, 0], [1, 3, 9], [4, 1, 2], [0, 1, -3], [-1, -2, 5]]
    score = judged(logits, [0, 1, 0, 1, 0], own=[0, 1])
    assert (score.metrics, score.num_examples) == ({"accuracy": 0.6, "local_accuracy": 0.8}, 5)
    want = functional.cross_entropy(torch.tensor(logits), torch.tensor([0, 1, 0, 1, 0]))
    assert score.loss == pytest.approx(float(want))


@pytest.mark.parametrize(
    ("logits", "label", "is_right"),
    [
        ([5.0, -0.5, -0.1], 2, False),  # all own ones are negative: class 0 has 0
        ([5.0, -0.5, 0.0], 2, False),  # a tie at 0: the first class wins, which is not owned
        ([5.0, -0.5, 1e-6], 2, True),
        ([5.0, 1.0, 1.0], 1, True),  # a tie of own classes: the first wins
        ([5.0, 1.0, 1.0], 2, False),
    ],
)
def test_ties_and_negative_logits(logits: list[float], label: int, is_right: bool) -> None:
    score = judged([logits], [label], own=[1, 2])
    assert score.metrics == {"accuracy": 0.0, "local_accuracy": float(is_right)}


def test_a_tie_at_zero_goes_to_an_own_class_that_stands_before_the_others() -> None:
    assert judged([[0.0, -1, 4]], [0], own=[0, 1]).metrics["local_accuracy"] == 1.0


def test_who_has_all_classes_has_one_accuracy() -> None:
    score = judged([[2.0, 1, 0], [1, 3, 9]], [0, 1], own=[0, 1, 2])
    assert score.metrics == {"accuracy": 0.5, "local_accuracy": 0.5}


def test_of_equal_logits_the_first_counts() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [1.0, 3.0, 3.0], [-1.0, -2.0, -3.0]])
    assert judge_top1(logits, torch.tensor([1, 2, 0])).tolist() == [True, False, True]


def test_nothing_to_judge() -> None:
    assert Classify(3).score(nn.Linear(3, 3), []) == Score(0.0, {"accuracy": 0.0}, 0)
