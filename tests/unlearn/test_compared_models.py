from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe
from driver import digits_file
from folders import event, rounds, write_run
from torch import nn

from fpcli.unlearn.compared_models import (
    Costs,
    Spending,
    WithoutLogits,
    divide_samples,
    measure_speedup,
)


def costs(path: Path, *scores: float, before: int = 0) -> Costs:
    """Return the costs of a run that spent so many bytes, and as many seconds, before round 1."""
    history = rounds(*scores)
    for item in history:
        item |= {"down_bytes": 10_000, "up_bytes": 5_000, "round_s": 2.0}
        item["total_down_bytes"] += before
        item["clock_s"] += before
    write_run(path, history, **{"rounds": len(scores)})
    return Costs(path, toy_recipe("fedavg"))


def test_what_a_run_had_cost_after_a_round(tmp_path: Path) -> None:
    found = costs(tmp_path / "run", 0.5, 0.7, 0.6, before=30)
    assert found.begun == Spending(0, 30, 30.0, 0.0)
    assert found.whole == Spending(3, 45_030, 36.0, 3.0)
    assert found.until(0.7) == Spending(2, 30_030, 34.0, 2.0)
    assert found.until(0.71) is None


def test_speedup_is_to_the_first_round_that_is_as_good(tmp_path: Path) -> None:
    ours = costs(tmp_path / "a", 0.4, 0.8, 0.7, 0.7, before=15_000)
    theirs = costs(tmp_path / "b", 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.69, 0.7, 0.9)
    found = measure_speedup(ours, theirs)["finetuned"]
    assert found["validation_accuracy"] == 0.7
    assert found["unlearned"]["rounds"] == 2  # its own first round that is as good
    assert found["retrained"]["rounds"] == 8
    assert found["ratio"] == {
        "rounds": 4.0,
        "bytes": 120_000 / 45_000,
        "seconds": 16 / 15_004,
        "real_s": 4.0,
    }


def test_speedup_where_one_never_gets_there(tmp_path: Path) -> None:
    found = measure_speedup(costs(tmp_path / "a", 0.8), costs(tmp_path / "b", 0.5, 0.79))
    own, other = found["finetuned"], found["retrained"]
    assert own["unlearned"]["rounds"] == 1
    assert (own["retrained"], own["ratio"]) == (None, None)
    assert (other["validation_accuracy"], other["ratio"]["rounds"]) == (0.79, 2.0)
    found = measure_speedup(costs(tmp_path / "c", 0.6, 0.5), costs(tmp_path / "d", 0.9, 0.7))
    other = found["retrained"]  # its last accuracy, reached in its first round
    assert (other["retrained"]["rounds"], other["unlearned"], other["ratio"]) == (1, None, None)


def test_only_judged_rounds_count(tmp_path: Path) -> None:
    history = [event(1, 0.9, 0.9), event(2, None), event(3, 0.8, 0.8)]
    for item in history:
        item |= {"down_bytes": 10_000, "up_bytes": 5_000, "round_s": 2.0}
    write_run(tmp_path / "run", history, **{"rounds": 3})
    found = Costs(tmp_path / "run", toy_recipe("fedavg"))
    assert found.judged == {1: 0.9, 3: 0.8}
    assert found.whole.rounds == 3


def test_dropped_logits_are_never_chosen() -> None:
    model = WithoutLogits(nn.Identity(), [0, 2])
    out = model(torch.tensor([[5.0, 1, 9, 2], [1, 0, 0, -1]]))
    assert out.tolist() == [[-torch.inf, 1, -torch.inf, 2], [-torch.inf, 0, -torch.inf, -1]]


def test_samples_are_divided_without_loss(tmp_path: Path) -> None:
    recipe = toy_recipe("unlearn", task__data=digits_file(tmp_path), task__withhold=[9, 2])
    data = divide_samples(recipe)
    assert (data.classes, data.num_classes) == ((9, 2), 10)
    for split in (data.forget_train, data.forget_test):
        assert set(split.labels.tolist()) == {2, 9}
    for split in (data.retain_train, data.retain_test):
        assert set(split.labels.tolist()) == set(range(10)) - {2, 9}
    assert len(data.forget_test) + len(data.retain_test) == 100
    assert len(data.forget_train) + len(data.retain_train) == pytest.approx(450, abs=10)
