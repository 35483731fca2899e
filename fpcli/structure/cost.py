"""Cost: parameters, multiply-adds and bytes of a sub-model, without running it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fpcli.structure.layout import Layout
from fpcli.structure.support import Support

BYTES_PER_FLOAT = 4
_aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """What a sub-model weighs.

    Attributes:
        params: alive parameters.
        macs: multiply-adds of convolutions and matrix products, per sample and forward pass.
        bytes: 4 per alive float, buffers included; what a dense transfer of the block takes.
    """

    params: int
    macs: float
    bytes: int


def count_cost(layout: Layout, support: Support) -> Cost:
    """Return the cost of a support; a masked weight saves its multiply-adds.

    >>> from fpcli.structure.layout import TensorSpec
    >>> count_cost(Layout({"fc.weight": TensorSpec((3, 2), True, 1.0)}, {}), Support())
    Cost(params=6, macs=6.0, bytes=24)
    """
    alive = support.count(layout)
    macs = sum(alive[name] * spec.uses for name, spec in layout.tensors.items())
    params = sum(alive[name] for name, spec in layout.tensors.items() if spec.is_parameter)
    return Cost(params, macs + layout.fixed_macs, BYTES_PER_FLOAT * sum(alive.values()))


class Macs(NamedTuple):
    """Multiply-adds per sample of one forward pass.

    Attributes:
        by_tensor: of products in which a parameter of 2 or more dimensions is a factor, by its
            name.
        total: these, and products of activations.
        complex_names: parameters that the network views as complex numbers.
    """

    by_tensor: dict[str, float]
    total: float
    complex_names: frozenset[str]


def count_macs(model: nn.Module, example: Tensor) -> Macs:
    """Run a model once and count multiply-adds per sample with torch's flop counter.

    It knows convolutions and matrix products. Here an elementwise product with a parameter that is
    viewed as complex counts as well: one multiply-add for each real number that comes out, four for
    each complex one. Transforms by ``torch.fft`` do not count.

    Args:
        model: is run as it is (mode and device), in grad mode: without it attention takes a fused
            path that the counter does not see.
        example: one batch.
    """
    root = type(model).__name__
    counter, factors = FlopCounterMode(display=False), _Factors(model)
    with torch.enable_grad(), factors, counter:
        model(example)
    flops, by_module = factors.flops, counter.get_flop_counts()
    for name, module in model.named_modules():
        of_module = sum(by_module.get(f"{root}.{name}".rstrip("."), {}).values())
        weight = f"{name}.weight".lstrip(".")
        # It may calculate with a copy of its weight, which lies elsewhere.
        if isinstance(module, _ConvNd | nn.Linear) and of_module and weight not in flops:
            flops[weight] = of_module
    total, scale = counter.get_total_flops() + factors.elementwise_flops, 2.0 * len(example)
    by_tensor = {name: number / scale for name, number in flops.items()}
    return Macs(by_tensor, total / scale, frozenset(factors.complex_names))


class _Factors(TorchDispatchMode):
    """Adds up floating-point operations by the parameter in whose memory a factor lies."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.elementwise_flops = 0
        self.complex_names: set[str] = set()
        self._names = {
            x.untyped_storage()._cdata: name for name, x in model.named_parameters() if x.dim() > 1
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operation = getattr(func, "overloadpacket", func)
        formula = flop_registry.get(operation)
        if formula or operation in (_aten.mul, _aten.view_as_complex):
            memory = [x.untyped_storage()._cdata for x in args if isinstance(x, Tensor)]
            name = next((self._names[place] for place in memory if place in self._names), None)
            if operation is _aten.view_as_complex:
                self.complex_names |= {name} if name else set()
            elif formula and name:
                self.flops[name] += formula(*args, **kwargs, out_val=out)
            elif name in self.complex_names:
                flops = out.numel() * (8 if out.is_complex() else 2)
                self.flops[name] += flops
                self.elementwise_flops += flops
        return out
