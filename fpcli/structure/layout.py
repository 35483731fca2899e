"""Layout: which channels of which tensors belong together, in the initial model's coordinates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fpcli.errors import LayoutError

Tensors = Mapping[str, Tensor]
"""Name -> values; float32 unless stated."""


@dataclass(frozen=True)
class TensorSpec:
    """One floating-point parameter or buffer of the initial model.

    Attributes:
        shape: dense shape.
        is_parameter: False for a buffer such as a running mean.
        uses: multiply-adds that one of its elements takes part in, per sample (0 where the tensor
            is no factor of a convolution, matrix product or complex product).
        real_rows: of complex numbers, whose real and imaginary parts are the last axis: the rows
            in which the imaginary part has no effect. None where its numbers are real.
    """

    shape: tuple[int, ...]
    is_parameter: bool
    uses: float = 0.0
    real_rows: tuple[int, ...] | None = None

    @property
    def is_complex(self) -> bool:
        """Tell whether the last axis holds real and imaginary parts."""
        return self.real_rows is not None


@dataclass(frozen=True, eq=False)
class Member:
    """Where the channels of a group live on one axis of one tensor.

    Attributes:
        tensor: name in ``Layout.tensors``.
        dim: the axis.
        index: int64 ``[width, repeat]``; row c lists the positions that channel c owns on the axis
            (repeat > 1 behind a flatten, where one channel owns several columns).
        produces: True where the axis is the output axis of a convolution or linear weight, so that
            its slices are the filters that make the channels.
    """

    tensor: str
    dim: int
    index: Tensor
    produces: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that must leave together.

    Attributes:
        name: the module whose output channels they are (the first one of the group).
        width: number of channels in the initial model.
        members: every axis that the channels live on.
        block: channels that leave only together (attention heads); 1 means each may leave alone.
        protected: True where no channel may leave (network output, unsupported operation).
    """

    name: str
    width: int
    members: tuple[Member, ...]
    block: int = 1
    protected: bool = False


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a tensor that channels live on; tensors with equal axes share the object.

    Attributes:
        size: its dense length.
        parts: group name and int64 ``[width, repeat]`` positions; one entry unless the axis joins
            several groups (behind a concatenation). Positions in no part always stay.
    """

    size: int
    parts: tuple[tuple[str, Tensor], ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """The tensors of a model and its channel groups. Immutable; made by ``trace``.

    Attributes:
        tensors: every floating-point entry of ``state_dict()``, in its order.
        groups: the channel groups, in the order of their first tensor.
        fixed_macs: multiply-adds per sample that belong to no weight (attention products).
        opaque: modules that tracing has left alone (``structure.opaque``).

    >>> weight = Member("fc.weight", 0, torch.arange(3).reshape(3, 1), produces=True)
    >>> tensors = {"fc.weight": TensorSpec((3, 2), True, 1.0)}
    >>> layout = Layout(tensors, {"fc": Group("fc", 3, (weight,))})
    >>> Layout.from_json(layout.to_json()).digest == layout.digest
    True
    """

    tensors: Mapping[str, TensorSpec]
    groups: Mapping[str, Group]
    fixed_macs: float = 0.0
    opaque: tuple[str, ...] = ()

    @property
    def prunable(self) -> dict[str, Group]:
        """The groups whose channels may leave."""
        return {name: group for name, group in self.groups.items() if not group.protected}

    @cached_property
    def parameters(self) -> Layout:
        """The same layout without buffers, for exchanges in which those stay where they are."""
        tensors = {name: spec for name, spec in self.tensors.items() if spec.is_parameter}
        groups = {
            name: replace(group, members=tuple(m for m in group.members if m.tensor in tensors))
            for name, group in self.groups.items()
        }
        return Layout(tensors, groups, self.fixed_macs, self.opaque)

    @cached_property
    def axes(self) -> dict[str, tuple[Axis | None, ...]]:
        """Per tensor and dimension the groups on it; None where no group touches the axis."""
        parts: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
        for group in self.groups.values():
            for member in group.members:
                place = (member.tensor, member.dim)
                parts.setdefault(place, []).append((group.name, member.index))
        shared: dict[Any, Axis] = {}
        axes: dict[str, tuple[Axis | None, ...]] = {}
        for name, spec in self.tensors.items():
            row: list[Axis | None] = []
            for dim, size in enumerate(spec.shape):
                here = tuple(parts.get((name, dim), ()))
                key = (size, tuple((group, index.numpy().tobytes()) for group, index in here))
                row.append(shared.setdefault(key, Axis(size, here)) if here else None)
            axes[name] = tuple(row)
        return axes

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over tensors and groups: equal for two layouts that mean the same."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the layout as plain lists and dicts (order of tensors and groups is kept)."""
        return {
            "tensors": [
                [name, list(spec.shape), spec.is_parameter, spec.uses]
                # Absent where there are none, as in every layout from before.
                + ([] if spec.real_rows is None else [list(spec.real_rows)])
                for name, spec in self.tensors.items()
            ],
            "groups": [
                {
                    "name": group.name,
                    "width": group.width,
                    "block": group.block,
                    "protected": group.protected,
                    "members": [
                        [member.tensor, member.dim, member.produces, _pack(member.index)]
                        for member in group.members
                    ],
                }
                for group in self.groups.values()
            ],
            "fixed_macs": self.fixed_macs,
            # Likewise.
            **({"opaque": list(self.opaque)} if self.opaque else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """Rebuild what :meth:`to_json` returned.

        Raises:
            LayoutError: the data is not a layout.
        """
        try:
            tensors = {
                name: TensorSpec(tuple(shape), is_parameter, float(uses), *map(tuple, rows))
                for name, shape, is_parameter, uses, *rows in data["tensors"]
            }
            groups = {row["name"]: _group(row) for row in data["groups"]}
            return cls(tensors, groups, float(data["fixed_macs"]), tuple(data.get("opaque", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise LayoutError(
                f"not a layout: {error!r}", hint="the file was not written by this program"
            ) from error


def _group(row: Mapping[str, Any]) -> Group:
    members = tuple(
        Member(tensor, dim, _unpack(packed, row["width"]), produces)
        for tensor, dim, produces, packed in row["members"]
    )
    return Group(row["name"], row["width"], members, row["block"], row["protected"])


def _regular(first: int, step: int, repeat: int, repeat_step: int, width: int) -> Tensor:
    return first + step * torch.arange(width)[:, None] + repeat_step * torch.arange(repeat)


def _pack(index: Tensor) -> list[Any]:
    """Write a regular table as ``[first, step, repeat, repeat_step]``, any other one in full."""
    width, repeat = index.shape
    first = int(index[0, 0])
    step = int(index[1, 0]) - first if width > 1 else 1
    repeat_step = int(index[0, 1]) - first if repeat > 1 else 1
    if torch.equal(index, _regular(first, step, repeat, repeat_step, width)):
        return [first, step, repeat, repeat_step]
    rows: list[Any] = index.tolist()
    return [rows]


def _unpack(packed: list[Any], width: int) -> Tensor:
    if len(packed) == 1:
        return torch.tensor(packed[0], dtype=torch.int64)
    first, step, repeat, repeat_step = packed
    return _regular(first, step, repeat, repeat_step, width)
