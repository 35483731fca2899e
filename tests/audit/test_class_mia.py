from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fpcli.audit.class_mia import CLASS_MIA, compare_models
from fpcli.audit.stage import AuditData, AuditStage, Seen
from fpcli.data.split import Split
from fpcli.errors import DivergedError


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_outputs_are_at_distance_zero() -> None:
    p = torch.rand(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = compare_models(p / p.sum(1, keepdim=True), p / p.sum(1, keepdim=True))
    assert found == {
        "tv": 0, "js": 0, "tv_of_means": 0, "js_of_means": 0, "told_apart": 0.5
    }  # fmt: skip


def test_disjoint_outputs_are_as_far_as_can_be() -> None:
    p, q = rows(*[[1.0, 0.0]] * 10), rows(*[[0.0, 1.0]] * 10)
    assert set(compare_models(p, q).values()) == {1.0}


def test_a_model_without_any_other_class_is_told() -> None:
    logits = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    logits[:, 2] = 0.0
    seen = Seen(logits, torch.zeros(4, 2), torch.full((4,), 2))
    stage = AuditStage(nn.Identity(), "", {"forget_train": seen, "forget_test": seen})
    split = Split(torch.zeros(4, 2), torch.full((4,), 2))
    data = AuditData(lambda x: x, split, split, split, split, (2,), 3)
    with pytest.raises(DivergedError, match="no probability at all"):
        CLASS_MIA.measure({"retrained": stage}, data, 0)


def test_means_hide_what_samples_show() -> None:
    p, q = rows(*[[1.0, 0.0], [0.0, 1.0]] * 5), rows(*[[0.0, 1.0], [1.0, 0.0]] * 5)
    found = compare_models(p, q)
    assert (found["tv"], found["tv_of_means"], found["js"], found["js_of_means"]) == (1, 0, 1, 0)


def test_a_classifier_is_judged_on_samples_it_did_not_see() -> None:
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.rand(60, 3, generator=generator).double().softmax(1) for _ in range(2))
    # The same law: what a classifier learns of 48 samples is of no use for the other 12.
    assert 0.3 < compare_models(p, q)["told_apart"] < 0.7
