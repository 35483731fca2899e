"""Infinite feature selection: which features of a table vary much and repeat each other little."""

from __future__ import annotations

import torch
from torch import Tensor

from fpcli.errors import RecipeError


def select_infinite_features(
    responses: Tensor, *, alpha: float = 0.5, radius: float = 0.9
) -> Tensor:
    """Score every feature by its part in paths of any length between features.

    Edges are ``alpha * max(deviations) + (1 - alpha) * (1 - |rank correlation|)``; paths of length
    l count with ``r^l``, where r brings the spectral radius of the edges to ``radius``.

    Args:
        responses: ``[samples, features]``.
        alpha: weight of the deviations, in [0, 1].
        radius: below 1.

    Returns:
        ``[features]``, float64; 0 for a constant feature, which has no rank correlation.

    Raises:
        RecipeError: all features are constant.

    Source: Roffo et al., "Infinite Feature Selection", ICCV 2015; both constants as in public
    implementations of NISP, constant features and population deviations ours.

    >>> select_infinite_features(torch.tensor([[1.0, 0.0, 7.0], [2.0, 3.0, 7.0]]))[2].item()
    0.0
    """
    table = responses.double()
    varies = table.amax(0) > table.amin(0)
    if not bool(varies.any()):
        raise RecipeError(
            "score `nisp-inffs`: no input of the classifier depends on the image",
            hint="the network is dead, or there is only one image",
        )
    table = table[:, varies]
    spread = table.std(0, correction=0)
    edges = alpha * torch.maximum(spread[:, None], spread) + (1 - alpha) * (
        1 - correlate_ranks(table).abs()
    )
    scale = radius / torch.linalg.eigvalsh(edges).abs().max()
    identity = torch.eye(len(edges), dtype=torch.float64)
    # (I - rA)^-1 - I = (I - rA)^-1 rA: one solve instead of an inverse.
    score = torch.linalg.solve(identity - scale * edges, (scale * edges).sum(1))
    result = torch.zeros(len(varies), dtype=torch.float64)
    result[varies] = score
    return result


def correlate_ranks(table: Tensor) -> Tensor:
    """Return the rank correlations of the columns, equal values sharing their mean rank.

    Args:
        table: ``[samples, features]``, no feature constant.

    >>> round(correlate_ranks(torch.tensor([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]]))[0, 1].item(), 6)
    -1.0
    """
    columns = table.double().T.contiguous()
    ordered = columns.sort(1).values
    below = torch.searchsorted(ordered, columns)
    up_to = torch.searchsorted(ordered, columns, right=True)
    centred = (below + up_to).double() / 2
    centred = centred - centred.mean(1, keepdim=True)
    centred = centred / centred.norm(dim=1, keepdim=True)
    return centred @ centred.T
