"""What a client's work would take on its simulated device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fpcli.data.batches import num_processed
from fpcli.engine.federation import Federation
from fpcli.engine.types import TRAIN, Ask
from fpcli.fleet.clock import forward_seconds, stamp, train_seconds
from fpcli.structure.cost import count_cost


def work_seconds(
    fed: Federation,
    ask: Ask,
    round: int,
    down_bytes: int,
    up_bytes: int,
    metrics: Mapping[str, float] = MappingProxyType({}),
) -> tuple[float, float, float]:
    """Return the simulated seconds of computing, receiving and sending.

    Args:
        ask: what the client does, on its device of this round and over the link that it is given;
            it may bring its own seconds.
        metrics: metrics of the reply, in which an answer may bring them (see ``Work``).
    """
    if ask.time is not None:
        return ask.time.compute_s, ask.time.down_s, ask.time.up_s
    device = fed.fleet.at(round, ask.client)
    if ask.link is not None:
        device = ask.link.on(device)
    macs, samples = ask.macs, fed.num_seen(ask)
    if macs is None:
        macs = count_cost(fed.layout, ask.support).macs
    if ask.op == TRAIN:
        local = ask.local or fed.local
        samples = num_processed(samples, local.batch_size, local.epochs, ask.max_steps)
        compute_s, metrics = train_seconds(macs, samples, device), {}
    else:
        compute_s = forward_seconds(macs, samples, device)
    _, down_s, up_s = stamp(device, compute_s=compute_s, down_bytes=down_bytes, up_bytes=up_bytes)
    compute_s = metrics.get("compute_s", compute_s)
    return compute_s, metrics.get("down_s", down_s), metrics.get("up_s", up_s)
