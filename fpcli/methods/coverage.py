"""Coverage: each client trains some part of the model, and each part is averaged over its holders.

Source: Zhou, Lan, Venkataramani, Ding, "On the Convergence of Heterogeneous Federated Learning with
Arbitrary Adaptive Online Model Pruning", CoRR 2022, arXiv 2201.11803; later "Every Parameter
Matters", NeurIPS 2023. A layer's units are cut into four quarters by importance, a client's type
says which quarters it keeps, and a setting says who has which type. Such a federation converges if
every parameter has a holder in every round, the faster the more it has (the smallest number of
holders is the minimum coverage index) and the smaller the share of the norm that pruning removes.

==================  ============================  ==============================================
symbol              here                          note
==================  ============================  ==============================================
m_n                 ``ask.support``               mask of client n in this round
N_j, C_j            holders, coverage             of parameter j
Gamma, Gamma_min    gamma, gamma_min              of a round; the smallest of all rounds so far
delta_n^2           ``answer.pruning_error``      recorded by the engine
==================  ============================  ==============================================

What is known and what is inferred: recipes/coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Tensors, Work
from fpcli.errors import LayoutError, RecipeError, suggest
from fpcli.scores.magnitude import l1
from fpcli.structure.layout import Layout
from fpcli.structure.min_coverage import count_least_holders

Quarters = tuple[int, ...]

TYPES: Mapping[str, Quarters] = {
    "1": (1, 2, 3, 4),
    "2": (1, 2, 4),
    "3": (1, 3, 4),
    "4": (2, 3, 4),
    "5": (1, 4),
    "6": (2, 4),
    "7": (3, 4),
}
"""Type -> the quarters that it keeps; 1 is the least important quarter, 4 is never dropped."""
NAMES: Mapping[Quarters, str] = {kept: name for name, kept in TYPES.items()}
MASKING = ("WP", "PT")


@dataclass(frozen=True)
class Options:
    """Options of `coverage`."""

    policy: Literal["WP", "NP", "FS", "PT"] = "WP"
    """What is pruned: single weights by magnitude (WP), neurons by the l1 norm of their incoming
    weights (NP), neurons by their index, nested (FS), or weights by the first model (PT)."""
    setting: str = "1111223344"
    """One type (1 to 7) per slot of the cohort, or per client; a text of another length is
    stretched over them in proportion."""
    types: Literal["slot", "client"] = "slot"
    """Whether types belong to the slots, dealt anew in every round, or to the clients."""
    assign: Literal["explicit", "maxcover"] = "explicit"
    """Whether the setting says which quarters are dropped, or only how many: maxcover then chooses
    them so that the worst-covered quarter has as many holders as possible."""
    layers: str = "first"
    """Which layers are pruned: `first`, `all`, or names with commas between; never the output."""
    weights: Literal["uniform", "samples"] = "uniform"
    """Weights of the mean over holders: equal ones, or sample counts."""
    mask_grad: bool = True
    """Whether pruned weights stay 0 in local training; false applies the mask only afterwards (WP
    and PT, for study)."""
    allow_uncovered: bool = False
    """Whether a setting may leave parameters that no client holds; they never change."""

    def __post_init__(self) -> None:
        if not self.setting or not set(self.setting) <= TYPES.keys():
            raise ValueError(f"setting `{self.setting}` is not a row of types 1 to 7")
        if self.policy == "FS" and not set(self.setting) <= set("147"):
            raise ValueError(f"setting `{self.setting}`: FS has the nested types 1, 4 and 7 only")
        if self.policy == "FS" and self.assign == "maxcover":
            raise ValueError("assign `maxcover` drops any quarter, but FS is nested")
        if not self.mask_grad and self.policy not in MASKING:
            raise ValueError(f"mask_grad false needs a mask, which {self.policy} has not")


@dataclass(frozen=True)
class State:
    """What the server keeps.

    Attributes:
        quarters: quarter (1 to 4, uint8) of every weight or channel, by tensor or group.
        gamma_min: smallest coverage of any round so far.
    """

    quarters: Mapping[str, Tensor] = field(default_factory=dict)
    gamma_min: int | None = None


def rank_quarters(importance: Tensor) -> Tensor:
    """Return the quarter of every unit: ``floor(4 * rank / size) + 1``, rank 0 least important.

    Of equally important units the one with the lower index ranks higher.
    """
    flat = importance.flatten()
    order = torch.sort(flat, descending=True, stable=True).indices.flip(0)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(flat))
    return (4 * rank // len(flat) + 1).to(torch.uint8).reshape(importance.shape)


def count_holders(kept: Sequence[Quarters]) -> tuple[int, ...]:
    """Return how many clients hold each of the four quarters."""
    return tuple(sum(quarter in quarters for quarters in kept) for quarter in (1, 2, 3, 4))


def stretch_types(setting: str, num: int) -> str:
    """Return one type for each of ``num`` slots, in the setting's order and proportions."""
    return "".join(setting[slot * len(setting) // num] for slot in range(num))


def cover_most(num_dropped: Sequence[int]) -> list[Quarters]:
    """Return the quarters that each client keeps so that the least covered has most holders.

    Who drops most chooses first, and drops the quarters with the most holders left (the less
    important of equals). With N clients the result is ``N - ceil(sum(num_dropped) / 3)``.

    Args:
        num_dropped: 0 to 3 of the quarters 1, 2 and 3 per client.
    """
    left = {quarter: len(num_dropped) for quarter in (1, 2, 3)}
    kept: list[Quarters] = [TYPES["1"]] * len(num_dropped)
    for client in sorted(range(len(num_dropped)), key=lambda client: -num_dropped[client]):
        dropped = sorted(left, key=lambda quarter: -left[quarter])[: num_dropped[client]]
        for quarter in dropped:
            left[quarter] -= 1
        kept[client] = tuple(quarter for quarter in (1, 2, 3, 4) if quarter not in dropped)
    return kept


def assign_types(options: Options, types: Sequence[str]) -> list[Quarters]:
    """Return the quarters that the owners of these types keep."""
    if options.assign == "maxcover":
        return cover_most([4 - len(TYPES[letter]) for letter in types])
    return [TYPES[letter] for letter in types]


def deal_quarters(ctx: RoundContext) -> dict[int, Quarters]:
    """Return the quarters that each client of the cohort keeps in this round."""
    options: Options = ctx.options
    if options.types == "client":
        everyone = stretch_types(options.setting, len(ctx.num_examples))
        types = [everyone[client] for client in ctx.cohort]
    else:
        slots = torch.randperm(len(ctx.cohort), generator=ctx.rng("slots")).tolist()
        setting = stretch_types(options.setting, len(ctx.cohort))
        types = [setting[slot] for slot in slots]
    return dict(zip(ctx.cohort, assign_types(options, types), strict=True))


def grade_layers(layout: Layout, values: Tensors, options: Options) -> dict[str, Tensor]:
    """Return the quarters of the weights (by tensor) or channels (by group) of the chosen layers.

    A layer with fewer than four units cannot be cut in quarters and stays whole.
    """
    quarter_of: dict[str, Tensor] = {}
    if options.policy in MASKING:
        weights = {m.tensor for g in layout.prunable.values() for m in g.members if m.produces}
        tensors = {name.rpartition(".")[0]: name for name in layout.tensors if name in weights}
        for layer in choose_layers(list(tensors), options.layers):
            if values[tensors[layer]].numel() >= 4:
                quarter_of[tensors[layer]] = rank_quarters(values[tensors[layer]].abs())
        return quarter_of
    scores = l1(layout, values) if options.policy == "NP" else {}
    for name in choose_layers(list(layout.prunable), options.layers):
        group = layout.groups[name]
        by_channel = scores.get(name, -torch.arange(group.width, dtype=torch.float64))
        per_block = by_channel.reshape(-1, group.block).sum(1)
        if len(per_block) >= 4:
            quarter_of[name] = rank_quarters(per_block).repeat_interleave(group.block)
    return quarter_of


def choose_layers(names: list[str], layers: str) -> list[str]:
    """Return the layers that the option ``layers`` names.

    Raises:
        LayoutError: there is none that could be pruned.
        RecipeError: one is unknown.
    """
    if not names:
        raise LayoutError("the model has no layer to prune", hint="use a model with hidden layers")
    if layers in ("first", "all"):
        return names[:1] if layers == "first" else names
    wanted = layers.replace(" ", "").split(",")
    for name in wanted:
        if name not in names:
            hint = suggest(name, names) or f"layers: {', '.join(names)}"
            raise RecipeError(f"`layers` names `{name}`, not a layer to prune", hint=hint)
    return wanted


def make_part(quarter_of: Mapping[str, Tensor], kept: Quarters, policy: str) -> Support:
    """Return the support that consists of some quarters, and of all that is in no quarter."""
    if kept == TYPES["1"]:
        return Support()
    wanted = torch.tensor(kept, dtype=torch.uint8)
    alive = {name: torch.isin(quarters, wanted) for name, quarters in quarter_of.items()}
    if policy in MASKING:
        return Support(mask=alive)
    return Support({name: bits.nonzero().flatten() for name, bits in alive.items()})


def count_uncovered(layout: Layout, supports: Sequence[Support]) -> int:
    """Return the number of parameters that none of the supports holds."""
    whole = layout.parameters
    ones = {name: torch.ones(spec.shape) for name, spec in whole.tensors.items()}
    held = {name: torch.zeros(spec.shape) for name, spec in whole.tensors.items()}
    for support in supports:
        values, _ = support.scatter(whole, support.gather(whole, ones))
        held = {name: torch.maximum(held[name], value) for name, value in values.items()}
    return sum(int((counts == 0).sum()) for counts in held.values())


class Coverage(Method):
    """Heterogeneous pruning by types, with the mean over holders and its minimum coverage index."""

    source: ClassVar[str] = "Zhou et al., CoRR 2022"
    traits: ClassVar[Traits] = Traits(cuts="weights", sub_models="own", remembers_masks=True)
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Cut the layers in quarters, and refuse a setting that leaves parameters to nobody."""
        options: Options = ctx.options
        quarter_of = grade_layers(ctx.layout, state.values, options)
        if options.types == "slot":
            setting = stretch_types(options.setting, ctx.clients_per_round)
        else:
            everyone = stretch_types(options.setting, len(ctx.num_examples))
            setting = "".join(everyone[client] for client in ctx.trainers)
        supports = [
            make_part(quarter_of, k, options.policy) for k in {*assign_types(options, setting)}
        ]
        if not options.allow_uncovered and count_least_holders(ctx.layout, supports) == 0:
            raise RecipeError(
                f"setting `{setting}` leaves parameters that no client holds",
                hint="add a type 1, or set method.allow_uncovered=true to leave them as they are",
                where="method.setting",
            )
        return replace(state, method=State(quarter_of))

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send every client the quarters of its type."""
        supports = cache(lambda kept: make_part(state.method.quarters, kept, ctx.options.policy))
        asks = []
        for client, kept in deal_quarters(ctx).items():
            record = {"type": int(NAMES[kept]), "ratio": 1 - len(kept) / 4}
            asks.append(Ask(client, support=supports(kept), record=record))
        return asks

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average every parameter over its holders; one without a holder keeps its value."""
        options: Options = ctx.options
        method_state: State = state.method
        weights = [float(a.num_examples) if options.weights == "samples" else 1.0 for a in answers]
        new = merge_answers(ctx, state, answers, weights=weights, absent="skip")
        supports = [answer.support for answer in answers]
        gamma = count_least_holders(ctx.layout, supports)
        lowest = gamma if method_state.gamma_min is None else min(gamma, method_state.gamma_min)
        uncovered = count_uncovered(ctx.layout, supports) if gamma == 0 else 0
        ctx.log(None, gamma=gamma, gamma_min=lowest, uncovered=uncovered)
        is_graded_anew = options.policy in ("WP", "NP")
        grades = (
            grade_layers(ctx.layout, new.values, options)
            if is_graded_anew
            else method_state.quarters
        )
        return replace(new, method=State(grades, lowest))

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train with masked gradients, or for study without, and then drop what is off the mask."""
        if cx.options.mask_grad:
            return cx.result(model, fit(model, cx, self.loss))
        work = cx.result(model, fit(model, cx, self.loss, mask={}))
        delta = {
            name: torch.where(cx.mask[name].to(change.device), change, 0.0)
            if name in cx.mask
            else change
            for name, change in work.values.items()
        }
        return replace(work, values=delta)
