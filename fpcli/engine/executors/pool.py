"""Perform jobs in a pool of worker processes that lives as long as the run.

Workers start from a fork server that has torch loaded, compute with one thread each, and take one
job at a time over a pipe. Which worker performs a job cannot be seen in its result. A worker that
dies or exceeds the time limit is replaced, and its job repeated once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

import torch.multiprocessing as torch_multiprocessing

from fpcli.engine.client import perform
from fpcli.engine.executors.inline import Outcome
from fpcli.engine.process import settle_process
from fpcli.engine.site import Site
from fpcli.errors import NeedError

# The optimiser imports torch._dynamo at its first step; loaded once, no worker has to.
_PRELOAD = ["fpcli.engine.executors.pool", "torch._dynamo"]


def start_method() -> str:
    """Return how worker processes are started on this system."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def warm_up() -> None:
    """Let the fork server load its modules while this process does other things."""
    if start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(_PRELOAD)
        forkserver.ensure_running()


class Pool:
    """An executor of ``num_workers`` processes.

    Args:
        site: what every worker holds; its tensors are moved to shared memory.
        num_workers: processes.
        timeout_s: real seconds after which a job's worker is replaced; None waits for ever.
    """

    def __init__(self, site: Site, num_workers: int, timeout_s: float | None = None) -> None:
        warm_up()
        self._context = torch_multiprocessing.get_context(start_method())
        site.dataset.share()
        self._site = site
        self._timeout_s = timeout_s
        self._workers = [self._start() for _ in range(num_workers)]

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        """Yield outcomes as they arrive; at most one job per worker is held in memory."""
        source = enumerate(jobs)
        again: deque[tuple[int, bytes]] = deque()
        failures: dict[int, int] = {}
        idle, busy = list(self._workers), {}
        while True:
            while idle:
                position, job = again.popleft() if again else next(source, (-1, b""))
                if position < 0:
                    break
                worker = idle.pop()
                busy[worker] = (position, job, time.monotonic())
                worker.give(job)
            if not busy:
                return
            for worker, reply in self._wait(busy):
                position, job, _ = busy.pop(worker)
                if reply is not None:
                    idle.append(worker)
                    yield Outcome(position, reply)
                    continue
                reason = worker.stop()
                self._workers[self._workers.index(worker)] = replacement = self._start()
                idle.append(replacement)
                failures[position] = failures.get(position, 0) + 1
                if failures[position] > 1:
                    yield Outcome(position, None, f"its worker failed twice ({reason})")
                else:
                    again.append((position, job))

    def close(self) -> None:
        """End all workers and wait for them."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid]

    def _start(self) -> _Worker:
        return _Worker(self._context, self._site)

    def _wait(
        self, busy: dict[_Worker, tuple[int, bytes, float]]
    ) -> list[tuple[_Worker, bytes | None]]:
        """Return workers that have answered, died or run out of time, with their replies."""
        while True:
            ready = wait([worker.pipe for worker in busy], timeout=1.0)
            done: list[tuple[_Worker, bytes | None]] = []
            for worker, (_, _, since) in busy.items():
                if worker.pipe in ready:
                    done.append((worker, worker.take()))
                elif self._timeout_s is not None and time.monotonic() - since > self._timeout_s:
                    worker.reason = f"no reply within {self._timeout_s:g} s"
                    done.append((worker, None))
            if done:
                return done


class _Worker:
    """One process and our end of its pipe."""

    def __init__(self, context: Any, site: Site) -> None:
        self.reason = "it ended"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, site), daemon=True)
        try:
            self.process.start()
        except OSError as error:
            raise NeedError(f"cannot start a worker process: {error}") from error
        theirs.close()

    def give(self, job: bytes) -> None:
        """Send a job; a dead worker is noticed when its reply is awaited."""
        try:
            self.pipe.send_bytes(job)
        except OSError:
            self.reason = "it ended before its job"

    def take(self) -> bytes | None:
        """Receive a reply, or None when the worker has died."""
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            return None

    def stop(self) -> str:
        """End the process, wait for it, and say why it was ended."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(1.0)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        code = self.process.exitcode
        return self.reason if code in (None, -signal.SIGTERM) else f"exit status {code}"


def _work(pipe: Connection, site: Site) -> None:
    """Serve jobs until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(2, 1)  # a user's print must not reach the standard output of the command
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settle_process()
    while True:
        try:
            job = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        reply = perform(job, site)
        try:
            pipe.send_bytes(reply)
        except OSError:
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        sys.stderr.flush()
        os._exit(1)
