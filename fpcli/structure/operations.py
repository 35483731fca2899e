"""Operations: what a node of the dependency graph does to channels, and where its tensors are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

_ELEMENTWISE = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Add Alias Clamp ClampMax ClampMin Clone Div Elu Exp Gelu Hardsigmoid Hardswish
        Hardtanh LeakyRelu LogSigmoid Mish Mul NativeDropout Neg Pow Relu Rsqrt Sigmoid Silu
        Softplus Sqrt Sub Tanh Threshold ToCopy AdaptiveAvgPool2D AdaptiveAvgPool3D
        AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D AvgPool3D MaxPool2DWithIndices
        MaxPool3DWithIndices MkldnnMaxPool2D ReflectionPad1D ReflectionPad2D
        ReplicationPad1D ReplicationPad2D UpsampleBicubic2D UpsampleBilinear2D
        UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearestExact2D
        CudnnBatchNorm NativeBatchNorm NativeGroupNorm NativeLayerNorm Permute Squeeze
        Transpose Unsqueeze
        """,
    )
)
"""Autograd operations that treat each channel by itself, or belong to a layer that is handled."""


class Slot(NamedTuple):
    """An axis of a tensor that one side (input, output) of a layer stands for.

    Attributes:
        produces: its slices are the filters that make the channels.
        reads: the layer computes something new from the channels.
        block: channels that the layer treats as one (normalisation groups).
    """

    tensor: str
    dim: int
    size: int
    produces: bool = False
    reads: bool = False
    block: int = 1


def find_slots(
    module: Any, is_input: bool, is_output: bool, names: Mapping[int, str]
) -> list[Slot]:
    """Return where the channels on one side of a layer live; nothing for operations.

    Args:
        module: a layer, a bare parameter or an operation.
        is_input: the side takes channels in.
        is_output: the side gives channels out; layers that pass channels on (normalisation,
            depthwise convolution) have one side for both.
        names: ``id`` of a tensor -> its name.
    """

    def slot(tensor: Tensor, dim: int, **flags: Any) -> Slot:
        return Slot(names[id(tensor)], dim, tensor.shape[dim], **flags)

    if isinstance(module, nn.Parameter):
        return [slot(module, dim) for dim, size in enumerate(module.shape) if size > 1]
    if isinstance(module, _ConvNd | nn.Linear):
        is_depthwise = is_input and is_output
        out_dim = int(isinstance(module, _ConvNd) and module.transposed and not is_depthwise)
        if is_output:
            bias = [] if module.bias is None else [slot(module.bias, 0)]
            return [slot(module.weight, out_dim, produces=True), *bias]
        if isinstance(module, _ConvNd) and module.groups > 1:
            return []
        return [slot(module.weight, 1 - out_dim, reads=True)]
    if isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm | nn.PReLU):
        vectors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        block = _norm_block(module)
        return [slot(x, 0, block=block) for x in vectors if id(x) in names and x.numel() > 1]
    return []


def _norm_block(module: nn.Module) -> int:
    """One norm group reads all channels like a layer norm; several must keep their members."""
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        return module.num_channels // module.num_groups
    return 1


def is_rigid(node: Any, names: Mapping[int, str]) -> bool:
    """Tell whether channels that meet this node cannot leave.

    Args:
        node: of the dependency graph.
        names: ``id`` of every tensor of the model -> its name; any other leaf is the input.
    """
    module = node.module
    if node.type.name in _RULES:
        return _meets_input(node, names) or not _RULES[node.type.name](node)
    if isinstance(module, nn.Parameter):
        return sum(size > 1 for size in module.shape) != 1
    if isinstance(module, _ConvNd):
        is_depthwise = module.groups == module.in_channels == module.out_channels
        return module.groups > 1 and not is_depthwise
    if isinstance(module, nn.Linear):
        return False
    if _passes_on(module):
        return _meets_input(node, names)
    return True


def _passes_on(module: nn.Module) -> bool:
    """Tell whether a layer is a normalisation or activation that can be narrowed."""
    if isinstance(module, nn.LayerNorm):
        return module.weight is not None and module.weight.dim() == 1
    if isinstance(module, nn.GroupNorm):
        return module.weight is not None or module.num_groups == 1
    if isinstance(module, _NormBase) and not isinstance(module, _BatchNorm):
        # Without tensors of its own it could not tell its new width from a block.
        return module.weight is not None or module.running_mean is not None
    return isinstance(module, _BatchNorm | nn.PReLU)


def _meets_input(node: Any, names: Mapping[int, str]) -> bool:
    parents = getattr(node.grad_fn, "next_functions", ())
    return any(
        hasattr(parent, "variable") and id(parent.variable) not in names for parent, _ in parents
    )


def _shape(function: Any, number: int = 0) -> tuple[int, ...]:
    """Return the shape of an output of an autograd function."""
    return tuple(function._input_metadata[number].shape)


def count_values(node: Any) -> int:
    """Return the number of values that a node gives out, which no axis of it exceeds."""
    return math.prod(_shape(node.grad_fn))


def _name(node: Any) -> str:
    text: str = node.grad_fn.name() if hasattr(node.grad_fn, "name") else ""
    return text.rpartition("Backward")[0]


def _restore_sign(value: int) -> int:
    """Undo the wrap-around of a negative number that torch saved without its sign."""
    return value - 2**64 if value >= 2**63 else value


def _is_plain(node: Any) -> bool:
    name = _name(node)
    if name in _ELEMENTWISE:
        return True
    if name == "Repeat":
        return hasattr(node.grad_fn.next_functions[0][0], "variable")
    if name in ("Addmm", "Mm", "T"):
        return _is_linear(node.grad_fn)
    if name in ("Mean", "Sum"):
        shape = _shape(*node.grad_fn.next_functions[0])
        dims = getattr(node.grad_fn, "_saved_dim", None)
        return dims is not None and 1 not in [_restore_sign(dim) % len(shape) for dim in dims]
    if name == "ConstantPadNd":
        return not any(node.grad_fn._saved_pad[2 * (len(_shape(node.grad_fn)) - 2) :])
    return name.startswith("AsStrided") and _keeps_channels(node)


def _is_linear(function: Any) -> bool:
    """Tell whether a matrix product has a parameter as one factor, as inside ``nn.Linear``."""
    if function.name().startswith("TBackward"):
        return all(hasattr(parent, "variable") for parent, _ in function.next_functions)
    return any(
        parent is not None and parent.name().startswith("TBackward") and _is_linear(parent)
        for parent, _ in function.next_functions
    )


def _keeps_channels(node: Any) -> bool:
    """Tell whether a reshape leaves channels alone: only size-1, token or pixel axes change."""
    before, after = _shape(*node.grad_fn.next_functions[0]), _shape(node.grad_fn)
    return (
        [size for size in before if size != 1] == [size for size in after if size != 1]
        or before[-1:] == after[-1:]
        or (len(before) > 2 < len(after) and before[:2] == after[:2])
    )


def _is_reshape(node: Any) -> bool:
    before, after = _shape(*node.grad_fn.next_functions[0]), _shape(node.grad_fn)
    is_flatten = len(before) == 4 and len(after) == 2 and before[0] == after[0]
    return is_flatten or _keeps_channels(node) or _folds(before, after) or _folds(after, before)


def _folds(plain: tuple[int, ...], folded: tuple[int, ...]) -> bool:
    """Tell whether the batch is folded into the channels, as inside instance normalisation."""
    return len(plain) > 2 and folded == (1, plain[0] * plain[1], *plain[2:])


def _is_slice(node: Any) -> bool:
    num_dims = len(_shape(*node.grad_fn.next_functions[0]))
    dim = _restore_sign(node.module.dim) % num_dims
    return dim == 0 or (dim > 1 and num_dims > 3)


def _is_concat(node: Any) -> bool:
    offsets: Sequence[int] | None = node.module.offsets
    shape = _shape(node.grad_fn)
    dim = _restore_sign(node.grad_fn._saved_dim) % len(shape)
    return offsets is not None and node.enable_index_mapping and offsets[-1] == shape[dim]


def _is_never(node: Any) -> bool:
    return False


_RULES: Mapping[str, Callable[[Any], bool]] = {
    "ELEMENTWISE": _is_plain,
    "RESHAPE": _is_reshape,
    "SLICE": _is_slice,
    "CONCAT": _is_concat,
    "OUTPUT": _is_never,
    "SPLIT": _is_never,
    "UNBIND": _is_never,
    "EXPAND": _is_never,
}
"""Type of operation node -> does it treat each channel by itself?"""
