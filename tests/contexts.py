"""What a client knows while it does a job, and the server in a round, made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fpcli.engine.client_context import ClientContext
from fpcli.engine.round_context import RoundContext
from fpcli.engine.site import Site
from fpcli.engine.types import TRAIN, LocalConfig, Tensors
from fpcli.structure.layout import Layout
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


def round_context(options: Any, layout: Layout, num: int, **changes: Any) -> RoundContext:
    """Return the context of round 1 with so many clients, of 10 samples each."""
    made = RoundContext(
        round=1,
        phase="round",
        options=options,
        layout=layout,
        travels=layout,
        local=LocalConfig(),
        fleet=None,  # type: ignore[arg-type]
        num_examples=[10] * num,
        share_labels=lambda one, other: False,
        rounds=1,
        clients_per_round=num,
        seed=0,
        log=lambda *_, **__: None,
        server=None,  # type: ignore[arg-type]
        cohort=tuple(range(num)),
    )
    return replace(made, **changes)
