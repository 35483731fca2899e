"""A linear layer that skips columns of its weight, or halves of them, by smaller dense products.

Source: the two dense products of half-columns are how we read Federated Pruning (Lin et al.,
INTERSPEECH 2022). The parameter stays dense, as in ``sparse_kernels``, so that each training step
copies what is alive; its gradient is dense because scattering a packed one took longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Band(NamedTuple):
    """Neighbouring outputs of a layer that read the same inputs."""

    rows: slice
    columns: Tensor

    def cut(self, weight: Tensor) -> Tensor:
        """Return the small dense matrix of the band."""
        return weight[self.rows].index_select(1, self.columns)


MOST_BANDS = 2
"""Bands of a mask up to which a dense product for each pays."""


def find_bands(mask: Tensor) -> list[Band]:
    """Return the runs of equal rows of a mask; nothing if they are more than ``MOST_BANDS``.

    Args:
        mask: bool ``[out, in]``, on the CPU.

    >>> bands = find_bands(torch.tensor([[True, True, False], [False, True, True]]))
    >>> [band.columns.tolist() for band in bands]
    [[0, 1], [1, 2]]
    """
    starts = [0, *((mask[1:] != mask[:-1]).any(1).nonzero().flatten() + 1).tolist(), len(mask)]
    if len(starts) > MOST_BANDS + 1:
        return []
    return [Band(slice(a, b), mask[a].nonzero().flatten()) for a, b in pairwise(starts)]


class _BandProducts(torch.autograd.Function):
    """Inputs times the weight of each band; the gradient of the weight is dense."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bands: Sequence[Band]) -> Tensor:
        cuts = [band.cut(weight) for band in bands]
        ctx.save_for_backward(x, *cuts)
        ctx.bands = bands
        return multiply_bands(x, cuts, bands)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *cuts = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.zeros_like(x)
            for cut, band in zip(cuts, ctx.bands, strict=True):
                of_x.index_add_(1, band.columns, gradient[:, band.rows] @ cut)
        return of_x, gradient.t() @ x, None


def multiply_bands(x: Tensor, cuts: Sequence[Tensor], bands: Sequence[Band]) -> Tensor:
    """Return ``x W^T`` ``[n, out]`` for a weight that is 0 outside its bands.

    Args:
        x: ``[n, in]``.
        cuts: the small dense matrix of each band, see :meth:`Band.cut`.
    """
    products = zip(cuts, bands, strict=True)
    return torch.cat([x.index_select(1, band.columns) @ cut.t() for cut, band in products], 1)


class PackedLinear(nn.Linear):
    """A linear layer of a dense product per band. The weight stays dense, named and trainable."""

    def take(self, layer: nn.Linear, bands: Sequence[Band]) -> None:
        """Share the parameters of a dense layer, whose weight must be 0 outside the bands."""
        self.weight, self.bias = layer.weight, layer.bias
        self._bands = bands
        self.train(layer.training)

    def train(self, mode: bool = True) -> Any:
        """Change the mode; evaluation cuts the weight anew."""
        self._cuts: list[Tensor] | None = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W^T + b``.

        Args:
            x: ``[..., in]``.
        """
        flat = x.reshape(-1, self.in_features)
        out: Tensor
        if torch.is_grad_enabled() and (self.weight.requires_grad or x.requires_grad):
            out = _BandProducts.apply(flat, self.weight, self._bands)
        else:
            if self.training or self._cuts is None:
                self._cuts = [band.cut(self.weight.detach()) for band in self._bands]
            out = multiply_bands(flat, self._cuts, self._bands)
        out = out if self.bias is None else out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)
