"""The server's loop: one synchronous round after another, with no file and no screen.

`play` is an iterator: it yields the new state and the record of each round, and keeps nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from fpcli.engine.evaluate import ClientScore, evaluate
from fpcli.engine.exchange import Exchange, Executor, answers, exchange, updates
from fpcli.engine.federation import (
    ClientRecord,
    Evaluation,
    Federation,
    Refusal,
    RoundRecord,
    Totals,
)
from fpcli.engine.method import RoundContext, choose_cohort
from fpcli.engine.placement import place
from fpcli.engine.process import num_cores, using_threads
from fpcli.engine.quorum import (
    check_finite_state,
    describe_refusals,
    give_up_if_all_diverged,
    too_few,
)
from fpcli.engine.server_optimizer import optimized
from fpcli.engine.types import Json, Plan, Probe, ServerState, Support, Update
from fpcli.errors import DivergedError
from fpcli.fleet.clock import round_seconds
from fpcli.structure.choice import within
from fpcli.structure.cost import cost
from fpcli.structure.coverage import min_coverage
from fpcli.structure.kernels import use_sparse
from fpcli.structure.layout import Tensors
from fpcli.structure.shrink import shrink


def begin(
    fed: Federation,
    values: Tensors,
    executor: Executor,
    support: Support | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[ServerState, Totals]:
    """Return the state before round 1: the method's `begin`, then its start-phase probe.

    Args:
        values: dense initial values.
        support: what is alive of them; None means everything.
        tell: takes a line about the clients whose answers were not used.

    Raises:
        ClientError: the method asks, and in no attempt did anybody answer.
    """
    spent, log = _Spent(), _Log()
    begun = fed.method.begin(
        fed.context(0, "start", log), ServerState(0, values, support or Support())
    )
    everyone = tuple(range(len(fed.num_examples)))
    for attempt in range(fed.rules.round_retries + 1):
        ctx = replace(fed.context(0, "start", log, attempt), cohort=everyone)
        state = _ask(fed, ctx, begun, executor, spent)
        if state is not None:
            for text in describe_refusals("before round 1", spent.refusals):
                tell(text)
            return state, Totals(spent.clock_s, spent.down_bytes, spent.up_bytes, spent.real_s)
    raise too_few(fed.rules, 0, 0, spent.refusals)


def play(
    fed: Federation, state: ServerState, executor: Executor, totals: Totals
) -> Iterator[tuple[ServerState, RoundRecord]]:
    """Play the rounds after ``state.round`` and yield the state and record of each.

    Raises:
        ClientError: too few usable replies, after all retries.
        DivergedError: every client diverged, or the merged model is not finite.
    """
    for _ in range(state.round, fed.rules.rounds):
        state, record = _round(fed, state, executor, totals)
        totals = record.totals
        yield state, record


class _Log:
    """Collects what a method logs per client during a round."""

    def __init__(self) -> None:
        self.notes: dict[int | None, dict[str, Json]] = {}

    def __call__(self, client: int | None, **values: Json) -> None:
        self.notes.setdefault(client, {}).update(values)


class _Spent:
    """Adds up bytes, simulated seconds and refusals of the exchanges of a round."""

    def __init__(self) -> None:
        self.clock_s, self.down_bytes, self.up_bytes = 0.0, 0, 0
        self.refusals: list[Refusal] = []
        self._started = time.perf_counter()

    def add(self, brought: Exchange, clock_s: float) -> None:
        self.clock_s += clock_s
        self.down_bytes += brought.down_bytes
        self.up_bytes += brought.up_bytes
        self.refusals += brought.refusals

    @property
    def real_s(self) -> float:
        return time.perf_counter() - self._started


def _round(
    fed: Federation, state: ServerState, executor: Executor, totals: Totals
) -> tuple[ServerState, RoundRecord]:
    number = state.round + 1
    spent, log = _Spent(), _Log()
    usable: list[Update] = []
    for attempt in range(fed.rules.round_retries + 1):
        ctx = fed.context(number, "round", log, attempt)
        cohort = choose_cohort(fed.method, ctx, state)
        if not cohort:
            usable = []
            continue
        ctx = replace(ctx, cohort=cohort)
        asked = _ask(fed, ctx, state, executor, spent)
        if asked is None:
            usable = []
            continue
        plans = [fed.method.plan(ctx, asked, client) for client in cohort]
        brought = exchange(fed, asked, plans, executor, round=number, attempt=attempt)
        usable = updates(fed, brought)
        spent.add(brought, _seconds(fed, brought))
        if len(usable) >= fed.rules.min_clients:
            break
        give_up_if_all_diverged(number, cohort, brought.refusals, fed.divergence_hint)
    else:
        raise too_few(fed.rules, number, len(usable), spent.refusals)
    merged = fed.method.aggregate(ctx, asked, usable)
    new = replace(optimized(fed.server, fed.layout, asked, merged), round=number)
    check_finite_state(new)
    evaluation = None
    if number % fed.rules.eval_every == 0 or number == fed.rules.rounds:
        told = _ask(fed, replace(ctx, phase="eval"), new, executor, spent)
        if told is None:
            raise too_few(fed.rules, number, 0, spent.refusals)
        new, evaluation = told, judge(fed, told, executor)
    record = _record(fed, new, cohort, usable, attempt + 1, spent, log, totals, evaluation)
    return new, record


def _ask(
    fed: Federation, ctx: RoundContext, state: ServerState, executor: Executor, spent: _Spent
) -> ServerState | None:
    """Send the method's questions of one phase, if it has any, and let it absorb the answers.

    This is the one place that decides who is asked: clients that are there, with samples to answer
    from.

    Returns:
        The state, or None where nobody answered. A round goes on without the answers of clients
        that are away or late.
    """
    for op in sorted({probe.op for probe in fed.method.probe(ctx, state, ctx.cohort)}):
        # Asked for again, since the answers to one question may change what the next one is about.
        probes = [p for p in fed.method.probe(ctx, state, ctx.cohort) if p.op == op]
        tasks = [
            probe
            for probe in sorted(probes, key=lambda probe: probe.client)
            if fed.num_seen(probe) and fed.fleet.is_available(ctx.round, probe.client, ctx.attempt)
        ]
        brought = exchange(fed, state, tasks, executor, round=ctx.round, op=op)
        usable = answers(fed, brought)
        spent.add(brought, _seconds(fed, brought))
        if usable:
            state = fed.method.absorb(ctx, state, usable)
            check_finite_state(state)
        elif ctx.phase != "round" or not all(refusal.is_dropped for refusal in brought.refusals):
            return None
    return state


def _seconds(fed: Federation, brought: Exchange) -> float:
    deadline_s = fed.rules.deadline_s
    totals = [arrived.time.total_s for arrived in brought.arrived]
    on_time = [total for total in totals if deadline_s is None or total <= deadline_s]
    # Who waits until a deadline cannot know that a client dropped out.
    is_waiting = len(on_time) < len(totals) or bool(brought.lost_s)
    return round_seconds([*on_time, *brought.lost_s], deadline_s, any_late=is_waiting)


def judge(fed: Federation, state: ServerState, executor: Executor) -> Evaluation:
    """Judge the global model on validation and test data, and personal models on their clients.

    Evaluation uses every core: the clients are idle then, and scores decide no bit of the model
    but through the validation accuracy of ``target_accuracy``.

    Raises:
        DivergedError: the validation loss is not finite.
    """
    small = shrink(fed.template, state.support.gather(fed.layout, state.values))
    model = place(small, fed.device, fed.is_channels_last)
    if fed.sparse.evaluate:
        masks = state.support.block_mask(fed.layout)
        model = use_sparse(model, masks, within(masks, fed.sparse.evaluate))
    splits = [fed.dataset.validation, fed.dataset.test]
    splits += [fed.withheld_test] if fed.withheld_test is not None else []
    with using_threads(num_cores()):
        validation, test, *withheld = (
            evaluate(model, split, fed.dataset.normalise, channels_last=fed.is_channels_last)
            for split in splits
        )
    if not math.isfinite(validation.loss):
        raise DivergedError(
            f"the validation loss is not finite after round {state.round}",
            hint=fed.divergence_hint,
        )
    clients: Mapping[int, ClientScore] = {}
    if fed.method.kind == "personalised" or fed.rules.eval_clients:
        everyone = [
            Probe(i, "evaluate", state.support) for i, n in enumerate(fed.num_examples) if n
        ]
        brought = exchange(fed, state, everyone, executor, round=state.round, op="evaluate")
        clients = {
            arrived.task.client: ClientScore(
                **arrived.reply.metrics, num_examples=arrived.reply.num_examples
            )
            for arrived in brought.arrived
            if arrived.reply.num_examples
            and arrived.reply.metrics.keys() == {"accuracy", "loss", "local_accuracy"}
        }
    return Evaluation(validation, test, clients, withheld[0] if withheld else None)


def _record(
    fed: Federation,
    state: ServerState,
    cohort: tuple[int, ...],
    usable: Sequence[Update],
    attempts: int,
    spent: _Spent,
    log: _Log,
    totals: Totals,
    evaluation: Evaluation | None,
) -> RoundRecord:
    samples = sum(update.num_examples for update in usable)
    real_s = spent.real_s
    totals = replace(
        totals,
        clock_s=totals.clock_s + spent.clock_s,
        down_bytes=totals.down_bytes + spent.down_bytes,
        up_bytes=totals.up_bytes + spent.up_bytes,
        real_s=totals.real_s + real_s,
    )
    if evaluation and evaluation.validation.accuracy > totals.best_validation:
        totals = replace(
            totals,
            best_validation=evaluation.validation.accuracy,
            best_accuracy=evaluation.test.accuracy,
            best_round=state.round,
        )
    return RoundRecord(
        round=state.round,
        cohort=cohort,
        clients=tuple(_client_record(fed, update, log) for update in usable),
        refusals=tuple(spent.refusals),
        attempts=attempts,
        loss=sum(u.metrics["loss"] * u.num_examples for u in usable) / max(samples, 1),
        clock_s=spent.clock_s,
        down_bytes=spent.down_bytes,
        up_bytes=spent.up_bytes,
        real_s=real_s,
        cost=cost(fed.layout, state.support),
        coverage=min_coverage(fed.layout, [update.support for update in usable]),
        notes=log.notes.get(None, {}),
        totals=totals,
        evaluation=evaluation,
    )


def _client_record(fed: Federation, update: Update, log: _Log) -> ClientRecord:
    plan: Plan = update.plan
    size = cost(fed.layout, update.support)
    return ClientRecord(
        client=plan.client,
        num_examples=update.num_examples,
        num_steps=update.num_steps,
        loss=update.metrics["loss"],
        params=size.params,
        macs=size.macs,
        pruning_error=update.pruning_error,
        down_bytes=update.traffic.down_bytes,
        up_bytes=update.traffic.up_bytes,
        compute_s=update.time.compute_s,
        down_s=update.time.down_s,
        up_s=update.time.up_s,
        real_s=update.time.real_s,
        notes={**plan.record, **log.notes.get(plan.client, {})},
    )
