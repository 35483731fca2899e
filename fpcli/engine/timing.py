"""What a client's work would take on its simulated device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fpcli.data.batches import num_processed
from fpcli.engine.federation import Federation
from fpcli.engine.types import Plan, Probe
from fpcli.fleet.clock import forward_seconds, stamp, train_seconds
from fpcli.structure.cost import cost


def work_seconds(
    fed: Federation,
    task: Plan | Probe,
    round: int,
    down_bytes: int,
    up_bytes: int,
    told: Mapping[str, float] = MappingProxyType({}),
) -> tuple[float, float, float]:
    """Return the simulated seconds of computing, receiving and sending.

    Args:
        task: what the client does, on its device of this round; a plan may bring its own seconds.
        told: metrics of the reply, in which an answer may bring them (see ``Work``).
    """
    if isinstance(task, Plan) and task.time is not None:
        return task.time.compute_s, task.time.down_s, task.time.up_s
    device = fed.fleet.at(round, task.client)
    macs = cost(fed.layout, task.support).macs
    samples = fed.num_seen(task)
    if isinstance(task, Plan):
        local = task.local
        processed = num_processed(samples, local.batch_size, local.epochs, task.max_steps)
        compute_s = train_seconds(macs, processed, device)
        return stamp(device, compute_s=compute_s, down_bytes=down_bytes, up_bytes=up_bytes)
    compute_s = told.get("compute_s", forward_seconds(macs, samples, device))
    _, down_s, up_s = stamp(device, compute_s=0.0, down_bytes=down_bytes, up_bytes=up_bytes)
    return compute_s, told.get("down_s", down_s), told.get("up_s", up_s)
