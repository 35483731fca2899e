"""Ranking by hand: ranks, metrics, and the drawn item of the loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fpcli.tasks.rank import Rank, draw_negatives, find_ranks, judge_ranks

SCORES = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 0.0]])


class Scores(nn.Module):
    """A network that gives every sequence the scores of its last item's row."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x[:, -1] - 1]


def test_metrics_of_known_ranks() -> None:
    metrics = judge_ranks(torch.tensor([0, 3, 9, 10, 57]))
    want = {
        "hr@1": 0.2, "hr@5": 0.4, "hr@10": 0.6,
        "ndcg@5": 0.286135, "ndcg@10": 0.343948, "mrr": 0.291630,
    }  # fmt: skip
    assert metrics == pytest.approx(want, abs=1e-6)


def test_equal_scores_and_no_numbers_count_against_a_model() -> None:
    assert find_ranks(SCORES, torch.tensor([2, 0, 1])).tolist() == [1, 0, 3]
    assert find_ranks(torch.full((1, 4), math.nan), torch.tensor([2])).tolist() == [3]


def test_sampled_items_are_judged_beside_all() -> None:
    x = torch.tensor([[0, 1], [3, 2], [1, 3]])
    y = torch.tensor([[2, 0, 3], [0, 1, 2], [1, 0, 3]])  # the right column, and two sampled ones
    score = Rank(4, num_sampled=2).score(Scores(SCORES), [(x, y)])
    assert score.metrics["hr@1"] == pytest.approx(1 / 3)  # ranks 1, 0, 3
    assert score.metrics["sampled_hr@1"] == pytest.approx(2 / 3)  # ranks 0, 0, 2
    assert score.metrics["sampled_mrr"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert set(score.metrics) == set(Rank(4, num_sampled=2).metrics)
    plain = Rank(4).score(Scores(SCORES), [(x, y[:, 0])])
    assert set(plain.metrics) == set(Rank(4).metrics)
    assert plain.loss == score.loss == pytest.approx(
        float(nn.functional.cross_entropy(SCORES, y[:, 0])), rel=1e-6
    )  # fmt: skip


def test_negatives_are_neither_in_the_sequence_nor_right() -> None:
    torch.manual_seed(0)
    sequences = torch.tensor([[0, 1, 2], [3, 3, 5]]).repeat(500, 1)
    target = torch.tensor([2, 0]).repeat(500)  # items 3 and 1
    drawn = draw_negatives(sequences, target, 5).view(500, 2)
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[3, 4], [1, 3]]
    full = draw_negatives(torch.tensor([[1, 2]]), torch.tensor([2]), 3)
    assert 0 <= int(full) < 3


def test_the_loss_is_that_of_the_right_and_of_one_drawn_item() -> None:
    x, y = torch.tensor([[1, 2, 1]]), torch.tensor([2])  # only item 4 can be drawn
    want = -math.log(1 / (1 + math.exp(-0.5))) - math.log(1 - 1 / (1 + math.exp(-0.2)))
    assert Rank(4).loss(Scores(SCORES), (x, y)).item() == pytest.approx(want, rel=1e-6)


def test_examples_are_items() -> None:
    example = Rank(3).make_example((4,), batch=2)
    assert example.tolist() == [[1, 2, 3, 1], [2, 3, 1, 2]]
