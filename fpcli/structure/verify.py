"""Verify: prove on one batch that cutting a network by its layout changes nothing but the width."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fpcli.errors import LayoutError, first_line
from fpcli.structure.layout import Layout
from fpcli.structure.patterns import count_kept_channels
from fpcli.structure.plain import describe_output
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support

_TOLERANCE = 1e-3
_HINT = (
    "take sizes from the input (`torch.flatten(x, 1)`, `x.shape[1]`), not from fixed numbers, and "
    "leave channels in place"
)


def verify_cuts(model: nn.Module, layout: Layout, example: Tensor) -> None:
    """Cut about half of every prunable group and compare with the dense network.

    A cut network must compute what the dense one computes when nobody reads the removed channels
    (their consumers' weights are 0). Layer and group normalisation read all channels at once, so
    both networks are compared without their statistics. The cut network must also run in training
    mode, where some networks use modules that evaluation does not.

    Args:
        model: a copy that may be changed, in evaluation mode.
        layout: the layout to prove.
        example: one batch, whose shape counts; zeros would hide a wrong cut.

    Raises:
        LayoutError: the cut network fails, or computes something else; names the module or groups.
    """
    groups = list(layout.prunable)
    if not groups:
        return
    example = draw_batch(model, example)
    with torch.no_grad():
        _shake(model)
        reason = _mismatch(model, layout, example, groups)
        if reason:
            fails = _crash if _crash(model, layout, example, groups) else _mismatch
            name = _culprit(lambda names: fails(model, layout, example, names), groups)
            raise LayoutError(
                f"a sub-model of {type(model).__name__} {reason}"
                + (f" (channels of `{name}`)" if name else ""),
                hint=_HINT,
                where=name,
            )
        small = _cut(model, layout, _half(layout, groups)).train()
        _, reason = _run(small, example)
    if reason:
        raise LayoutError(
            f"a sub-model of {type(model).__name__} {reason} in training mode",
            hint="build the network without modules that only training uses (auxiliary heads)",
        )


def draw_batch(model: nn.Module, example: Tensor) -> Tensor:
    """Return two different samples: one alone would hide a reshape that mixes up the batch.

    Integers are ids: from 0 to the last one of the smallest embedding, or to the example's largest.
    """
    generator, shape = torch.Generator().manual_seed(0), (2, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=generator).to(example)
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    top = max(int(example.max()), min(sizes, default=1) - 1)
    return torch.randint(top + 1, shape, generator=generator).to(example)


def _shake(model: nn.Module) -> None:
    """Move biases and scales off 0 and 1, where a wrong cut of them would not show."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() == max(parameter.shape, default=1):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter))


def _half(layout: Layout, names: Iterable[str]) -> Support:
    generator = torch.Generator().manual_seed(0)
    keep: dict[str, Tensor] = {}
    for name in names:
        group = layout.groups[name]
        num_blocks = group.width // group.block
        order = torch.randperm(num_blocks, generator=generator)
        best = (
            order[: count_kept_channels(group.width, 0.5, group.block) // group.block].sort().values
        )
        keep[name] = (best[:, None] * group.block + torch.arange(group.block)).flatten()
    return Support(keep)


def _cut(model: nn.Module, layout: Layout, support: Support) -> nn.Module:
    state = model.state_dict()
    return shrink(model, support.gather(layout, {name: state[name] for name in layout.tensors}))


def _mismatch(model: nn.Module, layout: Layout, example: Tensor, names: Sequence[str]) -> str:
    """Return how the network cut in the named groups differs from the dense one; '' if not."""
    got, reason = _run_cut(model, layout, example, names)
    if reason:
        return reason
    deaf = copy.deepcopy(model)
    weights = dict(deaf.named_parameters())
    for name, keep in _half(layout, names).keep.items():
        for member in layout.groups[name].members:
            reads = layout.tensors[member.tensor].uses > 0 and not member.produces
            if reads:
                removed = torch.ones(len(member.index), dtype=torch.bool)
                removed[keep] = False
                index = member.index[removed].flatten().to(example.device)
                weights[member.tensor].index_fill_(member.dim, index, 0.0)
    with _NoStatistics():
        want, reason = _run(deaf, example)
    if reason:
        return reason
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return f"returns {describe_output(got)[0]} instead of {list(want.shape)}"
    limit = _TOLERANCE * float(want.abs().max())
    worst = float((got - want).abs().max())
    return "" if worst <= limit else "computes something else than the network it was cut from"


def _crash(model: nn.Module, layout: Layout, example: Tensor, names: Sequence[str]) -> str:
    """Return why the network cut in the named groups does not run; '' if it does."""
    return _run_cut(model, layout, example, names)[1]


def _run_cut(
    model: nn.Module, layout: Layout, example: Tensor, names: Sequence[str]
) -> tuple[Any, str]:
    support = _half(layout, names)
    support.check(layout)
    with _NoStatistics():
        return _run(_cut(model, layout, support), example)


def _culprit(fails: Callable[[Sequence[str]], str], groups: Sequence[str]) -> str:
    """Return a group whose cut alone is wrong, or '' if only several together are.

    By halves: to try every group of a large network would take minutes.
    """
    while len(groups) > 1:
        half = groups[: len(groups) // 2]
        groups = half if fails(half) else groups[len(half) :]
    return groups[0] if fails(groups) else ""


def _run(model: nn.Module, x: Tensor) -> tuple[Any, str]:
    """Return the output, or in which module it failed and why."""
    inside: list[str] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: inside.append(name)

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        inside.pop()

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave)
    try:
        return model(x), ""
    except Exception as error:
        place = (inside and inside[-1]) or type(model).__name__
        return None, f"fails in `{place}`: {first_line(error)}"


class _NoStatistics(TorchFunctionMode):
    """Reduce layer and group normalisation to their weight and bias."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the two functions, call every other one."""
        kwargs = kwargs or {}
        if func is F.layer_norm or func is F.group_norm:
            x, weight, bias = args[0], kwargs.get("weight"), kwargs.get("bias")
            shape = [-1, *[1] * (x.dim() - 2)] if func is F.group_norm else [-1]
            if weight is not None:
                x = x * (weight.reshape(shape) if weight.dim() == 1 else weight)
            if bias is not None:
                x = x + (bias.reshape(shape) if bias.dim() == 1 else bias)
            return x
        return func(*args, **kwargs)
