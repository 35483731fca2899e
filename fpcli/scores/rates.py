"""How much to prune, read from the curvature of the loss, and how much of it in each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fpcli.scores.curvature import Loss, Spectrum, compute_gradient
from fpcli.structure.layout import Tensors

Pick = Literal["first", "last", "largest"]


class Gap(NamedTuple):
    """A gap in a spectrum.

    Attributes:
        below: eigenvalues below it, counted in ``Spectrum.values``.
        rate: share of the spectrum below it.
        width: difference between the eigenvalues on both sides.
    """

    below: int
    rate: float
    width: float


def find_widest_gap(spectrum: Spectrum) -> float:
    """Return the largest difference between neighbouring eigenvalues."""
    return float(spectrum.values.diff().max()) if len(spectrum.values) > 1 else 0.0


def find_spectral_gap(
    spectrum: Spectrum, lipschitz: float, *, pick: Pick, is_nonnegative: bool = True
) -> Gap | None:
    """Return a gap wider than four times a Lipschitz constant, or None where there is none.

    Args:
        spectrum: ascending.
        lipschitz: of the nonlinear part of the gradient flow (:func:`bound_along_segment`).
        pick: the ``first`` such gap from below, the ``last`` one or the ``largest``.
        is_nonnegative: leave out gaps that begin below zero: directions in which the loss falls
            are not slow.

    Source: inertial manifolds; the gap rule of Zhang et al., NeurIPS 2021, as printed in FedDUAP
    (IJCAI 2022): ``lambda[k+1] - lambda[k] > 4 L``, k weights leave.

    >>> values = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    >>> spectrum = Spectrum(values, torch.full((5,), 0.2, dtype=torch.float64), True)
    >>> gap = find_spectral_gap(spectrum, 0.0, pick="last")
    >>> gap.below, round(gap.rate, 6)
    (3, 0.6)
    """
    values = spectrum.values
    tolerance = 1e-7 * float(values.abs().max())
    gaps = values.diff()
    wide = gaps > 4 * lipschitz + tolerance
    if is_nonnegative:
        wide &= values[:-1] >= -tolerance
    places = wide.nonzero().flatten()
    if not len(places):
        return None
    chosen = {"first": places[0], "last": places[-1], "largest": places[gaps[places].argmax()]}[
        pick
    ]
    below = int(chosen) + 1
    return Gap(below, float(spectrum.weights[:below].sum()), float(gaps[chosen]))


def bound_along_segment(
    loss: Loss, at: Tensor, product: Callable[[Tensor], Tensor], shift: Tensor, points: int = 11
) -> float:
    """Return a Lipschitz constant of ``B(x) = H x - grad L(at + x)`` from the segment to a shift.

    It is the largest ratio of ``|B(x) - B(x')|`` to ``|x - x'|`` over neighbouring points.

    Args:
        at: where H is the Hessian.
        product: multiplies it.
        shift: the other end of the segment, which starts at 0.
        points: on the segment, both ends included.

    >>> from fpcli.scores.curvature import make_products
    >>> loss = lambda w: w[0] ** 4 / 4 + w[1] ** 2
    >>> at = torch.ones(2, dtype=torch.float64)
    >>> shift = torch.tensor([-0.5, 0.3], dtype=torch.float64)
    >>> round(bound_along_segment(loss, at, make_products(loss, at), shift), 6)
    1.862903
    """
    if not bool(shift.any()):
        return 0.0
    places = [shift * (step / (points - 1)) for step in range(points)]
    images = [_rest(loss, at, product, place) for place in places]
    return max(
        float((images[i + 1] - images[i]).norm() / (places[i + 1] - places[i]).norm())
        for i in range(points - 1)
    )


def bound_nearby(
    loss: Loss,
    at: Tensor,
    product: Callable[[Tensor], Tensor],
    rng: torch.Generator,
    directions: int = 10,
) -> float:
    """Return a Lipschitz constant of the same function, from random steps of 1 % of ``|at|``."""
    origin = _rest(loss, at, product, torch.zeros_like(at))
    largest = 0.0
    for _ in range(directions):
        step = torch.randn(len(at), generator=rng, dtype=torch.float64)
        step *= 0.01 * float(at.norm()) / float(step.norm())
        change = _rest(loss, at, product, step) - origin
        largest = max(largest, float(change.norm() / step.norm()))
    return largest


def _rest(loss: Loss, at: Tensor, product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return product(x) - compute_gradient(loss, at + x)


def spread_rate(
    values: Tensors, kernels: Mapping[str, Sequence[str]], rate: float
) -> dict[str, float]:
    """Return a rate for each layer: the share of its weights that a rate of all would take.

    The smallest weights of all tensors together, ``floor(rate n)`` of them, end at a size; what is
    strictly smaller leaves.

    Args:
        values: all tensors that the rate is about, biases among them.
        kernels: layer -> the tensors of ``values`` that are its weights.
        rate: share of all weights, in [0, 1].

    Source: FedAP (Zhang et al., IJCAI 2022).

    >>> values = {"a": torch.tensor([0.1, 0.2, 0.9, 0.8]), "b": torch.tensor([0.3, -0.4])}
    >>> spread_rate(values, {"a": ["a"], "b": ["b"]}, 0.67)
    {'a': 0.5, 'b': 0.5}
    """
    flat = torch.cat([x.abs().flatten() for x in values.values()])
    place = math.floor(rate * len(flat) + 1e-9)
    if not place:
        return dict.fromkeys(kernels, 0.0)
    limit = flat.kthvalue(place).values
    rates = {}
    for layer, names in kernels.items():
        weights = torch.cat([values[name].abs().flatten() for name in names])
        rates[layer] = int((weights < limit).sum()) / len(weights)
    return rates


def measure_mass_above(spectrum: Spectrum) -> float:
    """Return the share of the spectrum above the point at which it stops to fall.

    Source: FedDUAP's official code: the spectrum is smoothed by Gaussians of variance
    ``1e-5 max(1, range)`` on 10,000 points; the share from the last point up to x on is read at
    x = 0, step, 2 step, ... until three differences in a row are below 0.005; a share below half
    of the first one halves the step (0.1 at first) and starts again.

    >>> values = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    >>> spectrum = Spectrum(values, torch.full((5,), 0.2, dtype=torch.float64), True)
    >>> round(measure_mass_above(spectrum), 6)
    0.4
    """
    values, weights = spectrum.values, spectrum.weights
    low, high = float(values[0]) - 0.01, float(values[-1]) + 0.01
    grid = torch.linspace(low, high, 10_000, dtype=torch.float64)
    variance = 1e-5 * max(1.0, high - low)
    density = torch.zeros_like(grid)
    for value, weight in zip(values, weights, strict=True):
        density += weight * torch.exp(-((grid - value) ** 2) / (2 * variance))
    below = (density / density.sum()).cumsum(0)

    def above(x: float) -> float:
        number = int(torch.searchsorted(grid, torch.tensor(x, dtype=torch.float64), right=True))
        return 1.0 - float(below[number - 2]) if number > 1 else 1.0

    step = 0.1
    while step > (high - low) * 1e-6:
        shares = [above(0.0)]
        while shares[-1] >= shares[0] / 2:
            recent = torch.tensor(shares[-4:]).diff().abs()
            if len(recent) == 3 and bool((recent < 0.005).all()):
                return shares[-1]
            shares.append(above(step * len(shares)))
        step /= 2
    return above(0.0)
