from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fpcli.data.kinds import choose_kind, require_classes
from fpcli.errors import DataError, RecipeError

WHOLE, FRACTIONS = np.arange(4.0), np.arange(4) / 2


@pytest.mark.parametrize(
    ("arrays", "wanted", "kind"),
    [
        ({"train_labels": WHOLE}, "auto", "classify"),
        ({"train_labels": WHOLE}, "regress", "regress"),
        ({"train_labels": FRACTIONS}, "auto", "regress"),
        ({"train_labels": FRACTIONS}, "classify", "classify"),
        ({"train_labels": [0.0, np.nan, np.inf]}, "auto", "classify"),
        ({"train_labels": WHOLE, "task": np.array("rank")}, "auto", "rank"),
        ({"train_labels": WHOLE, "task": "regress"}, "regress", "regress"),
        ({}, "auto", "classify"),
    ],
)
def test_who_says_what_is_learned(arrays: dict[str, Any], wanted: str, kind: str) -> None:
    assert choose_kind("x", arrays, wanted) == kind


def test_two_who_disagree() -> None:
    with pytest.raises(
        DataError, match=r"x: task\.kind is `classify`, and .* for `rank`"
    ) as caught:
        choose_kind("x", {"task": "rank"}, "classify")
    assert caught.value.where == "task.kind"
    with pytest.raises(DataError, match="x: task is `ranking`") as caught:
        choose_kind("x", {"task": "ranking"})
    assert "classify, regress, rank" in caught.value.hint


def test_what_goes_by_classes() -> None:
    require_classes("classify", "task.withhold", "is [1]", "leave it out")
    with pytest.raises(RecipeError, match=r"task\.withhold is \[1\], which .* `rank`") as caught:
        require_classes("rank", "task.withhold", "is [1]", "leave it out")
    assert (caught.value.where, caught.value.hint) == ("task.withhold", "leave it out")
