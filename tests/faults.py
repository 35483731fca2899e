"""Methods that misbehave on a client, and executors that lose or replace replies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from fpcli.engine.executors.inline import Inline, Outcome
from fpcli.engine.method import ClientContext, Method, fit
from fpcli.engine.site import Site
from fpcli.engine.types import Work
from fpcli.errors import DivergedError


@dataclass(frozen=True)
class Options:
    """How a client of `Faulty` fails, and how often."""

    fault: str = "none"
    """What happens."""
    folder: str = ""
    """Where failures are counted, one empty file each."""
    times: int = 1
    """Failures after which the client works."""


class Faulty(Method):
    """FedAvg whose client 1 fails in round 2."""

    source: ClassVar[str] = "test"
    Options: ClassVar[type] = Options

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        options: Options = cx.options
        if (cx.client, cx.round) == (1, 2) and options.fault != "none":
            folder = Path(options.folder)
            tries = len(list(folder.iterdir()))
            if tries < options.times:
                (folder / str(tries)).touch()
                FAULTS[options.fault](model)
        return cx.result(model, fit(model, cx, self.loss))


class Broken(Method):
    """FedAvg whose clients all end with a NaN in a buffer."""

    source: ClassVar[str] = "test"

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        fitted = fit(model, cx, self.loss)
        poison(model)
        return cx.result(model, fitted)


class Unsendable(Method):
    """FedAvg whose client 1 returns what no message can hold."""

    source: ClassVar[str] = "test"

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        fitted = fit(model, cx, self.loss)
        metrics = {"ratio": float("nan")} if cx.client == 1 else {}
        return cx.result(model, fitted, metrics=metrics)


def poison(model: nn.Module) -> None:
    """Put a NaN into a batch-norm buffer only."""
    model.get_buffer("norm.running_mean")[0] = torch.nan


def kill(model: nn.Module) -> None:
    """End this process as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(model: nn.Module) -> None:
    """Never answer."""
    time.sleep(600)


def leave(model: nn.Module) -> None:
    """End this process from a library call."""
    os._exit(1)


def quit_python(model: nn.Module) -> None:
    """End this process as a script does."""
    raise SystemExit(1)


def shout(model: nn.Module) -> None:
    """Print 10 MB, then never answer."""
    for _ in range(10):
        print("x" * 1_000_000, flush=True)
    hang(model)


def fail(model: nn.Module) -> None:
    """Raise what a method's bug would."""
    raise ZeroDivisionError("by zero\nin two lines")


def diverge(model: nn.Module) -> None:
    """Report a model that is no longer finite."""
    raise DivergedError("the loss is not finite")


FAULTS: dict[str, Callable[[nn.Module], None]] = {
    "kill": kill,
    "hang": hang,
    "leave": leave,
    "quit": quit_python,
    "shout": shout,
    "fail": fail,
    "diverge": diverge,
    "nan_buffer": poison,
}

Tamper = Callable[[int, int, bytes], bytes | None]
"""Call number of ``run``, position of the job, honest reply -> what arrives; None loses it."""


class Tampering(Inline):
    """An inline executor between whose clients and server something happens to the replies."""

    def __init__(self, site: Site, tamper: Tamper) -> None:
        super().__init__(site)
        self._tamper = tamper
        self.num_runs = 0

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        self.num_runs += 1
        for outcome in super().run(jobs):
            assert outcome.reply is not None
            reply = self._tamper(self.num_runs, outcome.job, outcome.reply)
            yield Outcome(outcome.job, reply, "" if reply else "lost")


def losing(*lost: int, runs: Iterable[int] = range(1, 100)) -> Tamper:
    """Lose the replies at some positions."""
    return lambda run, job, reply: None if job in lost and run in runs else reply
