"""Producers: the layers that make a group's channels, and what can be seen of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fpcli.structure.layout import Group, Layout


def list_producers(layout: Layout) -> list[str]:
    """Return the names of the convolutions and linear layers that make prunable channels."""
    made = [
        member.tensor.rpartition(".")[0]
        for group in layout.prunable.values()
        for member in group.members
        if member.produces
    ]
    return list(dict.fromkeys(made))


def sum_scores(layout: Layout, per_layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put scores per output channel of layers together to scores of groups.

    Args:
        layout: the groups.
        per_layer: layer -> ``[output channels]``, for every layer of :func:`list_producers`.

    Returns:
        Prunable group -> ``[width]``; the layers that make one group (residual sums) add up.
    """
    return {name: _sum(group, per_layer) for name, group in layout.prunable.items()}


def _sum(group: Group, per_layer: Mapping[str, Tensor]) -> Tensor:
    parts = [
        per_layer[member.tensor.rpartition(".")[0]][member.index].sum(1)
        for member in group.members
        if member.produces
    ]
    return torch.stack(parts).sum(0)


@contextmanager
def watch_outputs(
    model: nn.Module, layers: list[str], see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``see`` with a layer's name and its output whenever one of the layers has run."""

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: see(name, output)

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_input(model: nn.Module, layer: str, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Call ``see`` with the input of a layer whenever it is about to run."""
    module = dict(model.named_modules())[layer]
    handle = module.register_forward_pre_hook(lambda module, inputs: see(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def find_classifier(model: nn.Module, x: Tensor) -> str:
    """Return the name of the convolution or linear layer that runs last on a batch."""
    layers = [name for name, part in model.named_modules() if isinstance(part, _ConvNd | nn.Linear)]
    order: list[str] = []
    with watch_outputs(model, layers, lambda name, output: order.append(name)):
        model(x)
    return order[-1]


def reshape_to_maps(layer: nn.Module, output: Tensor) -> Tensor:
    """Return an output as one map per channel, ``[b, channels, positions]``.

    A linear layer has its channels on the last axis; without further axes a map is one number.
    """
    if isinstance(layer, nn.Linear):
        output = output.movedim(-1, 1)
    return output.flatten(2) if output.dim() > 2 else output[:, :, None]
