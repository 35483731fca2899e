"""Support: which channels and which weights are alive, in the initial model's coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor

from fpcli.errors import LayoutError, suggest
from fpcli.structure.layout import Axis, Layout, Tensors

EMPTY: Mapping[str, Tensor] = MappingProxyType({})

Positions = tuple[Tensor | None, ...]
"""Kept positions per axis of one tensor, sorted int64; None = the whole axis."""


@dataclass(frozen=True, eq=False)
class Support:
    """What is alive: kept channels per group, and single weights per tensor.

    Attributes:
        keep: group name -> sorted unique int64 ``[kept]`` channels; absent = all of them.
        mask: tensor name -> bool tensor of the dense shape; absent = all ones. A masked weight
            under a removed channel is dead whatever its mask says.

    >>> from fpcli.structure.layout import Group, Member, TensorSpec
    >>> rows = Member("fc.weight", 0, torch.arange(3).reshape(3, 1), produces=True)
    >>> tensors = {"fc.weight": TensorSpec((3, 2), True, 1.0)}
    >>> layout = Layout(tensors, {"fc": Group("fc", 3, (rows,))})
    >>> support = Support({"fc": torch.tensor([0, 2])})
    >>> block = support.gather(layout, {"fc.weight": torch.arange(6.0).reshape(3, 2)})
    >>> block["fc.weight"].tolist(), support.num_alive(layout)
    ([[0.0, 1.0], [4.0, 5.0]], 4)
    """

    keep: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)
    mask: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)

    def axes(self, layout: Layout) -> dict[str, Positions]:
        """Return the kept positions of every axis of every tensor; computed once per layout."""
        cached: tuple[Layout, dict[str, Positions]] | None = self.__dict__.get("_axes")
        if cached is not None and cached[0] is layout:
            return cached[1]
        kept: dict[int, Tensor | None] = {}
        axes: dict[str, Positions] = {}
        for name, row in layout.axes.items():
            for axis in row:
                if axis is not None and id(axis) not in kept:
                    kept[id(axis)] = self._positions(axis)
            axes[name] = tuple(None if axis is None else kept[id(axis)] for axis in row)
        object.__setattr__(self, "_axes", (layout, axes))
        return axes

    def _positions(self, axis: Axis) -> Tensor | None:
        parts = [(index, self.keep[group]) for group, index in axis.parts if group in self.keep]
        if not parts:
            return None
        alive = torch.ones(axis.size, dtype=torch.bool)
        for index, keep in parts:
            alive[index.flatten()] = False
            alive[index[keep].flatten()] = True
        positions = alive.nonzero().flatten()
        return None if len(positions) == axis.size else positions

    def gather(self, layout: Layout, values: Tensors) -> dict[str, Tensor]:
        """Cut dense values to this support.

        Args:
            layout: what the names and channels mean.
            values: dense tensors of the layout, any dtype; tensors that are absent stay so.

        Returns:
            Block tensors in the layout's order; weights off the mask are 0. A tensor that is kept
            whole is the very tensor of ``values``: clone it before writing to it.
        """
        axes = self.axes(layout)
        block = {name: cut(values[name], axes[name]) for name in layout.tensors if name in values}
        for name, mask in self.block_mask(layout).items():
            if name in block:
                block[name] = torch.where(mask, block[name], torch.zeros_like(block[name]))
        return block

    def scatter(
        self, layout: Layout, block: Tensors
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Put block values back into dense coordinates.

        Args:
            layout: what the names and channels mean.
            block: tensors of the layout in their block shapes; tensors that are absent stay so.

        Returns:
            Dense values (0 where this support has none) and their float {0, 1} coverage.
        """
        values: dict[str, Tensor] = {}
        coverage: dict[str, Tensor] = {}
        axes, masks = self.axes(layout), self.block_mask(layout)
        for name, spec in layout.tensors.items():
            if name not in block:
                continue
            x = block[name]
            alive = masks[name].to(x.dtype) if name in masks else torch.ones_like(x)
            inside = torch.where(masks[name], x, torch.zeros_like(x)) if name in masks else x
            values[name] = scatter(inside, axes[name], spec.shape)
            coverage[name] = scatter(alive, axes[name], spec.shape)
        return values, coverage

    def masks_of(self, dense: Tensors) -> dict[str, Tensor]:
        """Return the mask of each of some dense tensors, true throughout where it has none."""
        return {
            name: self.mask.get(name, torch.ones_like(x, dtype=torch.bool))
            for name, x in dense.items()
        }

    def block_mask(self, layout: Layout) -> dict[str, Tensor]:
        """Return the masks in block coordinates (masked tensors only)."""
        axes = self.axes(layout)
        return {name: cut(mask, axes[name]) for name, mask in self.mask.items() if name in axes}

    def block_shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the sub-model."""
        axes = self.axes(layout)
        return {
            name: tuple(
                size if kept is None else len(kept)
                for size, kept in zip(spec.shape, axes[name], strict=True)
            )
            for name, spec in layout.tensors.items()
        }

    def count(self, layout: Layout) -> dict[str, int]:
        """Return the number of alive scalars of every tensor, buffers included."""
        alive = {name: prod(shape) for name, shape in self.block_shapes(layout).items()}
        return alive | {name: int(mask.sum()) for name, mask in self.block_mask(layout).items()}

    def num_alive(self, layout: Layout) -> int:
        """Return the number of alive parameters (buffers are not parameters)."""
        count = self.count(layout)
        return sum(count[name] for name, spec in layout.tensors.items() if spec.is_parameter)

    def intersect(self, other: Support) -> Support:
        """Return what is alive in both; a group without a common channel fails ``check``.

        >>> one, two = Support({"a": torch.tensor([0, 2])}), Support({"a": torch.tensor([1, 2])})
        >>> one.intersect(two).keep
        {'a': tensor([2])}
        """
        keep, mask = dict(self.keep), dict(self.mask)
        for group, channels in other.keep.items():
            mine = keep.get(group)
            keep[group] = channels if mine is None else mine[torch.isin(mine, channels)]
        for name, bits in other.mask.items():
            mask[name] = bits & mask[name] if name in mask else bits
        return Support(keep, mask)

    def is_within(self, layout: Layout, other: Support) -> bool:
        """Tell whether everything alive here is alive in ``other``.

        A channel counts as alive until ``keep`` removes it, even if all its weights are masked.
        """
        for group, channels in other.keep.items():
            mine = self.keep.get(group)
            if mine is None:
                mine = torch.arange(layout.groups[group].width)
            if not torch.isin(mine, channels).all():
                return False
        axes, masks = self.axes(layout), self.block_mask(layout)
        for name, bits in other.mask.items():
            dead = ~cut(bits, axes[name])
            if bool((dead & masks[name] if name in masks else dead).any()):
                return False
        return True

    def check(self, layout: Layout) -> None:
        """Verify that this support fits a layout.

        Raises:
            LayoutError: a group or tensor is unknown; channels are empty, out of range, unsorted,
                repeated, of a protected group or cut a block; a mask has a wrong dtype or shape.
        """
        for name, channels in self.keep.items():
            _check_keep(layout, name, channels)
        for name, bits in self.mask.items():
            if name not in layout.tensors:
                raise _explain_unknown("tensor", name, layout.tensors)
            shape = layout.tensors[name].shape
            if bits.dtype != torch.bool or tuple(bits.shape) != shape:
                raise LayoutError(
                    f"mask of '{name}' is {bits.dtype} {list(bits.shape)}",
                    hint=f"a mask has dtype bool and the dense shape {list(shape)}",
                    where=name,
                )


def _check_keep(layout: Layout, name: str, channels: Tensor) -> None:
    if name not in layout.groups:
        raise _explain_unknown("group", name, layout.groups)
    group = layout.groups[name]

    def error(text: str, hint: str) -> LayoutError:
        return LayoutError(f"group '{name}' {text}", hint=hint, where=name)

    if group.protected:
        raise error("is protected: none of its channels may leave", "leave it out of `keep`")
    if channels.dtype != torch.int64 or channels.dim() != 1:
        raise error(f"has channels {channels.dtype} {list(channels.shape)}", "use int64 [kept]")
    if not len(channels):
        raise error(f"keeps 0 of {group.width} channels", "lower the pruning ratio")
    if int(channels[0]) < 0 or int(channels[-1]) >= group.width:
        raise error("keeps a channel that it has not", f"channels are 0 to {group.width - 1}")
    if bool((channels[1:] <= channels[:-1]).any()):
        raise error("has unsorted or repeated channels", "keep them sorted, each once")
    if group.block > 1:
        first = channels[:: group.block]
        whole = (first[:, None] + torch.arange(group.block)).flatten()
        if not torch.equal(whole, channels) or bool((first % group.block).any()):
            raise error("keeps parts of a block", f"{group.block} channels leave together")


def _explain_unknown(kind: str, name: str, names: Mapping[str, object]) -> LayoutError:
    return LayoutError(
        f"unknown {kind} '{name}'", hint=suggest(name, names) or f"see the {kind}s of the layout"
    )


def cut(x: Tensor, positions: Positions) -> Tensor:
    """Return the kept positions of a dense tensor; the tensor itself when that is all of it.

    >>> cut(torch.arange(6).reshape(2, 3), (None, torch.tensor([0, 2]))).tolist()
    [[0, 2], [3, 5]]
    """
    for dim, kept in enumerate(positions):
        if kept is not None:
            x = x.index_select(dim, kept)
    return x


def scatter(x: Tensor, positions: Positions, shape: Sequence[int]) -> Tensor:
    """Return a dense tensor with ``x`` at its positions and 0 elsewhere; ``x`` itself if it is all.

    >>> scatter(torch.tensor([5, 6]), (torch.tensor([0, 2]),), (3,)).tolist()
    [5, 0, 6]
    """
    for dim in reversed(range(len(positions))):
        kept = positions[dim]
        if kept is not None:
            wide = x.new_zeros((*x.shape[:dim], shape[dim], *x.shape[dim + 1 :]))
            x = wide.index_copy_(dim, kept, x)
    return x
