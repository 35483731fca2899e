from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fpcli.audit.probe import cka, probe_features


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotated_scaled_and_moved_features_are_the_same() -> None:
    x = features(30, 5)
    rotation = torch.linalg.qr(features(5, 5, seed=1))[0]
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)


def test_features_without_a_common_direction_are_not_alike() -> None:
    x = torch.tensor([[1.0], [1], [-1], [-1]], dtype=torch.float64)
    y = torch.tensor([[1.0], [-1], [1], [-1]], dtype=torch.float64)
    assert cka(x, y) == 0
    assert cka(x, torch.cat([x, y], 1)) == pytest.approx(1 / 2**0.5)


def test_features_that_never_change_are_like_nothing() -> None:
    assert cka(torch.ones(4, 2, dtype=torch.float64), features(4, 3)) == 0


def test_separate_sides_are_found() -> None:
    y = np.arange(40) < 20
    x = np.where(y, 5.0, -5.0)[:, None] + features(40, 3).numpy()
    assert set(probe_features((x, y), (x, y)).values()) == {1.0}


def test_features_without_information_are_worth_a_coin() -> None:
    y, x = np.arange(4) < 2, np.zeros((4, 2))
    found = probe_features((x, y), (x, y))
    assert (found["linear_balanced"], found["knn_balanced"]) == (0.5, 0.5)


def test_recall_is_of_the_forgotten_side_alone() -> None:
    train = np.array([[-1.0], [-1], [1], [1]]), np.array([True, True, False, False])
    test = np.array([[-1.0], [1], [1], [1]]), np.array([True, True, False, False])
    found = probe_features(train, test)
    assert (found["linear_recall"], found["linear_balanced"]) == (0.5, 0.75)


def test_neighbours_follow_a_border_that_no_line_can() -> None:
    corners = np.array([[0.0, 0], [1, 1], [0, 1], [1, 0]])
    x, y = np.repeat(corners, 20, axis=0), np.repeat([True, True, False, False], 20)
    found = probe_features((x, y), (x, y))
    assert found["knn_balanced"] == 1.0
    assert found["linear_balanced"] < 0.8
