from __future__ import annotations

import pytest
import torch
from prunings import context

from fpcli.engine.trained import Trained
from fpcli.errors import CheckError
from fpcli.pruning.amounts import choose_best, num_left, ratio_for
from fpcli.pruning.pruner import PruneTarget
from fpcli.structure.support import Support


@pytest.mark.parametrize(
    ("width", "ratio", "block", "round_to", "left"),
    [
        (64, 0.8, 1, 1, 12),
        (10, 0.9, 1, 1, 1),  # 10 * (1 - 0.9) is 0.99...98
        (30, 0.9, 1, 1, 3),
        (16, 0.6, 1, 1, 6),
        (6, 0.95, 1, 1, 1),
        (64, 0.5, 1, 8, 32),
        (64, 0.55, 1, 8, 32),  # 28 rounded up
        (20, 0.1, 1, 8, 20),  # 24 would be more than there are
        (6, 0.5, 1, 8, 3),  # too narrow to be rounded
        (64, 0.5, 16, 1, 32),
        (64, 0.3, 16, 8, 32),  # 2 of 4 blocks
    ],
)
def test_what_stays(width: int, ratio: float, block: int, round_to: int, left: int) -> None:
    assert num_left(width, ratio, block, round_to) == left


def test_of_equal_scores_the_smaller_index_goes_first() -> None:
    scores = torch.tensor([2.0, 1.0, 1.0, 1.0])
    assert choose_best(torch.arange(4), scores, 2).tolist() == [0, 3]
    # What is gone already is no candidate, whatever its score.
    assert choose_best(torch.tensor([1, 2]), torch.tensor([9.0, 0.0, 0.0, 9.0]), 1).tolist() == [2]
    # Blocks of two: sums 3 and 2.
    assert choose_best(torch.arange(4), scores, 2, block=2).tolist() == [0, 1]


def test_a_target_is_met_by_the_smallest_ratio(cnn: Trained) -> None:
    def support_at(ratio: float) -> Support:
        return Support({"fc1": torch.arange(num_left(64, ratio))})

    # fc1 has 512 + 1 weights and biases per channel, and 10 weights of fc2 read it: 523 of 38,282.
    # 0.9 of them are 34,453.8: at most 56 channels (34,098) may stay.
    ratio = ratio_for(context(), cnn.layout, PruneTarget("params", 0.1), support_at)
    assert num_left(64, ratio) == 56
    assert num_left(64, ratio - 1e-6) == 57
    with pytest.raises(
        CheckError, match=r"parameters cannot fall to 10.00%: the closest is 13.93%"
    ):
        ratio_for(context(), cnn.layout, PruneTarget("params", 0.9), support_at)
