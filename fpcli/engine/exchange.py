"""Send plans or questions to clients and take in what comes back, in the order of clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fpcli.data.batches import num_processed
from fpcli.engine.executors.inline import Outcome
from fpcli.engine.federation import Federation, Refusal
from fpcli.engine.receive import (
    Rejected,
    check_address,
    check_envelope,
    check_finite,
    check_update,
)
from fpcli.engine.types import Answer, Plan, Probe, ServerState, Support, Timing, Traffic, Update
from fpcli.errors import WireError
from fpcli.fleet.clock import forward_seconds, stamp, train_seconds
from fpcli.structure.cost import cost
from fpcli.structure.support import place
from fpcli.wire.message import Job, Reply, pack_job, unpack_reply


class Executor(Protocol):
    """Where jobs are performed."""

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        """Yield one outcome per job, in any order."""
        ...

    def close(self) -> None:
        """Release processes."""
        ...


@dataclass(frozen=True)
class Arrived:
    """A readable reply of the right client, with its bytes and seconds."""

    task: Plan | Probe
    reply: Reply
    traffic: Traffic
    time: Timing
    pruning_error: float


@dataclass
class Exchange:
    """What one sending of tasks brought; filled by `exchange`.

    Attributes:
        down_bytes, up_bytes: everything sent, whether its reply was used or not.
    """

    arrived: list[Arrived] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    down_bytes: int = 0
    up_bytes: int = 0


def exchange(
    fed: Federation,
    state: ServerState,
    tasks: Sequence[Plan | Probe],
    executor: Executor,
    *,
    round: int,
    op: str = "train",
) -> Exchange:
    """Send one job per task and collect the readable replies, ordered as the tasks are.

    A reply that cannot be read, belongs to another job or reports an error becomes a refusal.
    """
    sent: list[int] = []
    cuts: list[float] = []
    parameters = [name for name, spec in fed.layout.tensors.items() if spec.is_parameter]
    norm = sum(float(state.values[name].square().sum()) for name in parameters)

    def jobs() -> Iterator[bytes]:
        for task in tasks:
            job = _job(fed, state, task, round, op)
            kept = norm
            if task.support.keep or task.support.mask:
                kept = sum(float(job.values[name].square().sum()) for name in parameters)
            cuts.append(max(0.0, 1.0 - kept / norm) if norm > 0 else 0.0)
            data = pack_job(job)
            sent.append(len(data))
            yield data

    replies: dict[int, Arrived] = {}
    refused: dict[int, Refusal] = {}
    out = Exchange()
    for outcome in executor.run(jobs()):
        task = tasks[outcome.job]
        try:
            if outcome.reply is None:
                raise Rejected("F410", outcome.error)
            out.up_bytes += len(outcome.reply)
            if outcome.job in replies or outcome.job in refused:
                raise Rejected("F401", "a second reply to one job")
            down_bytes, cut = sent[outcome.job], cuts[outcome.job]
            replies[outcome.job] = _read(fed, task, outcome, down_bytes, cut, round, op)
        except Rejected as error:
            refused.setdefault(outcome.job, Refusal(task.client, error.code, error.reason))
        except WireError as error:
            refused[outcome.job] = Refusal(task.client, "F401", error.message)
    out.down_bytes = sum(sent)
    out.arrived = [replies[job] for job in sorted(replies)]
    out.refusals = [refused[job] for job in sorted(refused)]
    return out


def updates(fed: Federation, brought: Exchange) -> list[Update]:
    """Return the usable updates; the wrong and the late ones become refusals of ``brought``."""
    usable = []
    for arrived in brought.arrived:
        plan, reply = arrived.task, arrived.reply
        assert isinstance(plan, Plan)
        mask = plan.support.block_mask(fed.travels)
        try:
            check_update(
                reply,
                plan,
                fed.travels,
                mask,
                num_examples=fed.num_examples[plan.client],
                may_choose_mask=fed.method.kind in ("masks", "personalised")
                or fed.method.sparsifies,
            )
            deadline_s = fed.rules.deadline_s
            if deadline_s is not None and arrived.time.total_s > deadline_s:
                raise Rejected(
                    "F409", f"{arrived.time.total_s:.1f} s; the deadline is {deadline_s:g} s"
                )
        except Rejected as error:
            brought.refusals.append(Refusal(plan.client, error.code, error.reason))
            continue
        support = plan.support
        if reply.mask is not None and not fed.method.sparsifies:
            axes = support.axes(fed.layout)
            own = {
                name: place(mask, axes[name], fed.layout.tensors[name].shape)
                for name, mask in reply.mask.items()
            }
            support = Support(support.keep, {**support.mask, **own})
        usable.append(
            Update(
                plan=plan,
                support=support,
                delta=reply.tensors,
                stats=reply.stats,
                num_examples=reply.num_examples,
                num_steps=reply.num_steps,
                metrics=reply.metrics,
                traffic=arrived.traffic,
                time=arrived.time,
                pruning_error=arrived.pruning_error,
            )
        )
    return usable


def answers(brought: Exchange) -> list[Answer]:
    """Return the usable answers to probes; non-finite ones become refusals of ``brought``."""
    usable = []
    for arrived in brought.arrived:
        assert isinstance(arrived.task, Probe)
        try:
            check_finite(arrived.reply)
        except Rejected as error:
            brought.refusals.append(Refusal(arrived.task.client, error.code, error.reason))
            continue
        usable.append(
            Answer(
                arrived.task,
                arrived.reply.tensors,
                arrived.reply.num_examples,
                arrived.traffic,
                arrived.time,
            )
        )
    return usable


def _job(fed: Federation, state: ServerState, task: Plan | Probe, round: int, op: str) -> Job:
    support = task.support
    support.check(fed.layout)
    # A client that judges the global model needs the statistics that the server gave it.
    layout = fed.layout if op == "evaluate" else fed.travels
    return Job(
        method=fed.method_name,
        op=op,
        round=round,
        client=task.client,
        run=fed.run,
        local=task.local if isinstance(task, Plan) else fed.local,
        note=dict(task.note),
        codec=fed.codec,
        values=support.gather(layout, state.values),
        mask=support.block_mask(layout),
        is_mask_known=isinstance(task, Plan) and task.is_mask_known,
        max_steps=task.max_steps if isinstance(task, Plan) else 0,
        keep=support.keep if fed.method.sends_indices else None,
    )


def _read(
    fed: Federation,
    task: Plan | Probe,
    outcome: Outcome,
    down_bytes: int,
    pruning_error: float,
    round: int,
    op: str,
) -> Arrived:
    assert outcome.reply is not None
    support = task.support
    reply = unpack_reply(
        outcome.reply,
        shapes=support.block_shapes(fed.travels) if isinstance(task, Plan) else None,
        mask=support.block_mask(fed.travels),
        limit_bytes=fed.limit_bytes,
    )
    check_address(reply, task, op, round, fed.run)
    check_envelope(reply)
    up_bytes = len(outcome.reply)
    device = fed.fleet.at(round, task.client)
    macs = cost(fed.layout, support).macs
    samples = fed.num_examples[task.client]
    if isinstance(task, Plan):
        local = task.local
        processed = num_processed(samples, local.batch_size, local.epochs, task.max_steps)
        compute_s = train_seconds(macs, processed, device)
    elif reply.num_steps:
        compute_s = train_seconds(macs, reply.num_steps * fed.local.batch_size, device)
    else:
        compute_s = forward_seconds(macs, samples, device)
    seconds = stamp(device, compute_s=compute_s, down_bytes=down_bytes, up_bytes=up_bytes)
    return Arrived(
        task, reply, Traffic(down_bytes, up_bytes), Timing(*seconds, reply.real_s), pruning_error
    )
