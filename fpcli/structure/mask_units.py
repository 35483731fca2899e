"""Units: the parts of a weight matrix that stay or leave as one, and which of them leave.

A matrix is ``[out, in]``; the weight of a convolution counts as ``[out, in * kernel]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fpcli.structure.budget import drop_smallest
from fpcli.structure.layout import Tensors

PATTERNS = ("row", "column", "half-row", "half-column", "element")
"""Names of patterns, beside ``block:AxB``."""

_BLOCK = re.compile(r"block:([1-9]\d*)x([1-9]\d*)")
_TURNED = {"row": "column", "column": "row", "half-row": "half-column", "half-column": "half-row"}


def turn_pattern(pattern: str) -> str:
    """Return the pattern that means the same of the transposed matrix.

    Raises:
        ValueError: there is no such pattern.

    >>> turn_pattern("half-row"), turn_pattern("block:4x2"), turn_pattern("element")
    ('half-column', 'block:2x4', 'element')
    """
    block = _BLOCK.fullmatch(pattern)
    if not block and pattern not in PATTERNS:
        raise ValueError(f"pattern is `{pattern}`; it is {', '.join(PATTERNS)} or block:AxB")
    return f"block:{block[2]}x{block[1]}" if block else _TURNED.get(pattern, pattern)


def number_units(shape: Sequence[int], pattern: str) -> Tensor:
    """Return the unit that each entry belongs to: int64 ``[out, in * kernel]``.

    Args:
        shape: of a weight, two or more dimensions.
        pattern: ``row``; ``column``; ``half-row``, a row's entries left or right of the middle, and
            ``half-column``, a column's above or below it (both split at ``floor(size / 2)``, and
            whole where there is only one entry); ``block:AxB``, A rows by B columns, smaller at the
            lower and the right edge; ``element``. Rows and blocks are counted row by row, columns
            from the left, the two halves of one after the other.

    >>> number_units((2, 3), "half-row").tolist(), number_units((2, 3), "half-column").tolist()
    ([[0, 1, 1], [2, 3, 3]], [[0, 2, 4], [1, 3, 5]])
    >>> number_units((3, 3), "block:2x2").tolist()
    [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    """
    height, width = shape[0], math.prod(shape[1:])
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    if block := _BLOCK.fullmatch(pattern):
        tall, wide = int(block[1]), int(block[2])
        return rows // tall * math.ceil(width / wide) + columns // wide
    if pattern == "row":
        return rows.repeat(1, width)
    if pattern == "half-row":
        return 2 * rows + (columns >= width // 2) if width > 1 else rows
    if pattern == "element":
        return rows * width + columns
    # In the usual order in memory, since sums over masks depend on it.
    return number_units((width, height), turn_pattern(pattern)).t().contiguous()


def average_units(entries: Tensor, units: Tensor) -> Tensor:
    """Return the mean of every unit's entries, float64.

    Args:
        entries: of a weight, of any shape.
        units: of :func:`number_units`.
    """
    flat = units.flatten()
    return flat.bincount(entries.flatten().double()) / flat.bincount()


def drop_by_layer(scores: Tensors, share: float) -> dict[str, Tensor]:
    """Return which units stay, bool, when every tensor loses the same share of its units.

    Args:
        scores: tensor name -> ``[units]``; of equal scores the lower index leaves first.
        share: rounded down to whole units.

    >>> drop_by_layer({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([9.0, 8.0])}, 0.5)
    {'a': tensor([ True, False]), 'b': tensor([ True, False])}
    """
    return {name: drop_smallest({name: x}, share)[name] for name, x in scores.items()}


def drop_over_layers(
    scores: Tensors, sizes: Tensors, share: float, cap: float
) -> dict[str, Tensor]:
    """Return which units stay, bool, when those of all tensors compete.

    Scores are divided by their root mean square within the tensor. The lowest leave until the
    weights in them are the share of all weights, or more; of a tensor's units no more than ``cap``
    leaves.

    Args:
        scores: tensor name -> ``[units]``. Infinite ones leave first, or last, and have no part in
            the root mean square. Of equal scores the earlier tensor and the lower index leave.
        sizes: tensor name -> int64 ``[units]``, weights in each.
        share: of all weights, that leaves.
        cap: share of a tensor's units, rounded down to whole units.

    >>> two = {"a": torch.tensor([1.0, 7.0]), "b": torch.tensor([0.3, 0.1, 0.4])}
    >>> sizes = {"a": torch.tensor([3, 3]), "b": torch.tensor([2, 2, 2])}
    >>> drop_over_layers(two, sizes, 0.4, 0.9)
    {'a': tensor([False,  True]), 'b': tensor([ True, False,  True])}
    """
    names, ranked, counts, places = list(scores), [], [], []
    for number, name in enumerate(names):
        x = scores[name].double()
        finite = x[x.isfinite()]
        scale = float(finite.square().mean().sqrt()) if len(finite) else 0.0
        order = x.sort(stable=True).indices[: math.floor(cap * len(x) + 1e-9)]
        ranked.append(x[order] / (scale or 1.0))
        counts.append(sizes[name][order])
        places.append(torch.stack([torch.full_like(order, number), order]))
    total = sum(int(size.sum()) for size in sizes.values())
    order = torch.cat(ranked).sort(stable=True).indices
    removed = torch.cat(counts)[order].cumsum(0)
    # Whoever comes when enough has left may stay; the small number is for shares such as 0.1 * 10.
    leaves = order[(removed - torch.cat(counts)[order]) < share * total - 1e-9]
    where = torch.cat(places, 1)[:, leaves]
    stays = {name: torch.ones(len(x), dtype=torch.bool) for name, x in scores.items()}
    for number, name in enumerate(names):
        stays[name][where[1][where[0] == number]] = False
    return stays


def let_return(
    scores: Tensors, stays: Mapping[str, Tensor], share: float, rng: torch.Generator
) -> dict[str, Tensor]:
    """Return scores with which units that have left stay away, but for a few drawn at random.

    Args:
        scores: tensor name -> ``[units]``.
        stays: tensor name -> bool, which are there.
        share: of each tensor's units that have left, rounded down to whole units, whose score
            becomes infinite; the others get minus infinity.
        rng: draws, tensor after tensor; nothing where the share is 0.

    >>> gone = {"a": torch.tensor([True, False])}
    >>> let_return({"a": torch.tensor([1.0, 9.0])}, gone, 0.0, torch.Generator())
    {'a': tensor([1., -inf])}
    """
    new = {}
    for name, x in scores.items():
        gone = (~stays[name]).nonzero().flatten()
        new[name] = x.index_fill(0, gone, -math.inf)
        if num := math.floor(share * len(gone) + 1e-9):
            drawn = gone[torch.randperm(len(gone), generator=rng)[:num]]
            new[name][drawn] = math.inf
    return new


def list_kept_units(units: Tensor, mask: Tensor | None) -> Tensor:
    """Return which units have an entry on a mask, bool ``[units]``; without a mask all have.

    >>> list_kept_units(torch.tensor([[0, 0, 1]]), torch.tensor([[True, True, False]]))
    tensor([ True, False])
    """
    num = int(units.max()) + 1
    if mask is None:
        return torch.ones(num, dtype=torch.bool)
    return units[mask.flatten(1)].bincount(minlength=num) > 0


def write_bits(bits: Tensor) -> str:
    """Return bits as hexadecimal text, the first one as the highest.

    >>> write_bits(torch.tensor([True, False, True, True, False])), read_bits("b0", 5).tolist()
    ('b0', [True, False, True, True, False])
    """
    return np.packbits(bits.numpy()).tobytes().hex()


def read_bits(text: str, num: int) -> Tensor:
    """Return the first ``num`` bits of what :func:`write_bits` wrote."""
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    return torch.from_numpy(np.unpackbits(packed, count=num).astype(bool))
