"""Feature-map rank: how many independent rows the map of a channel has, on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fpcli.scores.producers import list_producers, sum_scores, watch_outputs
from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout, Tensors

NUM_IMAGES = 500
"""Images that are looked at, the first ones of a sample."""

_FOLLOWING = frozenset(
    {
        F.batch_norm, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardtanh,
        F.prelu, torch.relu, torch.relu_, torch.tanh, torch.sigmoid, Tensor.relu, Tensor.relu_,
        Tensor.tanh, Tensor.sigmoid,
    }
)  # fmt: skip
"""Functions behind a layer that still belong to its map."""


@torch.no_grad()
def feature_rank(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the rank of its map, averaged over the first 500 images.

    The map is taken behind the batch norm and the activation that directly follow the layer. Ranks
    of small maps tie often (a linear layer's map is one number). Layers that make one group add up.

    Returns:
        Prunable group -> ``[width]``, larger = keep.

    Source: Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020, as used for
    FedAP; 500 images as in the official code of FedDUAP.
    """
    model = sample.module(values)
    seen: dict[str, list[Tensor]] = {}

    def finish(name: str, output: Tensor) -> None:
        seen.setdefault(name, []).append(_ranks(output.float()))

    follower = _Follower(finish)
    with watch_outputs(model, list_producers(layout), follower.begin):
        for x in _first(sample, NUM_IMAGES):
            with follower:
                model(x)
            follower.end()
    return sum_scores(layout, {name: torch.cat(parts).mean(0) for name, parts in seen.items()})


def _first(sample: Sample, count: int) -> Iterable[Tensor]:
    for x, _ in sample.batches:
        if count > 0:
            yield x[:count]
        count -= len(x)


def _ranks(output: Tensor) -> Tensor:
    """Return the rank of every map, ``[b, channels]``, as float64."""
    if output.dim() == 4:
        return torch.linalg.matrix_rank(output).double()
    flat = output if output.dim() == 2 else output.movedim(-1, 1).flatten(2).abs().amax(2)
    return (flat != 0).double()


class _Follower(TorchFunctionMode):
    """Follow outputs of layers until something else than their norm or activation reads them.

    Args:
        finish: takes a layer's name and its map, before anything can overwrite it.
    """

    def __init__(self, finish: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self._finish = finish
        self._open: dict[int, tuple[str, Tensor]] = {}

    def begin(self, name: str, output: Tensor) -> None:
        """Follow the output of a layer."""
        self._open[id(output)] = (name, output)

    def end(self) -> None:
        """Finish what nothing else has read."""
        for name, output in self._open.values():
            self._finish(name, output)
        self._open = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; pass the name on to its result, or finish the map that it reads."""
        kwargs = kwargs or {}
        read = [id(x) for x in args if isinstance(x, Tensor) and id(x) in self._open]
        word = getattr(func, "__name__", "")
        overwrites = word.startswith("__i") or (word.endswith("_") and not word.endswith("__"))
        if read and overwrites and func not in _FOLLOWING:
            self._close(read)
        result = func(*args, **kwargs)
        if read and func in _FOLLOWING:
            self.begin(self._open.pop(read[0])[0], result)
        elif isinstance(result, Tensor | tuple | list):
            # Not so after a mere look at the shape.
            self._close(read)
        return result

    def _close(self, read: Iterable[int]) -> None:
        for key in read:
            if key in self._open:
                self._finish(*self._open.pop(key))
