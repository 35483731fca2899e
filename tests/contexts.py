"""What a client knows while it does a job, made by hand."""

from __future__ import annotations

from typing import Any

from fpcli.engine.client_context import ClientContext
from fpcli.engine.site import Site
from fpcli.engine.types import TRAIN, LocalConfig, Tensors
from fpcli.structure.support import EMPTY
from fpcli.wire.headers import JobHeader
from fpcli.wire.message import Job


def context(
    site: Site,
    received: Tensors = EMPTY,
    *,
    client: int = 1,
    round: int = 1,
    op: str = TRAIN,
    local: LocalConfig | None = None,
    **more: Any,
) -> ClientContext:
    """Return the context of a client on a site; what is more goes into the job."""
    header = JobHeader(
        client, op, local=local or LocalConfig(), method="m", round=round, run=site.run,
        codec="dense",
    )  # fmt: skip
    return ClientContext(site, Job(header, received, **more))
