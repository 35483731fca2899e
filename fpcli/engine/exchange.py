"""Send asks to clients and take in what comes back, in the order of the asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Protocol

from fpcli.engine.client_context import EVALUATE
from fpcli.engine.executors.inline import Outcome
from fpcli.engine.federation import Federation, Refusal
from fpcli.engine.receive import (
    DROPPED,
    Rejected,
    check_address,
    check_envelope,
    check_finite,
    check_trained,
)
from fpcli.engine.timing import work_seconds
from fpcli.engine.types import (
    TRAIN,
    Answer,
    Ask,
    ServerState,
    Support,
    Task,
    Tensors,
    Timing,
    Traffic,
    Work,
)
from fpcli.errors import WireError
from fpcli.fleet.devices import Point
from fpcli.rng import stream
from fpcli.structure.masks import narrow_support
from fpcli.structure.support import scatter
from fpcli.wire.blocks import digest_masks
from fpcli.wire.headers import Envelope, JobHeader
from fpcli.wire.message import Job, Reply, pack_job, unpack_reply


class Executor(Protocol):
    """Where jobs are performed."""

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        """Yield one outcome per job, in any order."""
        ...

    def close(self) -> None:
        """Release processes."""
        ...


@dataclass
class Exchange:
    """What one sending of asks brought; filled by `exchange`.

    Attributes:
        answers: those that can be used.
        down_bytes, up_bytes: everything sent, whether its reply was used or not.
        taken_s: simulated seconds of every readable reply, used or not.
        lost_s: simulated seconds until each client dropped out.
    """

    answers: list[Answer] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    down_bytes: int = 0
    up_bytes: int = 0
    taken_s: list[float] = field(default_factory=list)
    lost_s: list[float] = field(default_factory=list)


def exchange(
    fed: Federation,
    state: ServerState,
    asks: Sequence[Ask],
    executor: Executor,
    *,
    round: int,
    attempt: int = 0,
) -> Exchange:
    """Send one job per ask and collect the usable answers, ordered as the asks are.

    A reply that cannot be read, belongs to another job, reports an error, is wrong or late becomes
    a refusal, and so does what is lost by a client that drops out. Those do so in training only,
    not when asked.
    """
    points = {
        ask.client: fed.fleet.drops_out(round, ask.client, attempt)
        for ask in asks
        if ask.op == TRAIN
    }
    sending = _Sending(fed, state, asks, points, round)
    for outcome in executor.run(sending.jobs()):
        sending.take(outcome)
    out, answers, refused = sending.out, sending.answers, sending.refused
    out.answers = [answers[position] for position in sorted(answers)]
    out.refusals = [refused[position] for position in sorted(refused)]
    return out


class _Sent(NamedTuple):
    """A job that was handed to the executor: its ask's position, its bytes, its pruning error."""

    position: int
    down_bytes: int
    pruning_error: float


@dataclass
class _Sending:
    """One sending of asks while it goes on; answers and refusals by the position of the ask."""

    fed: Federation
    state: ServerState
    asks: Sequence[Ask]
    points: Mapping[int, Point | None]
    round: int
    out: Exchange = field(default_factory=Exchange)
    sent: list[_Sent] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def jobs(self) -> Iterator[bytes]:
        """Yield the jobs that clients finish."""
        values = self.state.values
        parameters = [name for name, spec in self.fed.layout.tensors.items() if spec.is_parameter]
        norm = sum(float(values[name].square().sum()) for name in parameters)
        for position, ask in enumerate(self.asks):
            point = self.points.get(ask.client)
            if point == "before":
                self._lose(position, point, 0.0)
                continue
            job = make_job(self.fed, self.state, ask, self.round)
            kept = norm
            if ask.support.keep or ask.support.mask:
                kept = sum(float(job.values[name].square().sum()) for name in parameters)
            cut = max(0.0, 1.0 - kept / norm) if norm > 0 else 0.0
            rng = stream(self.fed.seed, f"wire/down/{ask.op}", self.round, ask.client)
            data = pack_job(job, rng)
            self.out.down_bytes += len(data)
            if point == "training":
                compute_s, down_s, _ = work_seconds(self.fed, ask, self.round, len(data), 0)
                self._lose(position, point, compute_s + down_s)
                continue
            self.sent.append(_Sent(position, len(data), cut))
            yield data

    def take(self, outcome: Outcome) -> None:
        """Keep a usable answer, or the reason why there is none."""
        sent = self.sent[outcome.job]
        position, ask = sent.position, self.asks[sent.position]
        try:
            if outcome.reply is None:
                raise Rejected("F410", outcome.error)
            self.out.up_bytes += len(outcome.reply)
            if position in self.answers or position in self.refused:
                raise Rejected("F401", "a second reply to one job")
            reply = self._read(ask, outcome.reply)
            time = self._timed(ask, reply, sent.down_bytes, len(outcome.reply))
            if self.points.get(ask.client) == "after":
                self._lose(position, "after", time.total_s)
                return
            self.out.taken_s.append(time.total_s)
            self.answers[position] = self._answer(ask, reply, time, sent, len(outcome.reply))
        except Rejected as error:
            refusal = Refusal(ask.client, error.code, error.reason, ask.op)
            self.refused.setdefault(position, refusal)
        except WireError as error:
            self.refused[position] = Refusal(ask.client, "F401", error.message, ask.op)

    def _lose(self, position: int, point: Point, seconds: float) -> None:
        code, reason = DROPPED[point]
        client = self.asks[position].client
        self.refused[position] = Refusal(client, code, f"dropped out {reason}")
        self.out.lost_s.append(seconds)

    def _read(self, ask: Ask, data: bytes) -> Reply:
        fed, support = self.fed, ask.support
        reply = unpack_reply(
            data,
            op=ask.op,
            shapes=support.block_shapes(fed.travels),
            mask=support.block_mask(fed.travels),
            limit_bytes=fed.limit_bytes,
        )
        check_address(reply, Envelope(ask.op, self.round, ask.client, fed.run), fed.up_codec)
        check_envelope(reply)
        return reply

    def _timed(self, ask: Ask, reply: Reply, down_bytes: int, up_bytes: int) -> Timing:
        metrics = reply.work.metrics
        seconds = work_seconds(self.fed, ask, self.round, down_bytes, up_bytes, metrics)
        if min(seconds) < 0:
            raise Rejected("F406", f"{min(seconds):g} s of work")
        return Timing(*seconds, reply.real_s)

    def _answer(self, ask: Ask, reply: Reply, time: Timing, sent: _Sent, up_bytes: int) -> Answer:
        fed, work, support, num_examples = self.fed, reply.work, ask.support, reply.num_examples
        deadline_s = fed.rules.deadline_s
        if ask.op == TRAIN:
            mask, has_own = support.block_mask(fed.travels), fed.traits.masks_by == "client"
            check_trained(
                reply,
                ask,
                fed.travels,
                mask,
                num_examples=fed.num_examples[ask.client],
                may_mask=has_own or fed.traits.uploads == "entries",
                may_narrow=has_own,
            )
            if has_own:
                support, values = narrow(fed, support, work)
                work = replace(work, values=values)
        elif ask.op != EVALUATE:
            check_finite(work)
            num_examples = fed.num_seen(ask)
        if deadline_s is not None and time.total_s > deadline_s and ask.op != EVALUATE:
            what = "" if ask.op == TRAIN else f"`{ask.op}`: "
            raise Rejected("F409", f"{what}{time.total_s:.3g} s; the deadline is {deadline_s:g} s")
        traffic = Traffic(sent.down_bytes, up_bytes)
        return Answer(ask, work, support, num_examples, traffic, time, sent.pruning_error)


def narrow(fed: Federation, support: Support, work: Work) -> tuple[Support, Tensors]:
    """Return what a client holds that may choose, and its change cut to that.

    Args:
        support: what it was sent.
    """
    if work.mask is not None:
        axes = support.axes(fed.layout)
        masks = {
            name: scatter(mask, axes[name], fed.layout.tensors[name].shape)
            for name, mask in work.mask.items()
        }
        support = Support(support.keep, {**support.mask, **masks})
    if not work.stay:
        return support, work.values
    dense, _ = support.scatter(fed.travels, work.values)
    support = narrow_support(fed.travels, support, work.stay)
    return support, support.gather(fed.travels, dense)


def note_masks(
    fed: Federation, state: ServerState, asks: Sequence[Ask], answers: Sequence[Answer]
) -> ServerState:
    """Return the state in which it is noted who has which masks after training.

    Who was asked and has not answered may or may not have them; it counts as having none.
    """
    if not fed.traits.remembers_masks:
        return state
    asked = {ask.client for ask in asks}
    held = {c: digest for c, digest in state.masks_held.items() if c not in asked}
    for answer in answers:
        masks = answer.ask.support.block_mask(fed.travels)
        if fed.traits.uploads != "entries":  # which says of a change what it leaves out
            masks |= answer.work.mask or {}
        held[answer.ask.client] = digest_masks(masks)
    return replace(state, masks_held=held)


def make_job(fed: Federation, state: ServerState, ask: Ask, round: int) -> Job:
    """Return what one client is sent.

    Raises:
        LayoutError: the sub-model does not fit the network.
    """
    support = ask.support
    support.check(fed.layout)
    # A client that judges the global model needs the statistics that the server gave it, and no
    # rounded values: that is no traffic.
    is_judged = ask.op == EVALUATE
    layout = fed.layout if is_judged else fed.travels
    mask = support.block_mask(layout)
    held = state.masks_held.get(ask.client) if mask and ask.op == TRAIN else None
    header = JobHeader(
        **{item.name: getattr(ask, item.name) for item in fields(Task)}
        | {"local": ask.local or fed.local},
        method=fed.method_name,
        round=round,
        run=fed.run,
        codec="dense" if is_judged else fed.down_codec,
    )
    return Job(
        header,
        values=support.gather(layout, state.values),
        mask=mask,
        keep=support.keep if fed.traits.coordinates else None,
        is_mask_known=held is not None and held == digest_masks(mask),
    )
