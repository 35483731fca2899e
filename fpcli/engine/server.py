"""The server's loop: one synchronous round after another, with no file and no screen.

`play` is an iterator: it yields the new state and the record of each round, and keeps nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

from fpcli.engine.client_context import EVALUATE
from fpcli.engine.evaluate import evaluate
from fpcli.engine.exchange import Exchange, Executor, exchange, note_masks
from fpcli.engine.federation import (
    ClientRecord,
    Evaluation,
    Federation,
    Refusal,
    RoundRecord,
    Totals,
)
from fpcli.engine.planning import choose_cohort, plan_questions, plan_round
from fpcli.engine.process import num_cores, using_threads
from fpcli.engine.quorum import (
    check_finite_state,
    describe_refusals,
    explain_too_few,
    give_up_if_all_diverged,
)
from fpcli.engine.round_context import RoundContext
from fpcli.engine.server_step import optimize
from fpcli.engine.types import Answer, Ask, Json, ServerState, Support, require_kind
from fpcli.errors import DivergedError
from fpcli.fleet.clock import round_seconds
from fpcli.structure.choice import list_within
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Tensors
from fpcli.structure.min_coverage import count_least_holders
from fpcli.structure.sparse_kernels import use_sparse
from fpcli.tasks.learning_task import Score


def begin_training(
    fed: Federation,
    values: Tensors,
    executor: Executor,
    support: Support | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[ServerState, Totals]:
    """Return the state before round 1: the method's `begin`, then its questions of the start.

    Args:
        values: dense initial values.
        support: what is alive of them; None means everything.
        tell: takes a line about the clients whose answers were not used.

    Raises:
        ClientError: the method asks, and in no attempt did anybody answer.
    """
    spent, log, server = _Spent(), _Log(), fed.server_side.at(0)
    fresh = ServerState(0, values, support or Support())
    begun = fed.method.begin(fed.context(0, "start", log, server=server), fresh)
    require_kind(begun, ServerState, "begin")
    everyone = tuple(range(len(fed.num_examples)))
    for attempt in range(fed.rules.round_retries + 1):
        ctx = replace(fed.context(0, "start", log, attempt, server), cohort=everyone)
        state = _ask(fed, ctx, begun, executor, spent)
        if state is not None:
            for text in describe_refusals("before round 1", spent.refusals):
                tell(text)
            clock_s = server.charged.round_seconds(spent.clock_s)
            return state, Totals(clock_s, spent.down_bytes, spent.up_bytes, spent.real_s)
    raise explain_too_few(fed.rules, 0, 0, spent.refusals)


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
    spent, log, server = _Spent(), _Log(), fed.server_side.at(number)
    answers: list[Answer] = []
    for attempt in range(fed.rules.round_retries + 1):
        ctx = fed.context(number, "round", log, attempt, server)
        ctx = replace(ctx, cohort=choose_cohort(fed, ctx, state))
        answers = []
        asked = _ask(fed, ctx, state, executor, spent) if ctx.cohort else None
        if asked is None:
            continue
        asks = plan_round(fed, ctx, asked)
        brought = exchange(fed, asked, asks, executor, round=number, attempt=attempt)
        answers = brought.answers
        spent.add(brought, _seconds(fed, brought))
        if len(answers) >= fed.rules.min_clients:
            break
        give_up_if_all_diverged(number, ctx.cohort, brought.refusals, fed.divergence_hint)
        state = note_masks(fed, state, asks, ())
    else:
        raise explain_too_few(fed.rules, number, len(answers), spent.refusals)
    noted = note_masks(fed, asked, asks, answers)
    merged = require_kind(fed.method.aggregate(ctx, noted, answers), ServerState, "aggregate")
    new = replace(optimize(fed.server, fed.layout, asked, merged), round=number)
    check_finite_state(new)
    evaluation = None
    if number % fed.rules.eval_every == 0 or number == fed.rules.rounds:
        answers_after = _ask(fed, replace(ctx, phase="eval"), new, executor, spent)
        if answers_after is None:
            raise explain_too_few(fed.rules, number, 0, spent.refusals)
        new, evaluation = answers_after, judge_models(fed, answers_after, executor)
    if server_s := server.charged.alone_s + server.charged.beside_s:
        log(None, server_s=server_s)
    spent.clock_s = server.charged.round_seconds(spent.clock_s)
    record = _record(fed, new, ctx.cohort, answers, attempt + 1, spent, log, totals, evaluation)
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
    for op in sorted({ask.op for ask in plan_questions(fed, ctx, state)}):
        # Asked for again, since the answers to one question may change what the next one is about.
        asks = [
            ask
            for ask in plan_questions(fed, ctx, state)
            if ask.op == op
            and fed.num_seen(ask)
            and fed.fleet.is_available(ctx.round, ask.client, ctx.attempt)
        ]
        brought = exchange(fed, state, asks, executor, round=ctx.round)
        spent.add(brought, _seconds(fed, brought))
        if brought.answers:
            state = require_kind(
                fed.method.absorb(ctx, state, brought.answers), ServerState, "absorb"
            )
            check_finite_state(state)
        elif ctx.phase != "round" or not all(refusal.is_dropped for refusal in brought.refusals):
            return None
    return state


def _seconds(fed: Federation, brought: Exchange) -> float:
    deadline_s = fed.rules.deadline_s
    on_time = [taken for taken in brought.taken_s if deadline_s is None or taken <= deadline_s]
    # Who waits until a deadline cannot know that a client dropped out.
    is_waiting = len(on_time) < len(brought.taken_s) or bool(brought.lost_s)
    return round_seconds([*on_time, *brought.lost_s], deadline_s, any_late=is_waiting)


def judge_models(fed: Federation, state: ServerState, executor: Executor) -> Evaluation:
    """Judge the global model on validation and test data, and personal models on their clients.

    Evaluation uses every core: the clients are idle then, and scores decide no bit of the model
    but through the validation metrics of ``target``.

    Raises:
        DivergedError: the validation loss is not finite.
    """
    model = fed.server_side.module(fed.read_judged(state), state.support)
    if fed.sparse.evaluate:
        masks = state.support.block_mask(fed.layout)
        model = use_sparse(model, masks, list_within(masks, fed.sparse.evaluate))
    splits = [fed.dataset.validation, fed.dataset.test]
    splits += [fed.withheld_test] if fed.withheld_test is not None else []
    with using_threads(num_cores()):
        validation, test, *withheld = (
            evaluate(model, split, fed.dataset, channels_last=fed.is_channels_last)
            for split in splits
        )
    if not math.isfinite(validation.loss):
        raise DivergedError(
            f"the validation loss is not finite after round {state.round}",
            hint=fed.divergence_hint,
        )
    clients: dict[int, Score] = {}
    if fed.traits.models == "personal" or fed.rules.eval_clients:
        asks = [
            Ask(i, EVALUATE, support=state.support) for i, n in enumerate(fed.num_examples) if n
        ]
        brought = exchange(fed, state, asks, executor, round=state.round)
        for answer in brought.answers:
            metrics = dict(answer.work.metrics)
            if answer.num_examples and metrics.keys() >= {"loss", *validation.metrics}:
                score = Score(metrics.pop("loss"), metrics, answer.num_examples)
                clients[answer.ask.client] = score
    return Evaluation(validation, test, clients, withheld[0] if withheld else None)


def _record(
    fed: Federation,
    state: ServerState,
    cohort: tuple[int, ...],
    answers: Sequence[Answer],
    attempts: int,
    spent: _Spent,
    log: _Log,
    totals: Totals,
    evaluation: Evaluation | None,
) -> RoundRecord:
    samples = sum(answer.num_examples for answer in answers)
    real_s = spent.real_s
    totals = replace(
        totals,
        clock_s=totals.clock_s + spent.clock_s,
        down_bytes=totals.down_bytes + spent.down_bytes,
        up_bytes=totals.up_bytes + spent.up_bytes,
        real_s=totals.real_s + real_s,
    )
    if evaluation:
        totals = totals.judged(
            fed.dataset.task, evaluation.validation, evaluation.test, state.round
        )
    return RoundRecord(
        round=state.round,
        cohort=cohort,
        clients=tuple(_client_record(fed, answer, log) for answer in answers),
        refusals=tuple(spent.refusals),
        attempts=attempts,
        loss=sum(a.work.metrics["loss"] * a.num_examples for a in answers) / max(samples, 1),
        clock_s=spent.clock_s,
        down_bytes=spent.down_bytes,
        up_bytes=spent.up_bytes,
        real_s=real_s,
        cost=count_cost(fed.layout, state.support),
        coverage=count_least_holders(fed.layout, [answer.support for answer in answers]),
        notes=log.notes.get(None, {}),
        totals=totals,
        evaluation=evaluation,
    )


def _client_record(fed: Federation, answer: Answer, log: _Log) -> ClientRecord:
    ask, work, size = answer.ask, answer.work, count_cost(fed.layout, answer.support)
    return ClientRecord(
        client=ask.client,
        num_examples=answer.num_examples,
        num_steps=work.num_steps,
        loss=work.metrics["loss"],
        params=size.params,
        macs=size.macs,
        pruning_error=answer.pruning_error,
        **asdict(answer.traffic),
        **asdict(answer.time),
        notes={**ask.record, **log.notes.get(ask.client, {})},
    )
