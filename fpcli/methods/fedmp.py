"""FedMP: per-client pruning ratios, chosen by one bandit per client.

Source: Jiang, Xu, Xu, Wang, Qiao, Zhao, "FedMP: Federated Learning through Adaptive Model Pruning
in Heterogeneous Edge Computing", ICDE 2022. Each round the server prunes the global model for every
client by an l1 ranking of channels, the client trains the smaller dense model, and the server fills
what was cut with its own values before averaging (R2SP). The ratio comes from an E-UCB agent that
partitions the ratios into a growing tree of intervals.

======================  ===================================  ==========================
symbol of the paper     here                                 note
======================  ===================================  ==========================
a_n, theta, lambda      arm, split_above, discount           pruning ratio of client n
N(P), R(P), c(P), U(P)  num, mean, bonus, bound              one per interval P
T_n                     ``answer.time.total_s``              simulated seconds
======================  ===================================  ==========================

The printed form is the recipe fedmp/mnist_printed; our default takes the fall of the loss, which
is the same for every client of a round, out of the reward. Why: recipes/fedmp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt

from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support
from fpcli.scores.sample import score_of_weights
from fpcli.structure.patterns import Ranking


@dataclass(frozen=True)
class Options:
    """Options of `fedmp`; the paper prints none of the numbers."""

    ratio_min: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Lowest pruning ratio."""
    ratio_max: Annotated[float, Ge(0), Le(1)] = 0.8
    """Ratios stay below this (paper: 1, but its own curve collapses above 0.7); equal to
    ratio_min it fixes the ratio."""
    split_above: Annotated[float, Gt(0)] = 0.05
    """Intervals of ratios wider than this are split after a pull (paper: theta)."""
    split: Literal["arm", "midpoint"] = "arm"
    """Where an interval is split: at the pulled ratio or in its middle."""
    inherit: Literal["value", "copy"] = "value"
    """What the halves of a split interval know: the pulls whose ratio lies in them (paper), or all
    pulls of the interval."""
    discount: Annotated[float, Gt(0), Lt(1)] = 0.999
    """Weight of an observation per round of age (paper: lambda)."""
    ucb_scale: Annotated[float, Ge(0)] = 0.1
    """Factor of the confidence term; 1 is the printed form."""
    reward_loss: Literal["global", "local"] = "global"
    """Whose loss the reward rewards, unless `reward_norm` is `round`: the mean over clients, or
    the client's own."""
    reward_norm: Literal["round", "minmax", "none"] = "round"
    """`round`: nearness to the mean time of the round alone, in (0, 1]; `minmax`: rewards scaled to
    [0, 1] by the agent's own extremes; `none`: as printed."""
    gap_floor: Annotated[float, Gt(0)] = 0.1
    """Smallest distance from the mean time that a reward is divided by, as a share of that mean."""
    forget_below: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Observations with less weight than this are dropped; 0 keeps all."""
    weights: Literal["samples", "uniform"] = "samples"
    """Weights of the average: sample counts, so that ratio 0 is FedAvg, or equal ones."""
    score: str = "l1"
    """Which channels stay: the ones with the highest score (a name of `fpcli.scores`
    that needs only weights: l1, l2, bn-scale, largest)."""

    def __post_init__(self) -> None:
        if self.ratio_min > self.ratio_max:
            raise ValueError(f"ratio_min {self.ratio_min} is above ratio_max {self.ratio_max}")


@dataclass(frozen=True)
class Pull:
    """One observation: the ratio, its reward, and the intervals that may count it."""

    arm: float
    reward: float
    low: float
    high: float


@dataclass(frozen=True)
class Agent:
    """The bandit of one client: sorted, disjoint intervals ``[low, high)``, and its pulls."""

    leaves: tuple[tuple[float, float], ...]
    pulls: tuple[Pull, ...] = ()
    last_loss: float | None = None


@dataclass(frozen=True)
class State:
    """All agents, and the mean loss of the last round (None before the first)."""

    agents: Mapping[int, Agent] = field(default_factory=dict)
    last_loss: float | None = None


@dataclass(frozen=True)
class Stats:
    """Discounted count, mean reward, bonus and upper bound of one interval."""

    num: float
    mean: float
    bonus: float
    bound: float


def summarise_intervals(agent: Agent, options: Options) -> list[Stats]:
    """Return the statistics of every interval of an agent.

    An interval without observations has an infinite bound. The logarithm's argument is clamped at
    1, below which the printed formula takes the root of a negative number.
    """
    rewards = scale_rewards([pull.reward for pull in agent.pulls], options)
    ages = range(len(rewards), 0, -1)
    seen = []
    for low, high in agent.leaves:
        inside = [
            (age, reward)
            for age, reward, pull in zip(ages, rewards, agent.pulls, strict=True)
            if low <= pull.arm < high or (pull.low <= low and high <= pull.high)
        ]
        seen.append(discount_rewards(inside, options.discount))
    log_total = math.log(max(math.fsum(num for num, _ in seen), 1.0))
    out = []
    for num, mean in seen:
        if mean is None:
            out.append(Stats(0.0, 0.0, math.inf, math.inf))
            continue
        bonus = 0.0
        if log_total:  # roots first: the quotient overflows at counts below the normal numbers
            bonus = math.sqrt(2 * log_total) / math.sqrt(num) if num else math.inf
        bound = mean + options.ucb_scale * bonus if options.ucb_scale else mean
        out.append(Stats(num, mean, bonus, bound))
    return out


def discount_rewards(
    observed: Sequence[tuple[int, float]], discount: float
) -> tuple[float, float | None]:
    """Return the discounted count and the mean of rewards with their ages, oldest first.

    The mean is None of nothing, and exact even where the count is next to nothing.
    """
    if not observed:
        return 0.0, None
    newest = observed[-1][0]
    weights = [discount ** (age - newest) for age, _ in observed]
    share = math.fsum(weights)
    total = math.fsum(w * reward for w, (_, reward) in zip(weights, observed, strict=True))
    return discount**newest * share, total / share


def scale_rewards(rewards: Sequence[float], options: Options) -> list[float]:
    """Return rewards as the agent sees them: as they are, or scaled by their own extremes."""
    if options.reward_norm != "minmax" or not rewards:
        return list(rewards)
    low, high = min(rewards), max(rewards)
    return [(r - low) / (high - low) if high > low else 0.5 for r in rewards]


def choose_ratio(agent: Agent, options: Options, rng: torch.Generator) -> float:
    """Return a ratio drawn uniformly from the interval with the highest bound (ties: lowest)."""
    bounds = [stats.bound for stats in summarise_intervals(agent, options)]
    low, high = agent.leaves[bounds.index(max(bounds))]
    share = float(torch.rand((), generator=rng, dtype=torch.float64))
    return min(low + share * (high - low), math.nextafter(high, low))  # rounding may reach `high`


def compute_rewards(
    loss_drops: Sequence[float], seconds: Sequence[float], options: Options
) -> list[float]:
    """Return each client's reward: its drop in loss over its distance from the mean time.

    Under ``reward_norm=round`` the smallest distance stands in the place of the drop: what is left
    says who was near the mean time, whatever the loss did.

    Args:
        loss_drops: previous minus present loss per client; the sign is kept.
        seconds: time per client.
    """
    mean = math.fsum(seconds) / len(seconds)
    floor = max(options.gap_floor * mean, 1e-9)
    return [
        (floor if options.reward_norm == "round" else drop) / max(abs(second - mean), floor)
        for drop, second in zip(loss_drops, seconds, strict=True)
    ]


def learn(agent: Agent, arm: float, reward: float | None, options: Options) -> Agent:
    """Record a pull (unless it has no reward yet) and split the interval that holds the arm."""
    at = next(i for i, (low, high) in enumerate(agent.leaves) if low <= arm < high or low == high)
    low, high = agent.leaves[at]
    cut = arm if options.split == "arm" else (low + high) / 2
    leaves = agent.leaves
    if high - low > options.split_above and low < cut < high:
        leaves = (*leaves[:at], (low, cut), (cut, high), *leaves[at + 1 :])
    pulls = agent.pulls
    if reward is not None:
        span = (low, high) if options.inherit == "copy" else (arm, arm)
        pulls = (*pulls, Pull(arm, reward, *span))
        if options.forget_below:
            newest = int(math.log(options.forget_below) / math.log(options.discount) + 1e-9)
            pulls = pulls[-max(newest, 1) :]
    return replace(agent, leaves=leaves, pulls=pulls)


class FedMP(Method):
    """Adaptive structured pruning per client (bandit, l1 ranking, residual recovery)."""

    source: ClassVar[str] = "Jiang et al., ICDE 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels", sub_models="own")
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Give every client an agent with one interval."""
        span = (ctx.options.ratio_min, ctx.options.ratio_max)
        agents = {client: Agent((span,)) for client in range(len(ctx.num_examples))}
        return replace(state, method=State(agents))

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Let every client's agent choose a ratio, and keep the highest-scored channels."""
        options, agents, asks = ctx.options, state.method.agents, []
        ranking = Ranking(ctx.layout, score_of_weights(options.score, ctx.layout, state.values))
        for client in ctx.cohort:
            ratio = choose_ratio(agents[client], options, ctx.rng(f"arm/{client}"))
            asks.append(Ask(client, support=Support(ranking.keep(ratio)), record={"ratio": ratio}))
        return asks

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Recover and average (R2SP), then reward every agent that took part."""
        options: Options = ctx.options
        weights = [float(a.num_examples) if options.weights == "samples" else 1.0 for a in answers]
        new = merge_answers(ctx, state, answers, weights=weights, absent="keep")
        losses = [answer.work.metrics["loss"] for answer in answers]
        loss = math.fsum(w * x for w, x in zip(weights, losses, strict=True)) / math.fsum(weights)
        agents = dict(state.method.agents)
        before = [
            state.method.last_loss
            if options.reward_loss == "global"
            else agents[answer.ask.client].last_loss
            for answer in answers
        ]
        now = [loss] * len(answers) if options.reward_loss == "global" else losses
        drops = [0.0 if b is None else b - n for b, n in zip(before, now, strict=True)]
        earned = compute_rewards(drops, [answer.time.total_s for answer in answers], options)
        for answer, client_loss, loss_before, reward in zip(
            answers, losses, before, earned, strict=True
        ):
            client, arm = answer.ask.client, answer.ask.record["ratio"]
            reward_known = None if loss_before is None else reward
            agent = learn(agents[client], arm, reward_known, options)
            agents[client] = replace(agent, last_loss=client_loss)
            ctx.log(
                client, reward=reward_known, leaves=len(agent.leaves), seconds=answer.time.total_s
            )
        return replace(new, method=State(agents, last_loss=loss))
