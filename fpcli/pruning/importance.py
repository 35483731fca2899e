"""Importance of all weights over rounds: what clients add up, and what the server sees by itself.

A client's round counts samples times (sum of the gradients)^2. Under plain SGD the change of a
weight that is alive shows that sum, so only dead weights' importance needs to be sent; unless the
codec rounds, whose noise would be squared too.

Source: PruneFL (Jiang et al., TNNLS 2023); that the server adds its part, its prototype's code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fpcli.engine.client_context import ClientContext
from fpcli.engine.fit import fit
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Answer, LocalConfig, Work
from fpcli.scores.gradients import GradientTotals, SquareRule, place_values, square_gradients
from fpcli.structure.layout import Tensors
from fpcli.tasks.learning_task import Batch


def shows_gradients(rule: SquareRule, local: LocalConfig, *, is_exact: bool = True) -> bool:
    """Tell whether the change of a weight, as it arrives, is minus lr times what the rule squares.

    Args:
        is_exact: changes arrive as they were sent.
    """
    other = local.momentum or local.weight_decay or local.clip_norm or local.lr == 0
    is_plain = local.optimizer == "sgd" and not other
    return is_exact and is_plain and rule == "sum"


def fit_adding(
    cx: ClientContext,
    model: nn.Module,
    loss: Callable[[ClientContext, nn.Module, Batch], Tensor],
    rule: SquareRule,
    *,
    send: bool,
    keep: bool,
    since: int,
) -> Work:
    """Train a client's model, and add up the importance that the server cannot see.

    Args:
        rule: what is squared.
        send: upload it, as ``stats``: flat, of dead weights only where the server sees the others.
        keep: add it to that of earlier rounds, and remember it unless it is sent.
        since: round from which on what is remembered belongs to it.
    """
    is_shown = shows_gradients(rule, cx.local, is_exact=cx.is_upload_exact)
    weights = {n: w for n, w in model.named_parameters() if n in cx.mask or not is_shown}
    totals = GradientTotals(weights, rule)
    fitted = fit(model, cx, loss, after_backward=totals.add)
    earlier = cx.recall("importance", since=since) if keep else {}
    importance = {
        n: x + earlier.get(n, 0.0) for n, x in totals.importance(fitted.num_samples).items()
    }
    if not send:
        cx.remember("importance", importance)
        return cx.result(model, fitted)
    stats = {n: x[~cx.mask[n].cpu()] if is_shown else x.flatten() for n, x in importance.items()}
    return cx.result(model, fitted, stats=stats)


def collect(
    ctx: RoundContext, rule: SquareRule, received: Tensors, answers: Sequence[Answer]
) -> dict[str, Tensor]:
    """Add the clients' importance of one round to what is known, for every parameter.

    A part of the wrong size does not count.
    """
    shapes = {name: spec.shape for name, spec in ctx.layout.parameters.tensors.items()}
    out = {
        name: received[name] if name in received else torch.zeros(shapes[name]) for name in shapes
    }
    is_shown = shows_gradients(rule, ctx.local, is_exact=ctx.is_upload_exact)
    for answer in answers:
        work, masks = answer.work, answer.ask.support.mask
        num = answer.num_examples * ctx.local.epochs
        for name, shape in shapes.items():
            seen = masks.get(name, torch.ones(shape, dtype=torch.bool)) & is_shown
            shown = square_gradients(work.values[name] / ctx.local.lr, num)
            out[name] = out[name] + torch.where(
                seen, shown, place_values(work.stats.get(name), ~seen)
            )
    return out
