"""Layers that skip masked weights: a sparse matrix product in place of the dense one.

Source: PruneFL (Jiang et al., TNNLS 2023), official code: a convolution is im2col and a product
with a sparse matrix, and the gradient of the weights stays dense, because it also says what dead
weights would be worth. On most shapes of small networks dense kernels are faster all the same:
``structure.choice`` measures. Masks of columns, or of halves of them, have ``packed_kernel``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.structure.layout import Tensors
from fpcli.structure.packed_kernel import PackedLinear, find_bands


@functools.cache
def _silence_beta_warning() -> None:
    """Let torch say once, unheard, that its compressed sparse rows are young."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix is alive, as compressed sparse rows.

    Attributes:
        shape: rows and columns.
        starts: int32 ``[rows + 1]``, where each row begins among the alive entries.
        columns: int32, of each alive entry.
        places: int64, where the entries lie in the flat weight.
    """

    shape: tuple[int, int]
    starts: Tensor
    columns: Tensor
    places: Tensor

    @classmethod
    def of(cls, mask: Tensor, *, is_transposed: bool = False) -> Pattern:
        """Return the pattern of a mask, or that of its transpose.

        Args:
            mask: bool ``[out, in]``, on the CPU.

        >>> Pattern.of(torch.tensor([[True, False], [True, True]])).places.tolist()
        [0, 2, 3]
        >>> Pattern.of(torch.tensor([[True, False], [True, True]]), is_transposed=True).places
        tensor([0, 2, 3])
        """
        _silence_beta_warning()
        turned = mask.t() if is_transposed else mask
        rows, columns = turned.nonzero().unbind(1)
        starts = torch.zeros(len(turned) + 1, dtype=torch.int32)
        starts[1:] = turned.sum(1).cumsum(0)
        width = mask.shape[1]
        places = columns * width + rows if is_transposed else rows * width + columns
        shape = (turned.shape[0], turned.shape[1])
        return cls(shape, starts, columns.to(torch.int32), places)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the sparse matrix with the values of a dense weight."""
        values = weight.flatten().index_select(0, self.places)
        return torch.sparse_csr_tensor(
            self.starts, self.columns, values, self.shape, check_invariants=False
        )


class _Product(torch.autograd.Function):
    """Weight times columns; the gradient of the weight is dense, that of the columns sparse."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, columns: Tensor, own: Pattern, turned: Pattern) -> Tensor:
        ctx.save_for_backward(weight, columns)
        ctx.turned = turned
        product: Tensor = own.matrix(weight) @ columns
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, columns = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_weight = (gradient @ columns.t()).view(weight.shape)
        of_columns = None
        if ctx.needs_input_grad[1]:
            of_columns = ctx.turned.matrix(weight) @ gradient
        return of_weight, of_columns, None, None


class _Sparse(nn.Module):
    """What both layers share. The weight stays dense, named and trainable as before."""

    weight: Any
    bias: Any

    def take(self, layer: nn.Linear | nn.Conv2d, mask: Tensor) -> None:
        """Share the parameters of a dense layer, whose weight must be 0 off the mask."""
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)
        self._mask = mask.flatten(1)
        self._own = Pattern.of(self._mask)
        self._turned: Pattern | None = None  # only training needs it

    def train(self, mode: bool = True) -> Any:
        """Change the mode; evaluation reads the weight anew."""
        self._matrix: Tensor | None = None
        return super().train(mode)

    def product(self, columns: Tensor) -> Tensor:
        """Return weight times columns, plus the bias.

        Args:
            columns: ``[in, n]``.
        """
        is_learning = torch.is_grad_enabled() and (
            self.weight.requires_grad or columns.requires_grad
        )
        if is_learning:
            if self._turned is None:
                self._turned = Pattern.of(self._mask, is_transposed=True)
            out: Tensor = _Product.apply(self.weight, columns, self._own, self._turned)
            return out if self.bias is None else out + self.bias[:, None]
        if self.training or self._matrix is None:
            self._matrix = self._own.matrix(self.weight.detach())
        if self.bias is None:
            return self._matrix @ columns
        return torch.addmm(self.bias[:, None], self._matrix, columns)


class SparseLinear(_Sparse, nn.Linear):
    """A linear layer whose dead weights cost nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W^T + b``.

        Args:
            x: ``[..., in]``.
        """
        flat = x.reshape(-1, self.in_features)
        out = self.product(flat.t().contiguous())
        return out.t().reshape(*x.shape[:-1], self.out_features)


class SparseConv2d(_Sparse, nn.Conv2d):
    """A convolution whose dead weights cost nothing, but whose patches must be copied first."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images ``[n, channels, height, width]``."""
        is_last = x.is_contiguous(memory_format=torch.channels_last)
        columns, (height, width) = self.patches(x)
        out = self.product(columns).view(self.out_channels, len(x), height, width).transpose(0, 1)
        order = torch.channels_last if is_last else torch.contiguous_format
        return out.contiguous(memory_format=order)

    def patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return what each weight meets, ``[channels * kernel, n * places]``, and the places."""
        up, left = cast(tuple[int, int], self.padding)  # no text: see `can_be_sparse`
        (down, right), (tall, wide) = self.stride, self.dilation
        padded = F.pad(x.transpose(0, 1), (left, left, up, up))
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        cut = padded.unfold(2, spans[0], down).unfold(3, spans[1], right)
        cut = cut[..., ::tall, ::wide]
        places = (cut.shape[2], cut.shape[3])
        return cut.permute(0, 4, 5, 1, 2, 3).reshape(self._own.shape[1], -1), places


def can_be_sparse(module: nn.Module) -> bool:
    """Tell whether a layer has a sparse counterpart: plain linear layers and convolutions."""
    if type(module) is nn.Conv2d:
        is_plain = module.groups == 1 and module.padding_mode == "zeros"
        return is_plain and not isinstance(module.padding, str) and _is_usual(module.weight)
    return type(module) is nn.Linear and _is_usual(module.weight)


def _is_usual(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type in ("cpu", "meta")


def make_sparse(
    layer: nn.Linear | nn.Conv2d, mask: Tensor
) -> SparseLinear | SparseConv2d | PackedLinear:
    """Return the sparse counterpart of a layer; both share their parameters.

    Args:
        layer: ``can_be_sparse``; its weight is 0 off the mask.
        mask: bool, of the weight's shape.
    """
    new: SparseLinear | SparseConv2d
    if isinstance(layer, nn.Linear):
        if bands := find_bands(mask):
            packed = PackedLinear(layer.in_features, layer.out_features, device="meta")
            packed.take(layer, bands)
            return packed
        new = SparseLinear(layer.in_features, layer.out_features, device="meta")
    else:
        new = SparseConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            device="meta",
        )
    new.take(layer, mask)
    return new


def use_sparse(model: nn.Module, masks: Tensors, names: Collection[str]) -> nn.Module:
    """Exchange layers of a model for their sparse counterparts, in place.

    Tensors and their names stay as they are. Layers that have no counterpart stay dense.

    Args:
        masks: weight -> its mask; the model's values are 0 off it.
        names: weights that become sparse.

    Returns:
        The model; or the new layer, where the model is nothing but that.
    """
    for path, module in list(model.named_modules()):
        name = f"{path}.weight" if path else "weight"
        if name not in names or not can_be_sparse(module):
            continue
        assert isinstance(module, nn.Linear | nn.Conv2d)
        new = make_sparse(module, masks[name].cpu())
        if not path:
            return new
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new)
    return model
