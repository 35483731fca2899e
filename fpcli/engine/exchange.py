"""Send plans or questions to clients and take in what comes back, in the order of clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fpcli.engine.executors.inline import Outcome
from fpcli.engine.federation import Federation, Refusal
from fpcli.engine.receive import (
    DROPPED,
    Rejected,
    check_address,
    check_envelope,
    check_finite,
    check_update,
)
from fpcli.engine.timing import work_seconds
from fpcli.engine.types import Answer, Plan, Probe, ServerState, Support, Timing, Traffic, Update
from fpcli.errors import WireError
from fpcli.fleet.devices import Point
from fpcli.rng import stream
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
        lost_s: simulated seconds until each client dropped out.
    """

    arrived: list[Arrived] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    down_bytes: int = 0
    up_bytes: int = 0
    lost_s: list[float] = field(default_factory=list)


def exchange(
    fed: Federation,
    state: ServerState,
    tasks: Sequence[Plan | Probe],
    executor: Executor,
    *,
    round: int,
    op: str = "train",
    attempt: int = 0,
) -> Exchange:
    """Send one job per task and collect the readable replies, ordered as the tasks are.

    A reply that cannot be read, belongs to another job or reports an error becomes a refusal, and
    so does what is lost by a client that drops out. Those do so in training only, not when asked.
    """
    points = {
        task.client: fed.fleet.drops_out(round, task.client, attempt)
        for task in tasks
        if isinstance(task, Plan)
    }
    sending = _Sending(fed, state, tasks, points, round, op)
    for outcome in executor.run(sending.jobs()):
        sending.take(outcome)
    out, replies, refused = sending.out, sending.replies, sending.refused
    out.arrived = [replies[position] for position in sorted(replies)]
    out.refusals = [refused[position] for position in sorted(refused)]
    return out


class _Sent(NamedTuple):
    """A job that was handed to the executor: its task's position, its bytes, its pruning error."""

    position: int
    down_bytes: int
    cut: float


@dataclass
class _Sending:
    """One sending of tasks while it goes on; replies and refusals by the position of the task."""

    fed: Federation
    state: ServerState
    tasks: Sequence[Plan | Probe]
    points: Mapping[int, Point | None]
    round: int
    op: str
    out: Exchange = field(default_factory=Exchange)
    sent: list[_Sent] = field(default_factory=list)
    replies: dict[int, Arrived] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def jobs(self) -> Iterator[bytes]:
        """Yield the jobs that clients finish."""
        values = self.state.values
        parameters = [name for name, spec in self.fed.layout.tensors.items() if spec.is_parameter]
        norm = sum(float(values[name].square().sum()) for name in parameters)
        for position, task in enumerate(self.tasks):
            point = self.points.get(task.client)
            if point == "before":
                self._lose(position, point, 0.0)
                continue
            job = _job(self.fed, self.state, task, self.round, self.op)
            kept = norm
            if task.support.keep or task.support.mask:
                kept = sum(float(job.values[name].square().sum()) for name in parameters)
            cut = max(0.0, 1.0 - kept / norm) if norm > 0 else 0.0
            purpose = f"wire/down/{self.op}"
            data = pack_job(job, stream(self.fed.seed, purpose, self.round, task.client))
            self.out.down_bytes += len(data)
            if point == "training":
                compute_s, down_s, _ = work_seconds(self.fed, task, self.round, len(data), 0)
                self._lose(position, point, compute_s + down_s)
                continue
            self.sent.append(_Sent(position, len(data), cut))
            yield data

    def take(self, outcome: Outcome) -> None:
        """Keep a readable reply, or the reason why there is none."""
        position, down_bytes, cut = self.sent[outcome.job]
        task = self.tasks[position]
        try:
            if outcome.reply is None:
                raise Rejected("F410", outcome.error)
            self.out.up_bytes += len(outcome.reply)
            if position in self.replies or position in self.refused:
                raise Rejected("F401", "a second reply to one job")
            arrived = _read(self.fed, task, outcome, down_bytes, cut, self.round, self.op)
            if self.points.get(task.client) == "after":
                self._lose(position, "after", arrived.time.total_s)
            else:
                self.replies[position] = arrived
        except Rejected as error:
            refusal = Refusal(task.client, error.code, error.reason, self.op)
            self.refused.setdefault(position, refusal)
        except WireError as error:
            self.refused[position] = Refusal(task.client, "F401", error.message, self.op)

    def _lose(self, position: int, point: Point, seconds: float) -> None:
        code, reason = DROPPED[point]
        client = self.tasks[position].client
        self.refused[position] = Refusal(client, code, f"dropped out {reason}")
        self.out.lost_s.append(seconds)


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
            _check_in_time(fed, arrived)
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


def answers(fed: Federation, brought: Exchange) -> list[Answer]:
    """Return the usable answers; non-finite and late ones become refusals of ``brought``."""
    usable = []
    for arrived in brought.arrived:
        assert isinstance(arrived.task, Probe)
        try:
            check_finite(arrived.reply)
            _check_in_time(fed, arrived)
        except Rejected as error:
            task = arrived.task
            brought.refusals.append(Refusal(task.client, error.code, error.reason, task.op))
            continue
        usable.append(
            Answer(
                arrived.task,
                arrived.reply.tensors,
                fed.num_seen(arrived.task),
                arrived.traffic,
                arrived.time,
            )
        )
    return usable


def _check_in_time(fed: Federation, arrived: Arrived) -> None:
    """Refuse a reply that came after the deadline.

    Raises:
        Rejected: F409.
    """
    deadline_s, seconds = fed.rules.deadline_s, arrived.time.total_s
    if deadline_s is not None and seconds > deadline_s:
        what = f"`{arrived.task.op}`: " if isinstance(arrived.task, Probe) else ""
        raise Rejected("F409", f"{what}{seconds:.3g} s; the deadline is {deadline_s:g} s")


def _job(fed: Federation, state: ServerState, task: Plan | Probe, round: int, op: str) -> Job:
    support = task.support
    support.check(fed.layout)
    # A client that judges the global model needs the statistics that the server gave it, and no
    # rounded values: that is no traffic.
    is_judged = op == "evaluate"
    layout = fed.layout if is_judged else fed.travels
    return Job(
        method=fed.method_name,
        op=op,
        round=round,
        client=task.client,
        run=fed.run,
        local=task.local if isinstance(task, Plan) else fed.local,
        note=dict(task.note),
        codec="dense" if is_judged else fed.down_codec,
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
    check_address(reply, task, op, round, fed.run, fed.up_codec)
    check_envelope(reply)
    up_bytes = len(outcome.reply)
    seconds = work_seconds(fed, task, round, down_bytes, up_bytes, reply.metrics)
    if min(seconds) < 0:
        raise Rejected("F406", f"{min(seconds):g} s of work")
    return Arrived(
        task, reply, Traffic(down_bytes, up_bytes), Timing(*seconds, reply.real_s), pruning_error
    )
