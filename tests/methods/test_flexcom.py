"""FlexCom: the rule of compression, the choice of entries and the memory by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from replies import rounds
from torch import Tensor, nn

from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.types import (
    TRAIN,
    Fitted,
    LocalConfig,
    ServerState,
    Support,
    Task,
    Timing,
    Work,
)
from fpcli.methods.flexcom import FlexCom, Options, choose_compressions
from fpcli.train.setup import prepare_run

FAST = Timing(compute_s=1.0, down_s=1.0, up_s=2.0)
SLOW = Timing(compute_s=2.0, down_s=2.0, up_s=4.0)

MASKED: dict[str, object] = {}


@pytest.mark.parametrize(
    ("pace", "expected"),
    [(0.5, [0.5, 0.8828125]), (0.0, [0.5, 0.95]), (1.0, [0.5, 0.5])],
)
def test_the_ratios_by_hand(pace: float, expected: list[float]) -> None:
    """Half of the entries and their bitmap take 17/32 of a dense upload.

    Fast: 2 + 2 * 17/32 = 3.0625 s; slow: 4 + 4 * 17/32 = 6.125 s; the median is 4.59375 s. The slow
    client has 0.59375 s for an upload of 4 s, of which 1/32 is the bitmap: it sends 0.14844 -
    0.03125 of the entries. Where the fast client sets the pace, no upload is short enough.
    """
    ratios = choose_compressions([FAST, SLOW], Options(0.5, 0.95, pace))
    assert ratios == pytest.approx(expected, abs=1e-9)


def test_bounds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="ratio_min"):
        Options(ratio_min=0.9, ratio_max=0.5)


class Client:
    """As much of a client's context as the method needs: no batches, and a change as given."""

    def __init__(self) -> None:
        self.local, self.mask, self.task = LocalConfig(), {}, Task(0, TRAIN)
        self.torch_device = torch.device("cpu")
        self.note = {"compression": 0.5}
        self.change: dict[str, Tensor] = {}
        self.memory: dict[str, Tensor] = {}
        parameters = SimpleNamespace(tensors=("w", "b"))
        self.site = SimpleNamespace(layout=SimpleNamespace(parameters=parameters))

    def batches(self, epoch: int, *, samples: None) -> Iterator[Any]:
        return iter(())

    def result(self, model: nn.Module, fitted: Fitted) -> Work:
        return Work(self.change)

    def commit(self, delta: dict[str, Tensor], mask: dict[str, Tensor]) -> dict[str, Tensor]:
        return delta

    def recall(self, name: str) -> dict[str, Tensor]:
        return self.memory

    def remember(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.memory = tensors


def test_largest_entries_and_error_feedback_by_hand() -> None:
    """Two of four entries are sent; what stays behind is added to the next change.

    Round 1: (4, -1) and (2, 0.5): 4 and 2 go. Round 2: (0.25, -1) and (0.25, 0.25) become
    (0.25, -2) and (0.25, 0.75): -2 and 0.75 go. The buffer is no parameter and goes whole.
    """
    cx, net = Client(), nn.Linear(1, 1)
    mean = torch.tensor([9.0, 9.0])
    cx.change = {"w": torch.tensor([4.0, -1.0]), "b": torch.tensor([2.0, 0.5]), "mean": mean}
    work = FlexCom().train(cx, net)  # type: ignore[arg-type]
    assert {name: x.tolist() for name, x in work.values.items()} == {
        "w": [4.0, 0.0], "b": [2.0, 0.0], "mean": [9.0, 9.0],
    }  # fmt: skip
    assert work.mask is not None
    assert {n: x.tolist() for n, x in work.mask.items()} == {
        "w": [True, False],
        "b": [True, False],
    }
    cx.change = {"w": torch.tensor([0.25, -1.0]), "b": torch.tensor([0.25, 0.25]), "mean": mean}
    work = FlexCom().train(cx, net)  # type: ignore[arg-type]
    assert work.values["w"].tolist() == [0.0, -2.0]
    assert work.values["b"].tolist() == [0.0, 0.75]
    assert {name: x.tolist() for name, x in cx.memory.items()} == {
        "w": [0.25, 0.0],
        "b": [0.25, 0.0],
    }


def test_only_uploads_become_small(tmp_path: Path) -> None:
    """The client holds and trains the whole model, and that is what is recorded."""
    flags = {"method__ratio_min": 0.9, "method__ratio_max": 0.9, "rounds": 1}
    setup = prepare_run(toy_recipe("flexcom", **flags), tmp_path / "memory")
    _, record = next(rounds(setup))
    _, dense = next(rounds(prepare_run(toy_recipe("fedavg", rounds=1), tmp_path / "dense")))
    assert record.coverage == dense.coverage == 4
    for client, whole in zip(record.clients, dense.clients, strict=True):
        assert (client.params, client.macs) == (whole.params, whole.macs)
        assert client.pruning_error == 0.0
        assert client.compute_s == whole.compute_s
        assert client.notes == {"compression": 0.9}
        # Nine tenths of 4 bytes per entry are saved, but for a bit each and the parts' names.
        assert whole.up_bytes - client.up_bytes > 0.4 * 4 * whole.params


def test_an_entry_that_is_not_sent_is_no_change(tmp_path: Path) -> None:
    flags = {"method__ratio_min": 0.75, "method__ratio_max": 0.75}
    setup = prepare_run(toy_recipe("flexcom", **flags), tmp_path / "memory")
    fed, state = setup.fed, ServerState(0, setup.values, Support())
    ctx = replace(fed.context(1, "round", lambda *_, **__: None), cohort=(0, 1, 2, 3))
    asks = fed.method.plan(ctx, state)
    answers = exchange(fed, state, asks, Inline(setup.site), round=1).answers
    assert len(answers) == 4
    total = sum(answer.num_examples for answer in answers)
    names = fed.layout.parameters.tensors
    size = sum(state.values[name].numel() for name in names)
    for answer in answers:
        assert answer.support is answer.ask.support
        sent = sum(int((answer.work.values[name] != 0).sum()) for name in names)
        assert sent == round(0.25 * size)
    new = fed.method.aggregate(ctx, state, answers)
    for name, old in state.values.items():
        mean = sum(a.work.values[name] * (a.num_examples / total) for a in answers)
        assert torch.allclose(new.values[name], old + mean, atol=1e-6), name


def test_without_compression_it_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for method, options in (("fedavg", {}), ("flexcom", {"ratio_min": 0, "ratio_max": 0})):
        flags = {f"method__{key}": value for key, value in options.items()}
        *_, (state, _) = rounds(
            prepare_run(toy_recipe(method, rounds=2, **flags), tmp_path / method)
        )
        ends.append(state.values)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
