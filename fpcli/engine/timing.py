"""What a client's work would take on its simulated device."""

from __future__ import annotations

from fpcli.data.batches import num_processed
from fpcli.engine.federation import Federation
from fpcli.engine.types import Plan, Probe
from fpcli.fleet.clock import forward_seconds, stamp, train_seconds
from fpcli.structure.cost import cost


def work_seconds(
    fed: Federation, task: Plan | Probe, round: int, down_bytes: int, up_bytes: int, num_steps: int
) -> tuple[float, float, float]:
    """Return the simulated seconds of computing, receiving and sending.

    Args:
        task: what the client does, on its device of this round.
        num_steps: steps of training that answering a question took; a plan says its own.
    """
    device = fed.fleet.at(round, task.client)
    macs = cost(fed.layout, task.support).macs
    samples = fed.num_seen(task)
    if isinstance(task, Plan):
        local = task.local
        processed = num_processed(samples, local.batch_size, local.epochs, task.max_steps)
        compute_s = train_seconds(macs, processed, device)
    elif num_steps:
        compute_s = train_seconds(macs, num_steps * fed.local.batch_size, device)
    else:
        compute_s = forward_seconds(macs, samples, device)
    return stamp(device, compute_s=compute_s, down_bytes=down_bytes, up_bytes=up_bytes)
