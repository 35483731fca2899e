"""Reuse: what a network that is cut in one group need not compute again.

Until a layer reads the channels of a group, cutting the group changes nothing but which channels
there are: what the whole network computed up to there, cut to the kept channels, is what the small
one would compute. So a module that has returned by then can be replaced by its recorded output,
whatever the network's code does between modules.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fpcli.structure.layout import Layout

Recorded = Mapping[str, Tensor]
"""Module -> its output for one batch; the network's own under ``""``."""

_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """The modules that a network cut in one group shares with the whole one.

    Attributes:
        axes: module -> the axis of its output that the cut narrows, or None.
        read: those whose output anything else reads; the rest only has to return something.
        reads_input: whether anything else reads the network's input.
        stubs: outputs of the modules in ``axes`` for a single input.
    """

    axes: Mapping[str, int | None]
    read: frozenset[str]
    reads_input: bool
    stubs: Recorded


NOTHING = SharedPrefix({}, frozenset(), True, {})
"""Everything is computed anew."""


def find_prefix(
    whole: nn.Module,
    small: nn.Module,
    layout: Layout,
    group: str,
    width: int,
    kept: Tensor,
    x: Tensor,
) -> SharedPrefix:
    """Find what a network cut in one group shares with the whole one, and prove it.

    Args:
        whole: in evaluation mode.
        small: the same without some channels of the group; it stays as it is.
        layout: says which modules meet the group.
        width: channels that ``whole`` has of it; both may have been cut before.
        kept: int64, which of these ``small`` has.
        x: a few inputs, on which both ways of computing must agree.

    Returns:
        The prefix; :data:`NOTHING` where none could be proved.
    """
    with torch.no_grad():
        before, after = _calls(whole, x[:1]), _calls(small, x[:1])
        start = min(before[name].began for name in _readers(whole, layout, group, before))
        axes: dict[str, int | None] = {}
        modules = dict(whole.named_modules())
        for name, call in before.items():
            is_inside = any(name.startswith(f"{outer}.") for outer in axes)
            # What an embedding saves is nothing, and its table may score the output too.
            is_table = isinstance(modules[name], nn.Embedding)
            if not (is_inside or is_table) and call.ended < start and name in after:
                axis = _find_axis(call, after[name], width, len(kept))
                if axis != _OTHER:
                    axes[name] = axis
    stubs = {name: before[name].output for name in axes}
    try:
        read = _what_is_read(small, SharedPrefix(axes, frozenset(axes), True, stubs), kept, x[:1])
        prefix = SharedPrefix(axes, read - {""}, "" in read, stubs)
        with torch.no_grad():
            want = small(x)
            resumed = Resumed(drop_prefix(small, prefix), prefix, kept)
            got = resumed(record(whole, prefix.read, x), x)
    except Exception:  # the network's own code may do anything with what it did not expect
        return NOTHING
    limit = _TOLERANCE * float(want.abs().max())
    return prefix if bool(((got - want).abs() <= limit).all()) else NOTHING


def record(whole: nn.Module, names: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """Run the whole network and keep the outputs of some modules, and its own under ``""``."""
    outputs: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # Copied, since what follows may write to it.
            outputs[name] = output.detach().clone()

        return keep

    modules = dict(whole.named_modules())
    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    try:
        outputs[""] = whole(x)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def drop_prefix(model: nn.Module, prefix: SharedPrefix) -> nn.Module:
    """Return a network without the modules of a prefix; it shares the tensors of what is left.

    It can be a template of ``shrink`` for cuts of the prefix's group. Its pooling is faster.
    """
    tensors = [*model.parameters(), *model.buffers()]
    rest = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    modules = dict(rest.named_modules())
    for name in prefix.axes:
        parent, _, attribute = name.rpartition(".")
        modules[parent]._modules[attribute] = _StandIn()
    for module in rest.modules():
        if type(module) is nn.MaxPool2d:
            module.__class__ = _Pool
    return rest


class Resumed:
    """A small network that goes on from what was recorded of the whole one.

    Args:
        small: the network :func:`drop_prefix`, cut; it is of no further use.
        prefix: what it is without.
        kept: int64, the channels of the prefix's group that ``small`` has.
    """

    def __init__(self, small: nn.Module, prefix: SharedPrefix, kept: Tensor) -> None:
        self._small, self._prefix, self._kept = small, prefix, kept
        modules = dict(small.named_modules())
        self._stand_ins = {name: modules[name] for name in prefix.axes}
        for name, stand_in in self._stand_ins.items():
            stand_in.output = self._narrow(name, prefix.stubs[name])

    def __call__(self, recorded: Recorded, x: Tensor) -> Tensor:
        """Return the network's output for the batch that was recorded.

        Args:
            recorded: the outputs of ``prefix.read``; they stay as they are.
            x: the batch itself.
        """
        for name in self._prefix.read:
            self._stand_ins[name].output = self._narrow(name, recorded[name])
        output: Tensor = self._small(x if self._prefix.reads_input else x[:1])
        return output

    def _narrow(self, name: str, output: Tensor) -> Tensor:
        axis = self._prefix.axes[name]
        # A copy in any case, since what follows may write to it.
        return output.clone() if axis is None else output.index_select(axis, self._kept)


class _StandIn(nn.Module):
    """Returns what is known, whatever it is given."""

    output: Tensor | None = None

    def forward(self, *inputs: Any, **more: Any) -> Tensor | None:
        return self.output


class _Pool(nn.MaxPool2d):
    """The same values; on a processor seven times as fast for windows of 2x2."""

    def forward(self, x: Tensor) -> Tensor:
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        is_plain = sizes in ((2, 2, 0, 1), ((2, 2), (2, 2), (0, 0), (1, 1)))
        if not is_plain or self.return_indices or x.shape[-1] % 2 or x.shape[-2] % 2:
            return super().forward(x)
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


@dataclass
class _Call:
    """When a module ran, counted in steps, how often, and what it returned."""

    times: int = 0
    began: float = float("inf")
    ended: float = float("inf")
    output: Any = None


def _calls(model: nn.Module, x: Tensor) -> dict[str, _Call]:
    """Run a network and return the calls of its modules, outer ones before inner ones."""
    calls: dict[str, _Call] = {}
    steps = itertools.count()

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, inputs: Any) -> None:
            call = calls.setdefault(name, _Call())
            call.times += 1
            call.began = min(call.began, next(steps))

        return note

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name].ended = next(steps)
            calls[name].output = output.clone() if isinstance(output, Tensor) else output

        return note

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave(name)))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _readers(
    model: nn.Module, layout: Layout, group: str, calls: Mapping[str, _Call]
) -> Sequence[str]:
    """Return the modules that compute something new from a group's channels; never none."""
    modules = dict(model.named_modules())
    readers = []
    for member in layout.groups[group].members:
        name = member.tensor.rpartition(".")[0]
        module = modules[name]
        is_maker = isinstance(module, _ConvNd | nn.Linear) and (
            member.produces or len(layout.tensors[member.tensor].shape) == 1
        )
        # Layer and group normalisation look at several channels at once.
        if not is_maker and not isinstance(module, _NormBase | nn.PReLU) and name in calls:
            readers.append(name)
    return readers or [next(iter(calls))]


_OTHER = -1


def _find_axis(whole: _Call, small: _Call, width: int, kept: int) -> int | None:
    """Return the axis in which two outputs differ, None if in none, ``_OTHER`` if otherwise."""
    if whole.times != 1 or not isinstance(whole.output, Tensor):
        return _OTHER
    before, after = tuple(whole.output.shape), tuple(small.output.shape)
    if before == after:
        return None
    differ = [
        axis for axis, sizes in enumerate(zip(before, after, strict=True)) if len({*sizes}) > 1
    ]
    if len(differ) == 1 and (before[differ[0]], after[differ[0]]) == (width, kept):
        return differ[0]
    return _OTHER


def _what_is_read(
    small: nn.Module, prefix: SharedPrefix, kept: Tensor, x: Tensor
) -> frozenset[str]:
    """Return the recorded modules, and ``""`` for the input, that the output depends on.

    An input of ids, which has no gradient, always counts.
    """
    known = {**prefix.stubs, "": x}
    floats = {name: value for name, value in known.items() if value.is_floating_point()}
    leaves = {name: value.detach().clone().requires_grad_() for name, value in floats.items()}
    with torch.enable_grad():
        inputs = known | {name: leaf * 1 for name, leaf in leaves.items()}
        output = Resumed(drop_prefix(small, prefix), prefix, kept)(inputs, inputs[""])
        gradients = torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
    unread = {name for name, x in zip(leaves, gradients, strict=True) if x is None}
    return frozenset(known.keys() - unread)
