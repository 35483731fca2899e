from __future__ import annotations

import pytest

from fpcli.cli.prune_watch import PruneWatch
from fpcli.cli.session import Session


def test_epochs_before_and_after_a_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Epochs of sparse training are shown, and do not count as retraining."""
    watch = PruneWatch(Session("prune"), 1, is_quiet=False, is_moving=False)
    score = {"accuracy": 0.9}
    epoch = {"step": 1, "loss": 0.25, "lr": 0.1, "validation": score, "real_s": 2.0}
    watch.log(event="before", metric="accuracy", num_steps=1, validation=score)
    watch.log(event="sparse", epoch=3, **epoch)
    watch.log(event="cut", step=1, params=1200, validation=score)
    watch.log(event="epoch", epoch=1, **epoch)
    watch.end()
    assert capsys.readouterr().err.splitlines() == [
        "before · validation acc 90.0%",
        "step 1 · sparse epoch 3 · loss 0.2500 · validation acc 90.0%",
        "step 1 · cut · validation acc 90.0% · 1,200 params",
        "step 1 · epoch 1 · loss 0.2500 · validation acc 90.0% · real 2.0 s",
    ]
    assert [event["event"] for event in watch.history] == ["before", "sparse", "cut", "epoch"]
