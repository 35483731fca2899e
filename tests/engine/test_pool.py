from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from replies import plain

from fpcli.engine import server
from fpcli.engine.exchange import Executor
from fpcli.engine.executors.inline import Inline
from fpcli.engine.executors.pool import Pool
from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState
from fpcli.train.setup import Setup, prepare_run

TESTS = Path(__file__).parents[1]


def toy(tmp_path: Path, fault: str = "none", times: int = 1, **changes: Any) -> Setup:
    counted = tmp_path / "tries"
    counted.mkdir(exist_ok=True)
    options = {"method__fault": fault, "method__folder": str(counted), "method__times": times}
    recipe = toy_recipe("faults:Faulty", **options, **changes)
    return prepare_run(recipe, tmp_path / "memory")


def play(setup: Setup, executor: Executor) -> tuple[ServerState, list[RoundRecord]]:
    start, totals = server.begin_training(setup.fed, setup.values, executor)
    played = list(server.play(setup.fed, start, executor, totals))
    return played[-1][0], [record for _, record in played]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    setup = toy(tmp_path_factory.mktemp("healthy"))
    return plain(play(setup, Inline(setup.site))[0])


@pytest.fixture
def pools() -> Iterator[list[Pool]]:
    """Collect pools, and close those that a failed test has left open."""
    opened: list[Pool] = []
    yield opened
    for pool in opened:
        pool.close()


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    """Return the processes that are still there after some seconds."""
    until = time.monotonic() + seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_bits(
    tmp_path: Path, pools: list[Pool], healthy: Any, num_workers: int
) -> None:
    setup = toy(tmp_path)
    pools.append(pool := Pool(setup.site, num_workers))
    state, _ = play(setup, pool)
    assert plain(state) == healthy
    pids = pool.pids
    assert len(set(pids)) == num_workers
    assert all(is_alive(pid) for pid in pids)
    pool.close()
    assert not [pid for pid in pids if is_alive(pid)]
    assert multiprocessing.active_children() == []
    pool.close()  # twice does no harm


@needs_proc
@pytest.mark.parametrize("fault", ["kill", "leave", "quit"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_job_whose_worker_ends_is_repeated_with_the_same_bits(
    tmp_path: Path, pools: list[Pool], healthy: Any, fault: str, num_workers: int
) -> None:
    setup = toy(tmp_path, fault)
    pools.append(pool := Pool(setup.site, num_workers))
    before = pool.pids
    state, records = play(setup, pool)
    assert len(list((tmp_path / "tries").iterdir())) == 1
    assert all(record.refusals == () for record in records)
    assert plain(state) == healthy
    assert len(set(before) - set(pool.pids)) == 1, "one worker was replaced"
    assert len(pool.pids) == num_workers
    pool.close()
    assert not [pid for pid in before if is_alive(pid)]


def test_a_client_whose_workers_end_twice_is_dropped(tmp_path: Path, pools: list[Pool]) -> None:
    setup = toy(tmp_path, "kill", times=2)
    pools.append(pool := Pool(setup.site, 2))
    state, records = play(setup, pool)
    assert [len(record.clients) for record in records] == [4, 3, 4]
    ((client, code, reason),) = [(r.client, r.code, r.reason) for r in records[1].refusals]
    assert (client, code) == (1, "F410")
    assert "failed twice" in reason
    assert "-9" in reason
    assert state.round == 3


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(tmp_path: Path, pools: list[Pool], healthy: Any) -> None:
    setup = toy(tmp_path, "hang")
    pools.append(pool := Pool(setup.site, 2, timeout_s=5.0))
    before = pool.pids
    state, records = play(setup, pool)
    assert all(record.refusals == () for record in records)
    assert plain(state) == healthy
    gone = set(before) - set(pool.pids)
    assert len(gone) == 1
    assert not is_alive(gone.pop())


def test_a_client_that_hangs_twice_is_dropped(tmp_path: Path, pools: list[Pool]) -> None:
    setup = toy(tmp_path, "hang", times=2, rounds=2)
    pools.append(pool := Pool(setup.site, 2))
    play_first, totals = server.begin_training(setup.fed, setup.values, pool)
    state, record = next(server.play(setup.fed, play_first, pool, totals))
    pool._timeout_s = 1.0  # the first round may have waited for the workers to start
    _, record = next(server.play(setup.fed, state, pool, record.totals))
    ((client, code, reason),) = [(r.client, r.code, r.reason) for r in record.refusals]
    assert (client, code) == (1, "F410")
    assert "no reply within 1 s" in reason


WAITING = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]

def main():
    from engine_pool import toy, play
    setup = toy(Path({folder!r}), "shout", rounds=2)
    from fpcli.engine.executors.pool import Pool
    pool = Pool(setup.site, 2)
    print(*pool.pids, flush=True)
    play(setup, pool)

if __name__ == "__main__":
    main()
"""


def script(tmp_path: Path, text: str) -> list[str]:
    """Write a script that may import this file as `engine_pool`, and return its command line."""
    (tmp_path / "engine_pool.py").symlink_to(__file__)
    path = tmp_path / "script.py"
    path.write_text(text.format(tests=str(TESTS), folder=str(tmp_path)))
    return [sys.executable, str(path)]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_main_process_or_prints_to_its_output(
    tmp_path: Path, number: int
) -> None:
    """Client 1 prints and hangs in round 2: one worker is busy, one idle when the end comes."""
    errors = tmp_path / "errors"
    with errors.open("wb") as stderr:
        main = subprocess.Popen(script(tmp_path, WAITING), stdout=subprocess.PIPE, stderr=stderr)
    try:
        assert main.stdout is not None
        pids = [int(word) for word in main.stdout.readline().split()]
        assert len(pids) == 2
        until = time.monotonic() + 60
        while errors.stat().st_size < 10_000_000 and time.monotonic() < until:
            time.sleep(0.05)
        family = [*pids, *helpers_of(main.pid)]
        assert len(family) == 4, "two workers, the fork server and the resource tracker"
        assert all(is_alive(pid) for pid in pids)
        os.kill(main.pid, number)
        assert main.wait(10) == -number
        assert wait_until_gone(family, 10) == []
        assert main.stdout.read() == b""
        assert errors.read_bytes().count(b"x") >= 10_000_000
    finally:
        main.kill()
        main.communicate()


def helpers_of(parent: int) -> list[int]:
    """Return the other processes that a main process has started: fork server and the like."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found
