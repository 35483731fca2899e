"""Masks that clients remember travel once, and again wherever it is not certain who has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from faults import Tampering, losing
from replies import plain, rounds
from torch import Tensor
from toys import Remembering

from fpcli.engine import server
from fpcli.engine.exchange import make_job, note_masks
from fpcli.engine.executors.inline import Outcome
from fpcli.engine.federation import Totals
from fpcli.engine.planning import foresee
from fpcli.engine.types import Answer, Ask, ServerState, Support, Timing, Traffic, Work
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire import frame
from fpcli.wire.blocks import digest_masks

NEW, KNOWN = False, True


class Telling(Tampering):
    """Writes down, for every sending, which clients were taken to have their masks."""

    def __init__(self, setup: Setup, *lost: int, runs: Iterable[int] = ()) -> None:
        super().__init__(setup.site, losing(*lost, runs=runs))
        self.known: list[list[bool]] = []

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        self.known.append([])
        return super().run(self._read(jobs))

    def _read(self, jobs: Iterable[bytes]) -> Iterator[bytes]:
        for data in jobs:
            text, _ = frame.read_frame(data, b"FPjb", limit_bytes=1 << 24)
            self.known[-1].append(json.loads(text)["known_mask"] != "")
            yield data


def toy(tmp_path: Path, **changes: Any) -> Setup:
    quick = {"eval_every": 100, "local__batch_size": 512, "rounds": 3}
    return prepare_run(toy_recipe("toys:Remembering", **quick | changes), tmp_path / "memory")


def test_masks_travel_once(tmp_path: Path) -> None:
    """They are the same in rounds 1 to 3, and others in round 4."""
    setup = toy(tmp_path, rounds=4)
    executor = Telling(setup)
    down = [record.down_bytes for _, record in rounds(setup, executor)]
    assert executor.known == [[NEW] * 4, [KNOWN] * 4, [KNOWN] * 4, [NEW] * 4]
    bitmaps = sum(x.numel() for x in setup.values.values() if x.dim() > 1) / 8
    assert down[1] == down[2]
    assert down[0] - down[1] > 4 * bitmaps > 0


def test_what_clients_remember_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = toy(tmp_path)
    *_, (state, _) = rounds(setup)
    monkeypatch.setattr(Remembering, "traits", replace(Remembering.traits, remembers_masks=False))
    forgetful = toy(tmp_path / "other")
    executor = Telling(forgetful)
    *_, (other, _) = rounds(forgetful, executor)
    assert executor.known == 3 * [[NEW] * 4]
    assert other.masks_held == {}
    assert plain(other.values) == plain(state.values)


def test_masks_travel_again_after_a_lost_reply(tmp_path: Path) -> None:
    """Nobody knows whether client 1 had its job."""
    setup = toy(tmp_path)
    executor = Telling(setup, 1, runs=[1])
    list(rounds(setup, executor))
    assert executor.known == [[NEW] * 4, [KNOWN, NEW, KNOWN, KNOWN], [KNOWN] * 4]


def test_masks_travel_again_after_a_late_reply(tmp_path: Path) -> None:
    """Client 1 has its masks, but what comes after the deadline counts as not received."""
    setup = toy(tmp_path, fleet__variation=0.0)
    fleet = setup.fed.fleet
    slow = replace(fleet, own={1: replace(fleet.level(1), flops_per_s=1e3)})
    rules = replace(setup.fed.rules, deadline_s=60.0)
    late = replace(setup, fed=replace(setup.fed, fleet=slow, rules=rules))
    executor = Telling(late)
    *_, (_, record) = rounds(late, executor)
    assert [(r.client, r.code) for r in record.refusals] == [(1, "F409")]
    assert executor.known == [[NEW] * 4, *2 * [[KNOWN, NEW, KNOWN, KNOWN]]]


def test_masks_travel_again_after_a_failed_attempt_at_a_round(tmp_path: Path) -> None:
    """Sending 2 is the first attempt at round 2, from which one reply comes and two are needed."""
    setup = toy(tmp_path, min_clients=2)
    executor = Telling(setup, 0, 1, 2, runs=[2])
    attempts = [record.attempts for _, record in rounds(setup, executor)]
    assert attempts == [1, 2, 1]
    assert executor.known == [[NEW] * 4, [KNOWN] * 4, [NEW] * 4, [KNOWN] * 4]


def test_a_client_that_has_lost_its_masks_says_so_and_gets_them_again(tmp_path: Path) -> None:
    setup = toy(tmp_path)
    executor = Telling(setup)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    for number, record in enumerate(
        (r for _, r in server.play(setup.fed, state, executor, totals)), 1
    ):
        if number == 1:
            (memory,) = (setup.site.home / "client-00001").iterdir()
            memory.unlink()
        elif number == 2:
            assert [(r.client, r.code) for r in record.refusals] == [(1, "F408")]
            assert "client 1 has not the masks that a job of round 2" in record.refusals[0].reason
        else:
            assert record.refusals == ()
    assert executor.known == [[NEW] * 4, [KNOWN] * 4, [KNOWN, NEW, KNOWN, KNOWN]]


def test_a_resumed_federation_goes_on_with_what_it_knew(tmp_path: Path) -> None:
    setup = toy(tmp_path)
    state, _ = next(rounds(setup))
    executor = Telling(setup)
    next(server.play(setup.fed, state, executor, Totals()))
    assert executor.known == [[KNOWN] * 4]


def planned(setup: Setup, held: Mapping[int, str]) -> tuple[ServerState, Ask, dict[str, Tensor]]:
    state = ServerState(0, setup.values, Support(), masks_held=held)
    ask = foresee(setup.fed, state, 1)[1]
    return state, ask, ask.support.block_mask(setup.fed.layout)


def test_only_the_very_masks_of_a_training_job_are_known(tmp_path: Path) -> None:
    setup = toy(tmp_path)
    _, _, mask = planned(setup, {})
    digest = digest_masks(mask)
    state, ask, _ = planned(setup, {1: digest, 2: "0" * 16})

    def is_known(ask: Ask, state: ServerState = state) -> bool:
        return make_job(setup.fed, state, ask, 1).is_mask_known

    assert is_known(ask)
    assert not is_known(replace(ask, client=2)), "it has others"
    assert not is_known(replace(ask, client=3)), "it has none"
    assert not is_known(replace(ask, op="labels")), "a question brings them along"
    assert not is_known(replace(ask, support=Support())), "there are none"
    empty = replace(state, masks_held={1: digest_masks({})})
    assert not is_known(replace(ask, support=Support()), empty)


def test_who_has_which_masks_by_hand(tmp_path: Path) -> None:
    """Clients 0 to 2 were asked: 0 answers, 1 with masks of its own, 2 not at all; 3 was not."""
    setup = toy(tmp_path)
    state, ask, sent = planned(setup, dict.fromkeys(range(4), "old"))
    own = {name: mask & (torch.rand(mask.shape) < 0.5) for name, mask in sent.items()}
    asks = [replace(ask, client=client) for client in range(3)]
    answers = [
        Answer(asks[i], Work({}, mask), ask.support, 1, Traffic(1, 1), Timing(1.0, 1.0, 1.0), 0.0)
        for i, mask in enumerate((None, own))
    ]
    held = note_masks(setup.fed, state, asks, answers).masks_held
    assert held == {0: digest_masks(sent), 1: digest_masks(own), 3: "old"}
    assert note_masks(setup.fed, state, asks, ()).masks_held == {3: "old"}
    assert state.masks_held == dict.fromkeys(range(4), "old")
    fedavg = prepare_run(toy_recipe("fedavg"), tmp_path)
    assert note_masks(fedavg.fed, state, asks, answers) is state
