from __future__ import annotations

from pathlib import Path

import pytest
from driver import begin

from fpcli import plugins
from fpcli.errors import LayoutError

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize("method", sorted({*plugins.names("methods")} - {"unlearn"}))
def test_every_method_trains_on_a_table(tmp_path: Path, method: str) -> None:
    summary = begin(
        tmp_path,
        "run",
        method,
        task__data="breast-cancer",
        task__model="tabular-mlp",
        local__batch_size=16,
        rounds=2,
    )
    assert summary.params <= 4130
    assert 0.3 < summary.accuracy <= 1


def test_unlearn_needs_convolutions(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no convolution whose channels could be scored"):
        begin(
            tmp_path, "run", "unlearn", task__data="breast-cancer", task__model="tabular-mlp",
            rounds=1,
        )  # fmt: skip
