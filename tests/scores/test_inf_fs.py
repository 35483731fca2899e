from __future__ import annotations

import pytest
import torch

from fpcli.errors import RecipeError
from fpcli.scores.inf_fs import correlate_ranks, select_infinite_features

X = torch.tensor([[1.0, 2, 0], [2, 1, 1], [3, 4, 1], [4, 3, 5], [5, 6, 2]])


def test_the_worked_table() -> None:
    rho = correlate_ranks(X)
    assert [rho[0, 1].item(), rho[0, 2].item(), rho[1, 2].item()] == pytest.approx(
        [0.8, 0.872082, 0.461690], abs=1e-6
    )
    assert select_infinite_features(X).tolist() == pytest.approx(
        [8.280131, 9.368739, 9.270670], abs=1e-5
    )


def test_a_constant_feature_scores_nothing_and_changes_no_other() -> None:
    wider = torch.cat([X[:, :1], torch.full((5, 1), 7.0), X[:, 1:]], 1)
    got = select_infinite_features(wider)
    assert got[1] == 0
    assert torch.equal(got[[0, 2, 3]], select_infinite_features(X))
    with pytest.raises(RecipeError, match="depends on the image"):
        select_infinite_features(torch.ones(3, 2))
