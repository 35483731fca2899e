from __future__ import annotations

import pytest
import torch
from audits import net, toy_data
from torch import Tensor, nn

from fpcli.audit.server_diff import SERVER_DIFF, find_columns, rank_classes
from fpcli.audit.stage import observe_stage

BEFORE = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])


def after(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_changes_are_relative_to_the_rows() -> None:
    # Row 0 moves by 2 of 5, row 1 by 1 of 2, row 2 by 0.1 of 1.
    changed = after([3, 6], [0, 3], [1, 0.1])
    assert rank_classes(BEFORE, changed, (0,)) == {"share": pytest.approx(0.4), "rank": 2}
    assert rank_classes(BEFORE, changed, (1,)) == {"share": pytest.approx(0.5), "rank": 1}
    assert rank_classes(BEFORE, changed, (0, 2)) == {"share": pytest.approx(0.5), "rank": 2}


def test_a_model_that_did_not_change_names_nobody() -> None:
    assert rank_classes(BEFORE, BEFORE, (0,)) == {"share": None, "rank": None}


def test_an_infinite_change_is_no_number() -> None:
    gone = after([3, 4], [0, 2], [-torch.inf, 0])
    assert rank_classes(BEFORE, gone, (2,)) == {"share": None, "rank": None}


def test_columns_are_found_again() -> None:
    whole = torch.tensor([[1.0, 2, 2, 4], [5, 6, 6, 8]])
    for kept in ([0, 3], [1, 2, 3], [0, 1, 2, 3]):
        assert find_columns(whole, whole[:, kept]).tolist() == kept  # type: ignore[union-attr]
    assert find_columns(whole, whole[:, [3, 0]]) is None
    assert find_columns(whole, whole[:, [0]] + 0.5) is None


def test_a_smaller_classifier_is_compared_through_the_pruned_one() -> None:
    data = toy_data()
    whole = [[3.0, 0, 4], [0, 1, 0], [0, 0, 1]]

    def narrow(head: list[list[float]]) -> nn.Module:
        return nn.Sequential(Gather(), *net(head))

    models = {
        "original": net(whole),
        "pruned": narrow([[3.0, 4], [0, 0], [0, 1]]),
        "finetuned": narrow([[3.0, 4], [0, 0], [0, 3]]),
        "alien": net([[1.0], [1], [1]]),
    }
    models["alien"] = nn.Sequential(Gather(1), *models["alien"])
    stages = {name: observe_stage(name, model, data, ()) for name, model in models.items()}
    found = SERVER_DIFF.measure(stages, data, 0)
    assert found["pruned"] == {"share": 0, "rank": 2}  # the column that left was row 1's
    assert found["finetuned"] == {"share": pytest.approx(2 / 3), "rank": 1}
    assert found["alien"] == {"share": None, "rank": None}
    assert found["original"] == {"share": None, "rank": None}


class Gather(nn.Module):
    """Keep the first and the last feature, or only the first ones."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.first] if self.first else x[:, ::2]
