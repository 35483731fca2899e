"""Shrink: the physically smaller module that block tensors belong to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fpcli.errors import LayoutError
from fpcli.structure.layout import Tensors

_ALIGNMENT = 64
"""Bytes; torch's own tensors start at multiples. Matrix products choose kernels by the start of a
tensor, so one that was read from a file elsewhere would give other last digits."""


def shrink(template: nn.Module, block: Tensors) -> nn.Module:
    """Build a module like ``template`` whose widths are those of the block's tensors.

    Args:
        template: any module of the dense structure, on any device; it is not modified and shares no
            memory with the result. Mode, integer buffers and ``requires_grad`` flags carry over.
        block: every floating-point entry of its ``state_dict`` in block shape. The module takes
            these tensors over (training it writes to them) unless they lie where torch would
            not put them. Meta tensors give a meta module.

    Returns:
        The smaller module. Parameters that the template shares stay shared.

    Raises:
        LayoutError: a tensor is missing, or shapes do not fit together in some layer.

    >>> import torch
    >>> small = shrink(nn.Linear(4, 3), {"weight": torch.ones(2, 4), "bias": torch.zeros(2)})
    >>> small
    Linear(in_features=4, out_features=2, bias=True)
    """
    memo: dict[int, Any] = {}
    for name, old in template.state_dict(keep_vars=True).items():
        if isinstance(old, Tensor) and old.is_floating_point() and id(old) not in memo:
            memo[id(old)] = _replacement(name, old, block)
    small = copy.deepcopy(template, memo)
    for name, module in small.named_modules():
        for kinds, fit in _FITS:
            if isinstance(module, kinds) and not fit(module):
                shapes = {key: list(value.shape) for key, value in module.named_parameters()}
                raise LayoutError(
                    f"tensors of `{name}` do not fit {type(module).__name__}: {shapes}",
                    hint="cut them with the layout of this very model",
                    where=name,
                )
    return small


def hollow_out(model: nn.Module) -> nn.Module:
    """Return a copy of a model that has its structure and integer buffers, but no floats.

    As a template of `shrink` it takes no memory worth mentioning.
    """
    state = model.state_dict(keep_vars=True)
    block = {
        name: old.detach().to("meta")
        for name, old in state.items()
        if isinstance(old, Tensor) and old.is_floating_point()
    }
    return shrink(model, block)


def fill_buffers(template: nn.Module, block: Tensors) -> Tensors:
    """Return a block with fresh batch-norm statistics wherever it brings none."""
    fresh = {}
    persistent = template.state_dict(keep_vars=True).keys()
    for name, old in template.named_buffers():
        if name in block or name not in persistent or not old.is_floating_point():
            continue
        module, _, attribute = name.rpartition(".")
        weight = block.get(f"{module}.weight")
        if weight is not None and attribute == "running_mean":
            fresh[name] = torch.zeros_like(weight)
        elif weight is not None and attribute == "running_var":
            fresh[name] = torch.ones_like(weight)
    return {**block, **fresh}


def _replacement(name: str, old: Tensor, block: Tensors) -> Tensor:
    new = block.get(name)
    if new is None or new.dim() != old.dim():
        shape = "missing" if new is None else list(new.shape)
        raise LayoutError(
            f"tensor '{name}' is {shape}; the model has {list(old.shape)}",
            hint="cut the block with the layout of this very model",
            where=name,
        )
    new = new.detach()
    if not new.is_meta:
        is_shared = new.untyped_storage().data_ptr() == old.untyped_storage().data_ptr()
        if is_shared or new.data_ptr() % _ALIGNMENT:
            new = new.clone()
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _are_vectors(module: nn.Module, width: int) -> bool:
    """Tell whether every tensor of a layer but its weight matrix has ``width`` entries."""
    vectors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return all(x.shape[0] == width for x in vectors if x.dim() == 1)


def _fit_conv(conv: _ConvNd) -> bool:
    outer, inner = conv.weight.shape[:2]
    if conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels:
        conv.groups = conv.in_channels = conv.out_channels = outer
        fits = inner == 1
    elif conv.transposed:
        conv.in_channels, conv.out_channels = outer, inner * conv.groups
        fits = outer % conv.groups == 0
    else:
        conv.in_channels, conv.out_channels = inner * conv.groups, outer
        fits = outer % conv.groups == 0
    same_kernel = tuple(conv.weight.shape[2:]) == tuple(conv.kernel_size)
    return fits and same_kernel and _are_vectors(conv, conv.out_channels)


def _fit_linear(linear: nn.Linear) -> bool:
    linear.out_features, linear.in_features = linear.weight.shape
    return _are_vectors(linear, linear.out_features)


def _fit_norm(norm: _NormBase) -> bool:
    sizes = [x for x in (norm.weight, norm.running_mean) if x is not None]
    if sizes:
        norm.num_features = sizes[0].shape[0]
    return _are_vectors(norm, norm.num_features)


def _fit_group_norm(norm: nn.GroupNorm) -> bool:
    """Keep the channels per norm group; a single group stays one over whatever is left."""
    if norm.weight is None:
        return True
    width, per_group = norm.weight.shape[0], norm.num_channels // norm.num_groups
    fits = True
    if norm.num_groups > 1:
        norm.num_groups = width // per_group
        fits = width % per_group == 0
    norm.num_channels = width
    return fits and _are_vectors(norm, width)


def _fit_layer_norm(norm: nn.LayerNorm) -> bool:
    if norm.weight is None:
        return True
    norm.normalized_shape = tuple(norm.weight.shape)
    return norm.bias is None or norm.bias.shape == norm.weight.shape


def _fit_prelu(prelu: nn.PReLU) -> bool:
    prelu.num_parameters = prelu.weight.shape[0]
    return True


_FITS: tuple[tuple[type[nn.Module], Callable[[Any], bool]], ...] = (
    (_ConvNd, _fit_conv),
    (nn.Linear, _fit_linear),
    (_NormBase, _fit_norm),
    (nn.GroupNorm, _fit_group_norm),
    (nn.LayerNorm, _fit_layer_norm),
    (nn.PReLU, _fit_prelu),
)
"""Layer type -> set its size attributes from its tensors and tell whether these fit together."""
