"""One unbroken run per method, with which interrupted ones are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import LONG, begin, digits_file, everything


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the data file and of the unbroken runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def whole(runs: Path) -> Callable[[str], Any]:
    """Return a function of a method's name that gives everything of its unbroken long run."""
    known: dict[str, Any] = {}

    def get(method: str) -> Any:
        if method not in known:
            name = method.replace(":", "-")
            begin(runs, name, method, task__data=digits_file(runs), **LONG)
            known[method] = everything(runs, name)
        return known[method]

    return get
