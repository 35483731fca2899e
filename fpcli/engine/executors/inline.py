"""Perform jobs one after another in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fpcli.engine.client import perform
from fpcli.engine.site import Site


@dataclass(frozen=True)
class Outcome:
    """What came of one job.

    Attributes:
        job: its position in the sequence given to ``run``.
        reply: the reply's bytes, or None where there is none.
        error: why there is none.
    """

    job: int
    reply: bytes | None
    error: str = ""


class Inline:
    """The simplest executor, for tests, for debugging and for one accelerator."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        """Yield the outcome of each job, in order."""
        for position, job in enumerate(jobs):
            yield Outcome(position, perform(job, self._site))

    def close(self) -> None:
        """Do nothing: this executor owns no process."""
