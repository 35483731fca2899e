"""Gates: switch channels of a whole network off and on without cutting it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.structure.layout import Group


@contextmanager
def gate_channels(
    model: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, Tensor],
    *,
    is_straight_through: bool = False,
) -> Iterator[None]:
    """Multiply channels by their masks wherever a layer reads them, while the context lasts.

    Every reader sees the map after batch norm and activation, so that a network with gates
    computes what the physically pruned network computes: masking a convolution before its batch
    norm would leave the shift of the batch norm behind.

    Args:
        model: the full network of the layout that the groups belong to.
        groups: whose channels the masks are for; each needs readers of its own.
        masks: group -> float ``[width]`` of 0 and 1; written to in place, they act at once.
        is_straight_through: masked channels still get the gradient of their readers.
    """
    handles = []
    for name, places in _readers(groups).items():
        module = model.get_submodule(name)
        hook = _gate(places, masks, is_straight_through)
        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _readers(groups: Sequence[Group]) -> dict[str, list[tuple[str, Tensor]]]:
    """Return for every layer that reads channels their groups and places on its input."""
    readers: dict[str, list[tuple[str, Tensor]]] = {}
    for group in groups:
        for member in group.members:
            if member.dim == 1 and not member.produces and member.tensor.endswith("weight"):
                name = member.tensor.rpartition(".")[0]
                readers.setdefault(name, []).append((group.name, member.index))
    return readers


def _gate(
    places: Sequence[tuple[str, Tensor]], masks: Mapping[str, Tensor], is_straight_through: bool
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        axis = -1 if isinstance(module, nn.Linear) else 1
        factors = torch.ones(x.shape[axis], device=x.device, dtype=x.dtype)
        for group, index in places:
            factors[index.to(x.device)] = masks[group].to(factors)[:, None].expand(index.shape)
        shape = [1] * x.dim()
        shape[axis] = -1
        gated = x * factors.view(shape)
        if is_straight_through:
            gated = x + (gated - x).detach()
        return (gated, *inputs[1:])

    return hook
