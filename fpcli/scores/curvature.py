"""Curvature of a loss in all parameters at once: gradients, Hessian products, eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fpcli.errors import DivergedError
from fpcli.tasks.learning_task import Batch, LearningTask

Loss = Callable[[Tensor], Tensor]
"""A twice differentiable function of a float64 vector ``[d]``."""

MAX_EXACT = 3000
"""Parameters up to which all eigenvalues are computed."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of a symmetric matrix, or a quadrature of their distribution.

    Attributes:
        values: float64, ascending; all of them, or Ritz values.
        weights: share of the spectrum that each stands for; their sum is 1.
        is_exact: True where ``values`` are the eigenvalues.
    """

    values: Tensor
    weights: Tensor
    is_exact: bool


class _Judged(nn.Module):
    """A network that returns its loss on a batch."""

    def __init__(self, model: nn.Module, task: LearningTask) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.task.repeat_loss(self.model, (x, y), seed=0)


def make_loss(model: nn.Module, batch: Batch, task: LearningTask) -> tuple[Loss, Tensor]:
    """Return a task's mean loss as a function of all parameters, and where they are now.

    Whatever the loss draws is the same in every call; batch norm and dropout are those of
    evaluation. Parameters are flattened in the order in which they are registered, in float64,
    where differences of gradients still mean something.

    Args:
        model: is not changed.
        batch: inputs and what is to be predicted.
    """
    named = {name: p.detach().double() for name, p in model.named_parameters()}
    buffers = {
        f"model.{name}": b.detach().double() if b.is_floating_point() else b.detach()
        for name, b in model.named_buffers()
    }
    sizes = [p.numel() for p in named.values()]
    x, y = (part.double() if part.is_floating_point() else part for part in batch)
    judged = _Judged(model, task)

    def compute(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        weights = {
            f"model.{name}": part.view(old.shape)
            for (name, old), part in zip(named.items(), parts, strict=True)
        }
        mode = model.training
        model.eval()
        try:
            loss: Tensor = functional_call(judged, {**buffers, **weights}, (x, y))
            return loss
        finally:
            model.train(mode)

    return compute, torch.cat([p.flatten() for p in named.values()])


def compute_gradient(loss: Loss, at: Tensor) -> Tensor:
    """Return the gradient, ``[d]``.

    >>> compute_gradient(lambda w: (w**2).sum() / 2, torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    point = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point)
    return gradient


def make_products(loss: Loss, at: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that multiplies the Hessian at a point with a vector.

    >>> product = make_products(lambda w: w[0] * w[1], torch.tensor([1.0, 2.0]))
    >>> product(torch.tensor([1.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    point = at.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(point), point, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        if not slope.requires_grad:  # a linear loss
            return torch.zeros_like(at)
        (product_,) = torch.autograd.grad(
            slope, point, vector, retain_graph=True, materialize_grads=True
        )
        return product_

    return product


def find_spectrum(
    product: Callable[[Tensor], Tensor], size: int, rng: torch.Generator, *, steps: int, probes: int
) -> Spectrum:
    """Return all eigenvalues of a matrix of up to 3,000 rows, and Ritz values of a larger one;
    arguments and errors as in :func:`run_lanczos`."""
    if size <= MAX_EXACT:
        return solve_exactly(product, size)
    return run_lanczos(product, size, rng, steps=steps, probes=probes)


def solve_exactly(product: Callable[[Tensor], Tensor], size: int) -> Spectrum:
    """Return all eigenvalues of a symmetric ``size x size`` matrix that is known by products.

    Raises:
        DivergedError: the matrix is not finite.
    """
    rows = [product(unit) for unit in torch.eye(size, dtype=torch.float64)]
    matrix = torch.stack(rows)
    if not bool(torch.isfinite(matrix).all()):
        raise DivergedError("the Hessian is not finite", hint="lower the learning rate")
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return Spectrum(values, torch.full((size,), 1 / size, dtype=torch.float64), is_exact=True)


def run_lanczos(
    product: Callable[[Tensor], Tensor], size: int, rng: torch.Generator, *, steps: int, probes: int
) -> Spectrum:
    """Return a quadrature of the spectrum by stochastic Lanczos.

    Args:
        product: multiplies the matrix with a float64 vector ``[size]``.
        rng: draws the start vectors, of entries +1 and -1.
        steps: Lanczos steps per start vector, with full re-orthogonalisation.
        probes: start vectors, whose quadratures are pooled.

    Raises:
        DivergedError: the matrix is not finite.

    Source: Golub and Welsch, Math. Comp. 1969; Ghorbani et al., ICML 2019, algorithm 1.
    """
    probes_run = [_run_probe(product, size, rng, min(steps, size)) for _ in range(probes)]
    values = torch.cat([ritz for ritz, _ in probes_run])
    weights = torch.cat([weight for _, weight in probes_run]) / probes
    order = values.argsort()
    return Spectrum(values[order], weights[order], is_exact=False)


def _run_probe(
    product: Callable[[Tensor], Tensor], size: int, rng: torch.Generator, steps: int
) -> tuple[Tensor, Tensor]:
    signs = torch.randint(0, 2, (size,), generator=rng).double() * 2 - 1
    basis: list[Tensor] = [signs / size**0.5]
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(steps):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        image = _orthogonal(image, basis)
        norm = float(image.norm())
        if not torch.isfinite(image).all():
            raise DivergedError("the Hessian is not finite", hint="lower the learning rate")
        # An invariant subspace: nothing more can be learnt from this start vector.
        if step + 1 == steps or norm < 1e-10 * max(1.0, abs(diagonal[0])):
            break
        beside.append(norm)
        basis.append(image / norm)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for place, value in enumerate(beside):
        matrix[place, place + 1] = matrix[place + 1, place] = value
    ritz, vectors = torch.linalg.eigh(matrix)
    return ritz, vectors[0].square()


def _orthogonal(vector: Tensor, basis: Sequence[Tensor]) -> Tensor:
    directions = torch.stack(list(basis))
    for _ in range(2):  # once leaves rounding errors that grow from step to step
        vector = vector - directions.T @ (directions @ vector)
    return vector
