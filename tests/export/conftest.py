"""Finished toy runs of several kinds, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import begin, digits_file, fit

from fpcli.train import federated_run, fit_run

RUNS: dict[str, Any] = {
    "fedmp": {},
    "subfedavg": {"local__epochs": 2},
    "local-only": {"clients_per_round": 2, "rounds": 1},
    # Client 0 has samples of these classes only.
    "fedprox": {
        "task__partition__kind": "shards",
        "task__clients": 8,
        "task__withhold": (0, 1, 2),
        "rounds": 1,
    },
}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function of a method's name, or `fit`, that gives the folder of its run."""
    runs = tmp_path_factory.mktemp("runs")

    def get(name: str) -> Path:
        if (runs / name).exists():
            return runs / name
        with pytest.MonkeyPatch.context() as patch:  # no pictures
            patch.setattr(federated_run, "draw_run", lambda history, folder: [])
            patch.setattr(fit_run, "draw_fit", lambda history, folder: [])
            if name == "fit":
                fit(runs, name, fit__epochs=1)
            else:
                changes = {"rounds": 2, "task__data": digits_file(runs)} | RUNS[name]
                begin(runs, name, name, **changes)
        return runs / name

    return get
