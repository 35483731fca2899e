from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driver import Listener

from fpcli.engine.federation import Evaluation, RoundRecord, Totals
from fpcli.engine.types import ServerState
from fpcli.errors import NeedError, UsageError
from fpcli.recipe.load import load_recipe
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import Cost
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Score
from fpcli.train import trackers

RECIPE = load_recipe(None)


def record(number: int) -> RoundRecord:
    score = Score(1.0, {"accuracy": number / 10}, 50)
    return RoundRecord(
        round=number, cohort=(), clients=(), refusals=(), attempts=1, loss=0.5, clock_s=1.0,
        down_bytes=10, up_bytes=5, real_s=0.25, cost=Cost(100, 200.0, 400), coverage=1,
        notes={"density": {"conv": 0.5}, "words": "no number"}, evaluation=Evaluation(score, score),
        totals=Totals(clock_s=2.0 * number, down_bytes=10 * number, up_bytes=5 * number),
    )  # fmt: skip


def play(folder: Path, names: tuple[str, ...], first: int, last: int) -> Listener:
    """Tell of some rounds, as a run that is resumed after the round before the first does."""
    listener = Listener()
    folder.mkdir(exist_ok=True)
    with trackers.track_run(names, listener, RECIPE, RunFolder(folder)) as watcher:
        state = ServerState(first - 1, {}, Support())
        watcher.start(None, folder, "inline", state)  # type: ignore[arg-type]
        for number in range(first, last + 1):
            watcher.round(record(number))
        watcher.message("bye")
    return listener


class Memory:
    """A tracker that keeps everything, and fails in one round."""

    def __init__(self, folder: Path, recipe: object, done: int) -> None:
        self.done = done
        self.points: list[tuple[int, Mapping[str, float]]] = []
        self.is_closed = False
        MADE.append(self)

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        if round == 3:
            raise OSError("disk full\nand more")
        self.points.append((round, scalars))

    def close(self) -> None:
        self.is_closed = True


class Broken:
    def __init__(self, *arguments: object) -> None:
        raise RuntimeError("no server")


MADE: list[Memory] = []


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.clear()
    known = {**trackers.TRACKERS, "memory": Memory, "broken": Broken}
    monkeypatch.setattr(trackers, "TRACKERS", known)


def test_every_round_reaches_both(tmp_path: Path) -> None:
    listener = play(tmp_path, ("memory",), 1, 2)
    assert (listener.rounds, listener.messages) == ([1, 2], ["bye"])
    (made,) = MADE
    assert (made.done, made.is_closed) == (0, True)
    assert made.points[1] == (
        2,
        {
            "train/loss": 0.5, "traffic/down_bytes": 20, "traffic/up_bytes": 10,
            "time/clock_s": 4.0, "time/round_real_s": 0.25, "model/params": 100,
            "model/macs": 200.0, "model/coverage": 1, "test/accuracy": 0.2, "test/loss": 1.0,
            "validation/accuracy": 0.2, "validation/loss": 1.0, "notes/density/conv": 0.5,
        },
    )  # fmt: skip


def test_a_tracker_that_fails_stops_nothing(tmp_path: Path) -> None:
    listener = play(tmp_path, ("broken", "memory"), 1, 5)
    assert listener.rounds == [1, 2, 3, 4, 5]
    assert listener.messages == [
        "warning: broken failed and gets no more rounds (RuntimeError: no server)",
        "warning: memory failed and gets no more rounds (OSError: disk full)",
        "bye",
    ]
    assert [number for number, _ in MADE[0].points] == [1, 2]


def test_nothing_is_tracked_by_default(tmp_path: Path) -> None:
    listener = Listener()
    with trackers.track_run((), listener, RECIPE, RunFolder(tmp_path)) as watcher:
        assert watcher is listener


def test_ratios_of_clients() -> None:
    clients = [{"notes": {"ratio": ratio}} for ratio in (0.2, 0.4, None)]
    found = trackers.collect_scalars({"notes": {}, "clients": clients})
    assert found == {"ratio/mean": pytest.approx(0.3), "ratio/min": 0.2, "ratio/max": 0.4}


def test_every_metric_and_the_means_over_clients() -> None:
    score = {"mae": 44.0, "r2": None, "loss": 1.0, "num_examples": 50}
    personal = {"mae": {"0": 40.0, "3": 50.0}, "r2": {"0": 0.5, "3": 0.5}}
    found = trackers.collect_scalars(
        {"notes": {}, "test": score, "validation": {"mae": 45.0}, "personal": personal}
    )
    assert found == {
        "test/mae": 44.0, "test/loss": 1.0, "validation/mae": 45.0, "clients/mae/mean": 45.0,
        "clients/mae/std": 5.0, "clients/mae/min": 40.0, "clients/r2/mean": 0.5,
        "clients/r2/std": 0.0, "clients/r2/min": 0.5,
    }  # fmt: skip


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace(origin="x"))
    assert trackers.check_trackers("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    assert trackers.check_trackers("") == ()
    with pytest.raises(UsageError, match="unknown tracker `wandbb`") as caught:
        trackers.check_trackers("wandbb")
    assert caught.value.hint == "did you mean `wandb`?"


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)])
def test_an_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: spec)
    with pytest.raises(NeedError) as caught:
        trackers.check_trackers("tensorboard")
    assert (caught.value.exit_status, caught.value.hint) == (
        5,
        "`pip install 'fpcli[tensorboard]'`",
    )


def test_tensorboard_takes_back_what_is_played_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    assert play(folder, ("tensorboard",), 1, 4).messages == ["bye"]
    assert play(folder, ("tensorboard",), 3, 5).messages == ["bye"]
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    points = [(point.step, round(point.value, 3)) for point in found.Scalars("test/accuracy")]
    assert points == [(number, number / 10) for number in range(1, 6)]


class FakeWandb:
    """Stands for the package: remembers what it was asked."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.num_finished = 0

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802 - theirs
        return settings

    def init(self, **about: Any) -> FakeWandb:
        self.runs.append(about)
        return self

    def log(self, values: Mapping[str, float], step: int) -> None:
        assert values["round"] == step
        self.steps.append(step)

    def finish(self) -> None:
        self.num_finished += 1


def test_wandb_stays_offline_and_gets_no_round_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    environment: dict[str, str] = {}
    monkeypatch.setattr(trackers, "os", SimpleNamespace(environ=environment))
    folder = tmp_path / "run"
    play(folder, ("wandb",), 1, 4)
    play(folder, ("wandb",), 3, 6)
    assert environment["WANDB_MODE"] == "offline"
    assert fake.steps == [1, 2, 3, 4, 5, 6]
    first, second = fake.runs
    assert first["id"] == second["id"]
    assert (first["name"], first["dir"]) == ("run", str(folder))
    assert first["config"]["method.name"] == "fedavg"
    assert fake.num_finished == 2
    assert json.loads((folder / "wandb.json").read_text())["round"] == 6
    play(folder, ("wandb",), 1, 1)
    assert fake.runs[2]["id"] != first["id"]  # from the start: another run
    assert fake.steps[-1] == 1
