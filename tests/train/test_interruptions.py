from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import (
    LONG,
    Listener,
    assert_same,
    begin,
    checkpoints,
    digits_file,
    everything,
    go_on,
    history,
    leftovers,
    spawn,
)
from faults import Tampering

from fpcli.errors import NeedError
from fpcli.train import federated_run
from fpcli.train.run_session import Interrupted
from fpcli.train.setup import Setup

pytestmark = pytest.mark.usefixtures("no_figures")

METHODS = ["fedmp", "toys:Personal"]


def kill_often(runs: Path, name: str, method: str, rng: random.Random) -> None:
    """Kill a run three times, each at a random moment after a random number of rounds.

    The run can be over before the second or third time, but not before the first.
    """
    exits = []
    for _ in range(3):
        process, pipe = spawn(runs, name, method, task__data=digits_file(runs), **LONG)
        try:
            for _ in range(rng.randrange(4)):  # none: while it is being set up
                with contextlib.suppress(EOFError):
                    pipe.recv()
            time.sleep(rng.uniform(0, 0.1))
        finally:
            process.kill()
            process.join()
            pipe.close()
        exits.append(process.exitcode)
    assert exits[0] == -signal.SIGKILL
    assert set(exits) <= {0, -signal.SIGKILL}


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("fedmp", 1),
        *(
            pytest.param(method, number, marks=pytest.mark.slow)
            for method in METHODS
            for number in range(2, 12)
        ),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    runs: Path, whole: Callable[[str], Any], method: str, number: int
) -> None:
    expected = whole(method)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    name = f"killed-{method.replace(':', '-')}-{number}"
    kill_often(runs, name, method, random.Random(seed))
    process, _ = spawn(runs, name, method, task__data=digits_file(runs), **LONG)
    process.join(120)
    assert process.exitcode == 0
    assert_same(everything(runs, name), expected)
    assert [event["round"] for event in history(runs, name)] == [1, 2, 3, 4, 5, 6]
    assert leftovers(runs, name) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_before_any_file_operation(
    runs: Path, whole: Callable[[str], Any], method: str
) -> None:
    """Die before the n-th operation for growing n, on one run that is resumed each time."""
    expected = whole(method)
    for step in (1, 7):
        name, number = f"dying-{method.replace(':', '-')}-{step}", step
        exits: list[int | None] = []
        while not exits or exits[-1] != 0:
            process, _ = spawn(
                runs, name, method, die_at=number, task__data=digits_file(runs), **LONG
            )
            process.join(120)
            exits.append(process.exitcode)
            number += step
            assert exits[-1] in (0, -signal.SIGKILL)
        assert len(exits) > 5
        assert_same(everything(runs, name), expected)
        assert leftovers(runs, name) == []


def signalling(monkeypatch: pytest.MonkeyPatch, *numbers: int, run: int = 3) -> None:
    """Let signals arrive while the second client of a round trains."""

    def send(now: int, job: int, reply: bytes) -> bytes:
        if (now, job) == (run, 1):
            for number in numbers:
                os.kill(os.getpid(), number)
        return reply

    def open_executor(setup: Setup) -> tuple[Any, str]:
        return Tampering(setup.site, send), "inline"

    monkeypatch.setattr(federated_run, "open_executor", open_executor)


@pytest.mark.parametrize(
    ("numbers", "stopped_after", "saved"),
    [
        ((signal.SIGINT,), 3, 3),
        ((signal.SIGTERM,), 3, 3),
        ((signal.SIGINT, signal.SIGINT), 2, 2),
        ((signal.SIGTERM, signal.SIGINT), 2, 2),
    ],
)
def test_a_signal_stops_the_run_and_it_can_go_on(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], stopped_after: int, saved: int,
) -> None:  # fmt: skip
    expected = whole("fedmp")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signalling(monkeypatch, *numbers)
    listener = Listener()
    changes = {"task__data": digits_file(runs), "rounds": 6, "checkpoint_every": 4}
    with pytest.raises(Interrupted) as caught:
        begin(tmp_path, "run", "fedmp", listener, **changes)
    assert (caught.value.number, caught.value.round) == (numbers[0], saved)
    assert caught.value.folder == tmp_path / "run"
    assert listener.rounds == list(range(1, stopped_after + 1))
    assert listener.messages == ["stopping after this round (again to stop now)"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoints(tmp_path) == ["round-00000", f"round-{saved:05d}"]
    monkeypatch.undo()
    listener = Listener()
    go_on(tmp_path, "run", listener, checkpoint_every=2)
    assert listener.rounds == list(range(saved + 1, 7))
    assert_same(everything(tmp_path, "run"), expected)


def test_a_signal_in_the_last_round_ends_the_run_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalling(monkeypatch, signal.SIGINT)
    summary = begin(tmp_path, "run", "fedavg", rounds=3)
    assert summary.rounds == 3
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_a_signal_between_rounds(tmp_path: Path, after: int) -> None:
    def send(round: int) -> None:
        if round == after:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        begin(tmp_path, "run", "fedavg", Listener(send), checkpoint_every=10)
    assert caught.value.round == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any], number: int
) -> None:
    """Workers get it too, as from a terminal: they ignore SIGINT, and are replaced on SIGTERM."""
    expected = whole("fedmp")
    changes = {"task__data": digits_file(runs), "executor__kind": "pool", "executor__workers": 2}
    process, pipe = spawn(tmp_path, "run", "fedmp", **LONG, **changes)
    while pipe.recv() != 1:
        pass
    assert process.pid is not None
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    rest = []
    with contextlib.suppress(EOFError):
        while True:
            rest.append(pipe.recv())
    done = [word for word in rest if isinstance(word, int)]
    assert rest[-1] == f"interrupted by {int(number)} after round {max([1, *done])}"
    go_on(tmp_path, "run", executor__kind="inline")
    assert_same(everything(tmp_path, "run"), expected)


def failing_at(monkeypatch: pytest.MonkeyPatch, function: str, name: str, code: int) -> list[bool]:
    """Let an operation on files fail once it concerns a path with this in it and is switched on."""
    switch = [False]
    original = getattr(Path, function)

    def call(self: Path, *arguments: Any, **keywords: Any) -> Any:
        is_writing = function != "open" or "r" not in (arguments or ("r",))[0]
        if switch[0] and name in str(self) and is_writing:
            raise OSError(code, os.strerror(code), str(self))
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Path, function, call)
    return switch


@pytest.mark.parametrize(
    ("function", "name", "code"),
    [
        ("open", "events.jsonl", errno.ENOSPC),
        ("open", "meta.json", errno.ENOSPC),
        ("mkdir", "round-00003", errno.EROFS),
        ("rename", "round-00003", errno.EACCES),
        ("replace", "SHA256SUMS", errno.ENOSPC),
    ],
)
def test_a_disk_that_takes_no_more(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch, function: str, name: str, code: int,
) -> None:  # fmt: skip
    expected = whole("fedmp")
    switch = failing_at(monkeypatch, function, name, code)
    listener = Listener(lambda round: switch.__setitem__(0, round >= 2))
    with pytest.raises(NeedError) as caught:
        begin(tmp_path, "run", "fedmp", listener, task__data=digits_file(runs), rounds=6)
    assert caught.value.exit_status == 5
    assert os.strerror(code) in caught.value.message
    assert caught.value.hint
    assert ("disk space" in caught.value.hint) == (code == errno.ENOSPC)
    monkeypatch.undo()
    newest_round = 2 if name in ("events.jsonl", "round-00003") else 1
    assert checkpoints(tmp_path)[-1] == f"round-{newest_round:05d}"
    go_on(tmp_path, "run", checkpoint_every=2)
    assert_same(everything(tmp_path, "run"), expected)
    assert leftovers(tmp_path, "run") == []


def test_a_line_cut_short_by_a_full_disk(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any]
) -> None:
    expected = whole("fedmp")
    begin(tmp_path, "run", "fedmp", task__data=digits_file(runs), rounds=3, checkpoint_every=1)
    with (tmp_path / "run" / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "round", "round": 4, "coho')
    go_on(tmp_path, "run", rounds=6, checkpoint_every=2)
    assert_same(everything(tmp_path, "run"), expected)


def test_an_event_that_cannot_be_written_leaves_no_newer_checkpoint(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Fail for the event of round 3 only, so that a checkpoint could be written afterwards."""
    expected = whole("fedmp")
    switch = failing_at(monkeypatch, "open", "events.jsonl", errno.ENOSPC)
    listener = Listener(lambda round: switch.__setitem__(0, round >= 2))
    changes = {"task__data": digits_file(runs), "rounds": 6, "checkpoint_every": 10}
    with pytest.raises(NeedError):
        begin(tmp_path, "run", "fedmp", listener, **changes)
    monkeypatch.undo()
    assert checkpoints(tmp_path) == ["round-00000", "round-00002"]
    go_on(tmp_path, "run", checkpoint_every=2)
    assert_same(everything(tmp_path, "run"), expected)
