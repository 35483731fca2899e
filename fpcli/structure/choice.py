"""Which layers sparse kernels make faster: measured on this machine, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.structure.layout import Tensors
from fpcli.structure.sparse_kernels import can_be_sparse, make_sparse, use_sparse
from fpcli.structure.stopwatch import TimedRun, Times, time_in_rotation

Timer = Callable[[Sequence[TimedRun]], Sequence[Times]]
"""Measures rivals; tests put in one that needs no time."""

in_earnest: Timer = partial(time_in_rotation, budget_s=0.05)
"""Long enough for a decision."""

WORTH = 0.9
"""Share of the dense time that the sparse one must be below; what is nearer may be chance."""

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Shares of alive weights at which layers are tried, falling."""


@dataclass(frozen=True)
class LayerChoice:
    """What was decided for one layer.

    Attributes:
        name: of its weight.
        density: share of its weights that is alive.
        dense_s, sparse_s: median seconds of its forward pass.
    """

    name: str
    density: float
    dense_s: float
    sparse_s: float
    is_sparse: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that can be sparse, and one of its inputs."""

    module: nn.Linear | nn.Conv2d
    example: Tensor

    @property
    def key(self) -> tuple[object, ...]:
        """What its speed depends on; layers with equal keys need one measurement."""
        convolution = self.module if isinstance(self.module, nn.Conv2d) else None
        shapes = (tuple(self.module.weight.shape), tuple(self.example.shape))
        if convolution is None:
            return shapes
        return (*shapes, convolution.stride, convolution.padding, convolution.dilation)


def draw_example(
    shape: Sequence[int], batch: int, *, channels_last: bool = False, num_ids: int = 0
) -> Tensor:
    """Return a batch of random samples, the same every time.

    Args:
        shape: of one sample.
        channels_last: lay images out with the channel as the last axis.
        num_ids: samples are ids from 1 to this one, int64; 0 means numbers in [0, 1).
    """
    generator = torch.Generator().manual_seed(0)
    if num_ids:
        return torch.randint(1, num_ids + 1, (batch, *shape), generator=generator)
    x = torch.rand(batch, *shape, generator=generator)
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x


@torch.no_grad()
def list_sparse_layers(model: nn.Module, example: Tensor) -> dict[str, Layer]:
    """Return weight -> layer of everything that can be sparse, with the inputs it meets.

    Args:
        model: is run once, in evaluation mode, and left in the mode that it was in.
        example: a batch; its size is that of all measurements.
    """
    layers: dict[str, Layer] = {}
    handles = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Linear | nn.Conv2d)
            layers.setdefault(name, Layer(module, inputs[0].detach()))

        return hook

    for path, module in model.named_modules():
        if can_be_sparse(module):
            name = f"{path}.weight" if path else "weight"
            handles.append(module.register_forward_pre_hook(note(name)))
    was_training = model.training
    try:
        model.eval()(example)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return layers


def forward_run(module: nn.Module, example: Tensor) -> TimedRun:
    """Return a forward pass in evaluation mode, ready to be timed."""
    module.eval()

    def run() -> None:
        with torch.no_grad():
            module(example)

    return run


def time_training(module: nn.Module, example: Tensor) -> TimedRun:
    """Return a forward and a backward pass, the gradient by the input included."""
    module.train()
    x = example.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    gradient = torch.ones_like(module(x))

    def run() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        module(x).backward(gradient)

    return run


_RUNS = {"evaluate": forward_run, "train": time_training}
Use = Literal["evaluate", "train"]


def make_rivals(layer: Layer, mask: Tensor, use: Use = "evaluate") -> list[TimedRun]:
    """Return the dense and the sparse way of computing a layer, on copies of it.

    Args:
        mask: bool, of the weight's shape; what it leaves out is 0 in both.
    """
    dense = copy.deepcopy(layer.module)
    # As the weight lies in memory, since the kernels care.
    dense.weight = nn.Parameter(torch.where(mask, dense.weight.detach(), 0.0))
    return [_RUNS[use](rival, layer.example) for rival in (dense, make_sparse(dense, mask))]


def sparsify(
    model: nn.Module,
    masks: Tensors | None,
    example: Tensor,
    choose: Literal["auto", "always"] = "auto",
    *,
    timer: Timer = in_earnest,
) -> tuple[nn.Module, list[LayerChoice]]:
    """Let a model skip its masked weights in evaluation, wherever that is faster; in place.

    Args:
        masks: weight -> mask; None takes the zeros of the weights for it.
        example: a batch of the size that the model will meet: small batches gain less.
        choose: ``auto`` measures each layer both ways, ``always`` does not ask.

    Returns:
        The model, and what was decided for each layer that has a mask, in its order.
    """
    choices = []
    layers = list_sparse_layers(model, example)
    if masks is None:
        masks = {name: layer.module.weight.detach() != 0 for name, layer in layers.items()}
    masks = {name: masks[name] for name in layers if name in masks and not bool(masks[name].all())}
    for name, mask in masks.items():
        dense, sparse = 0.0, 0.0
        if choose == "auto":
            dense, sparse = (t.median_s for t in timer(make_rivals(layers[name], mask)))
        is_sparse = choose == "always" or sparse < WORTH * dense
        choices.append(LayerChoice(name, float(mask.float().mean()), dense, sparse, is_sparse))
    return use_sparse(model, masks, {c.name for c in choices if c.is_sparse}), choices


def draw_mask(weight: Tensor, density: float) -> Tensor:
    """Return a mask of a density, drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(weight.shape, generator=generator) < density


def measure_ratios(
    layer: Layer,
    use: Use = "evaluate",
    *,
    densities: Sequence[float] = DENSITIES,
    timer: Timer = time_in_rotation,
) -> dict[float, float]:
    """Return density -> seconds of the sparse way over seconds of the dense way."""
    out = {}
    for density in densities:
        dense, sparse = timer(make_rivals(layer, draw_mask(layer.module.weight, density), use))
        out[density] = sparse.median_s / dense.median_s
    return out


def find_limit(layer: Layer, use: Use, *, timer: Timer = in_earnest) -> float:
    """Return the density at and below which the sparse way is clearly faster; 0 where it never is.

    It is one of ``DENSITIES``; from the lowest on, the first at which dense wins ends the search.
    """
    best = 0.0
    for density in reversed(DENSITIES):
        if measure_ratios(layer, use, densities=(density,), timer=timer)[density] >= WORTH:
            break
        best = density
    return best


@dataclass(frozen=True)
class Limits:
    """Weight -> density at and below which its layer is sparse, for both uses of a network.

    What is absent is dense.
    """

    train: Mapping[str, float] = field(default_factory=dict)
    evaluate: Mapping[str, float] = field(default_factory=dict)


def find_limits(
    model: nn.Module, example: Tensor, use: Use, *, timer: Timer = in_earnest
) -> dict[str, float]:
    """Return weight -> the density at and below which its layer should be sparse; 0 means never.

    Args:
        model: with values.
        example: a batch of the size that the model will meet.
    """
    limits: dict[tuple[object, ...], float] = {}
    out = {}
    for name, layer in list_sparse_layers(model, example).items():
        if layer.key not in limits:
            limits[layer.key] = find_limit(layer, use, timer=timer)
        out[name] = limits[layer.key]
    return out


def list_within(masks: Tensors, limits: Mapping[str, float]) -> set[str]:
    """Return the weights whose masks are sparse enough; a whole weight never is.

    >>> masks = {"a": torch.tensor([True, False]), "b": torch.tensor([True, True])}
    >>> list_within(masks, {"a": 0.5, "b": 1.0})
    {'a'}
    """
    shares = {name: float(masks[name].float().mean()) for name in masks if name in limits}
    return {name for name, share in shares.items() if share < 1 and share <= limits[name]}
