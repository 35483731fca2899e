from __future__ import annotations

from pathlib import Path

import pytest
from driver import begin

from fpcli import plugins

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize("method", plugins.names("methods"))
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
