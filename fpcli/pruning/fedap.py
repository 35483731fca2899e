"""FedAP's pieces: a rate from the curvature, its mean over clients, and the filters that leave.

Source: Zhang et al., "FedDUAP", IJCAI 2022; the method is `fpcli.methods.fedduap`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.datasets import Dataset
from fpcli.errors import LayoutError
from fpcli.pruning.amounts import choose_best
from fpcli.pruning.layers import list_writers
from fpcli.scores.curvature import find_spectrum, make_loss, make_products, run_lanczos
from fpcli.scores.rates import bound_along_segment, find_spectral_gap, measure_mass_above
from fpcli.settings.pruning_rate import RateRule
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.patterns import count_kept_channels
from fpcli.tasks.learning_task import Batch

MAX_RATE = 0.95
"""No rate is above this."""

NUM_POINTS = 11
"""Points of the segment to the initial model on which a Lipschitz constant is measured."""


class MeasuredRate(NamedTuple):
    """A pruning rate.

    Attributes:
        rate: share of the spectrum, from 0 to 0.95.
        has_gap: whether it is from a spectral gap.
        num_samples: that went through in training steps which take as long; a product of a sample's
            Hessian counts as two steps.
    """

    rate: float
    has_gap: bool
    num_samples: int


def draw_batches(data: Dataset, samples: Tensor, num: int, rng: torch.Generator) -> list[Batch]:
    """Return so many of some training samples, drawn without replacement."""
    chosen = samples[torch.randperm(len(samples), generator=rng)[:num]]
    return list(evaluation_batches(data.train.take(chosen), data.normalise))


def measure_rate(
    rule: RateRule,
    model: nn.Module,
    data: Dataset,
    samples: Tensor,
    initial: Tensors,
    rng: torch.Generator,
) -> MeasuredRate:
    """Return a pruning rate that the curvature of a model's loss gives.

    Args:
        model: is moved to the processor.
        samples: training samples, int64 ``[n]``, of which ``curvature_images`` are looked at.
        initial: parameters that training began with, for the rule `gap`.
        rng: draws the samples, and the start vectors of Lanczos.

    Raises:
        DivergedError: the Hessian is not finite.

    Source: FedAP; `spectrum` as in FedDUAP's official code.
    """
    (batch,) = draw_batches(data, samples, rule.curvature_images, rng)
    loss, at = make_loss(model.cpu(), batch, data.task)
    multiply, num_products = make_products(loss, at), 0

    def product(vector: Tensor) -> Tensor:
        nonlocal num_products
        num_products += 1
        return multiply(vector)

    steps, probes, num_gradients, gap = rule.lanczos_steps, rule.probes, 1, None
    if rule.rate_rule == "gap":
        spectrum = find_spectrum(product, len(at), rng, steps=steps, probes=probes)
        names = [name for name, _ in model.named_parameters()]
        start = torch.cat([initial[name].double().flatten() for name in names])
        lipschitz = bound_along_segment(loss, at, product, start - at, NUM_POINTS)
        num_gradients += NUM_POINTS
        is_nonnegative = rule.gap_from == "nonnegative"
        gap = find_spectral_gap(spectrum, lipschitz, pick=rule.gap, is_nonnegative=is_nonnegative)
    else:
        spectrum = run_lanczos(product, len(at), rng, steps=steps, probes=probes)
    if gap is not None:
        rate = gap.rate
    elif rule.rate_rule == "gap" and rule.no_gap == "zero":
        rate = 0.0
    else:
        rate = measure_mass_above(spectrum)
    num_samples = (num_gradients + 2 * num_products) * len(batch[1])
    return MeasuredRate(min(max(rate, 0.0), MAX_RATE), gap is not None, num_samples)


def average_rates(
    rates: Sequence[float], sizes: Sequence[float], skews: Sequence[float], floor: float = 1e-4
) -> float:
    """Return the mean of rates, weighted by ``size / (skew + floor)`` (paper: p*, equation 6)."""
    weights = [size / (skew + floor) for size, skew in zip(sizes, skews, strict=True)]
    total = math.fsum(w * rate for w, rate in zip(weights, rates, strict=True))
    return total / math.fsum(weights)


def list_kernels(
    layout: Layout, template: nn.Module, *, with_sums: bool = False
) -> dict[str, list[str]]:
    """Return the groups that may lose filters, each with the kernels that make its channels.

    Args:
        template: the network that the layout is of.
        with_sums: also maps that several convolutions add up to (shortcuts).

    Raises:
        LayoutError: there are none.
    """
    kernels, shapes = {}, layout.tensors
    for name, group in layout.prunable.items():
        made_by = list_writers(template, group)
        are_filters = all(len(shapes[kernel].shape) > 2 for kernel in made_by)
        if made_by and are_filters and (with_sums or len(made_by) == 1):
            kernels[name] = made_by
    if not kernels:
        raise LayoutError(
            "no convolution of the network may lose filters",
            hint="`--set method.prune_round=0` trains without pruning; where shortcuts add up what "
            "all of them make, `--set method.residual=group-sum` opens them",
        )
    return kernels


def choose_filters(scores: Tensor, rate: float, rule: str, block: int = 1) -> Tensor:
    """Return the filters of a layer that stay, sorted, never none.

    Args:
        scores: ``[width]``, larger = keep; of equal ones the lower index leaves first.
        rate: share that leaves.
        rule: `count` or `range`; `range` takes those that are below this share of the way from the
            lowest score to the highest.
        block: filters that leave only together, by the sum of their scores.

    >>> ranks = torch.tensor([1.0, 9, 9, 9.5, 10, 10, 10, 10])
    >>> [choose_filters(ranks, 0.5, rule).tolist() for rule in ("count", "range")]
    [[4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]]
    """
    kept = count_kept_channels(len(scores), rate, block)
    if rule == "range":
        sums = scores.reshape(-1, block).sum(1)
        limit = sums.min() + rate * (sums.max() - sums.min())
        kept = int((sums >= limit).sum()) * block
    return choose_best(torch.arange(len(scores)), scores, max(kept, block), block)
