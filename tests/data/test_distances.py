"""Distances of distributions, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fpcli.data.distances import jensen_shannon, total_variation


def test_distances_of_a_hand_made_pair() -> None:
    p, q = torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]], dtype=torch.float64)
    assert total_variation(p, q).tolist() == [0.5]
    # The mixture is (1/4, 1/2, 1/4), of entropy 3/2 bits; both have 1 bit.
    assert jensen_shannon(p, q).tolist() == pytest.approx([math.sqrt(0.5)])
