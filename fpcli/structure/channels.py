"""Channels: follow every channel through a dependency graph and sort channels into groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from fpcli.structure.layout import Group, Member
from fpcli.structure.operations import Slot, count_values, find_slots, is_rigid

Side = tuple[Any, Callable[..., Any]]
"""A node of the graph and one of its pruning functions: its input or its output axis."""


class _Position(NamedTuple):
    """A position on an axis and the channel it belongs to; index mappings read both fields."""

    idx: int
    root_idx: int


class _Channel:
    """What leaves together: positions per (tensor, dimension), and whether it may leave at all."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], list[int]] = {}
        self.is_read = False
        self.is_rigid = False

    @property
    def is_protected(self) -> bool:
        return self.is_rigid or not self.is_read


def find_groups(graph: Any, names: Mapping[int, str]) -> dict[str, Group]:
    """Turn a built dependency graph into channel groups.

    Channels that own equally many positions on the same axes form one group, so a convolution whose
    halves feed different layers makes two. Channels that nothing reads are the network's output.

    Args:
        graph: nodes with dependencies, triggers, handlers and index mappings.
        names: ``id`` of every floating-point tensor of the model -> its name, in order.

    Returns:
        Group name -> group, in the order of their first tensor.
    """
    flow = _Flow(graph, names)
    channels: dict[int, _Channel] = {}
    known_slots: dict[tuple[str, int], Slot] = {}
    for (node, handler), labels in flow.seen.items():
        pruner = graph.get_pruner_of_module(node.module)
        is_input = handler == pruner.prune_in_channels
        is_output = handler == pruner.prune_out_channels
        here = find_slots(node.module, is_input, is_output, names)
        known_slots |= {(slot.tensor, slot.dim): slot for slot in here}
        rigid = flow.is_rigid(node) or (is_output and not node.outputs)
        for position, label in labels.items():
            channel = channels.setdefault(flow.find(label), _Channel())
            channel.is_rigid |= rigid or position >= flow.longest[node]
            _add(channel, here, position)
    return _sort(channels, known_slots, {name: i for i, name in enumerate(names.values())})


def _add(channel: _Channel, here: list[Slot], position: int) -> None:
    for slot in here:
        if position < slot.size:
            channel.places.setdefault((slot.tensor, slot.dim), []).append(position)
            channel.is_read |= slot.reads
        else:
            channel.is_rigid = True


def _sort(
    channels: Mapping[int, _Channel],
    known_slots: Mapping[tuple[str, int], Slot],
    order: Mapping[str, int],
) -> dict[str, Group]:
    alike: dict[Any, list[_Channel]] = {}
    for channel in channels.values():
        if channel.places:
            places = sorted(channel.places, key=lambda place: (order[place[0]], place[1]))
            counts = tuple((place, len(channel.places[place])) for place in places)
            alike.setdefault((counts, channel.is_protected), []).append(channel)
    groups: dict[str, Group] = {}
    for (counts, _), members in sorted(
        alike.items(), key=lambda item: (order[item[0][0][0][0][0]], min(_first(item[1], item[0])))
    ):
        group = _group([known_slots[place] for place, _ in counts], members, groups)
        groups[group.name] = group
    return groups


def _first(members: list[_Channel], signature: Any) -> list[int]:
    place = signature[0][0][0]
    return [min(channel.places[place]) for channel in members]


def _group(axes: list[Slot], channels: list[_Channel], taken: Mapping[str, Group]) -> Group:
    lead = (axes[0].tensor, axes[0].dim)
    channels = sorted(channels, key=lambda channel: min(channel.places[lead]))
    members: list[Member] = []
    block, is_aligned = 1, True
    for slot in axes:
        rows = [sorted(channel.places[slot.tensor, slot.dim]) for channel in channels]
        index = torch.tensor(rows, dtype=torch.int64)
        members.append(Member(slot.tensor, slot.dim, index, slot.produces))
        if slot.block > 1:
            block = math.lcm(block, slot.block)
            is_aligned &= torch.equal(index, torch.arange(slot.size)[:, None])
    maker = next((slot.tensor for slot in axes if slot.produces), axes[0].tensor)
    base = maker.rpartition(".")[0] or maker
    same = sum(name == base or name.startswith(f"{base}#") for name in taken)
    is_protected = channels[0].is_protected or not is_aligned or len(channels) % block > 0
    return Group(
        name=f"{base}#{same}" if same else base,
        width=len(channels),
        members=tuple(members),
        block=1 if is_protected else block,
        protected=is_protected,
    )


class _Flow:
    """Number the channels: positions that must leave together get one label."""

    def __init__(self, graph: Any, names: Mapping[int, str]) -> None:
        self.names = names
        self.rigid: dict[Any, bool] = {}
        self.parent: list[int] = []
        self.seen: dict[Side, dict[int, int]] = {}
        self.longest: dict[Any, int] = {
            node: max(count_values(near) for near in (node, *node.inputs))
            for node in graph.module2node.values()
        }
        layers = [n for n in graph.module2node.values() if n.type.name in ("CONV", "LINEAR")]
        for node in layers:  # with a single position its channels may outnumber its output
            self.longest[node] = max(self.longest[node], *node.module.weight.shape[:2])
        for node in layers:
            pruner = graph.get_pruner_of_module(node.module)
            self._follow((node, pruner.prune_out_channels), graph.get_out_channels(node))

    def find(self, label: int) -> int:
        """Return the label that stands for all joined with this one."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def is_rigid(self, node: Any) -> bool:
        """Tell whether channels that meet this node cannot leave; judged once per node."""
        if node not in self.rigid:
            self.rigid[node] = is_rigid(node, self.names)
        return self.rigid[node]

    def _follow(self, side: Side, width: int) -> None:
        count = len(self.parent)
        self.parent.extend(range(count, count + width))
        todo = [(side, self._arrive(side, [_Position(i, count + i) for i in range(width)]))]
        while todo:
            (node, handler), positions = todo.pop()
            for edge in node.dependencies:
                if edge.trigger == handler:
                    mapped: list[Any] = positions
                    for mapping in edge.index_mapping:
                        mapped = mapping(mapped) if mapping is not None else mapped
                    target = (edge.target, edge.handler)
                    fresh = self._arrive(target, mapped)
                    # Whatever lies behind a rigid node meets it too, and is protected like this.
                    if fresh and not self.is_rigid(edge.target):
                        todo.append((target, fresh))

    def _arrive(self, side: Side, positions: list[Any]) -> list[Any]:
        """Label a side; return the positions to follow: those that had no label yet."""
        arrived = self.seen.setdefault(side, {})
        fresh = []
        for position in positions:
            if position.idx not in arrived:
                arrived[position.idx] = position.root_idx
                # On no axis: round a loop of reshapes such positions would grow for ever.
                if position.idx < self.longest[side[0]]:
                    fresh.append(position)
            else:
                self.parent[self.find(arrived[position.idx])] = self.find(position.root_idx)
        return fresh
