"""Samples that a client keeps out of its training, to judge models by."""

from __future__ import annotations

from dataclasses import replace

import torch

from fpcli.data.split import Split
from fpcli.engine.client import ClientContext
from fpcli.rng import stream


def hold_out(cx: ClientContext, share: float, purpose: str) -> tuple[ClientContext, Split]:
    """Return the client with the data that it still trains on, and the samples held out.

    The draw knows no round: what judges a model is never trained on. A client with a single sample
    keeps it for both.

    Args:
        share: of its samples that are held out, in (0, 1); at least one, and never all.
        purpose: names the random stream.
    """
    site = cx.site
    part = site.parts[cx.client]
    num_held = min(max(round(share * len(part)), 1), len(part) - 1)
    if not num_held:
        return cx, site.dataset.train.take(part)
    rng = stream(site.seed, purpose, client=cx.client)
    held, rest = torch.randperm(len(part), generator=rng).tensor_split([num_held])
    sizes = tuple(len(rest) * (client == cx.client) for client in range(len(site.sizes)))
    narrow = replace(site, indices=part[rest.sort().values], sizes=sizes)
    return replace(cx, site=narrow), site.dataset.train.take(part[held])
