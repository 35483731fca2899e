"""Random streams, derived from what they are for and never carried from round to round.

A stream that depends only on (seed, purpose, round, client) needs no saved state: a resumed run,
another number of workers or another order of clients draws the same numbers. Torch is imported by
those functions alone that draw with it, so that plain text can be read without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, round: int = 0, client: int = 0) -> int:
    """Return the 63-bit seed that belongs to one purpose, round and client.

    >>> derive(0, "init") == derive(0, "init"), derive(0, "init") == derive(1, "init")
    (True, False)
    """
    text = f"{seed}/{purpose}/{round}/{client}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def draw_uniform(seed: int, purpose: str, round: int = 0, client: int = 0) -> float:
    """Return one uniform number strictly between 0 and 1 (see :func:`derive`)."""
    # 52 bits and a half keep the fraction strictly between 0 and 1 in floating point.
    return ((derive(seed, purpose, round, client) >> 11) + 0.5) / 2**52


def stream(seed: int, purpose: str, round: int = 0, client: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose, round and client (see :func:`derive`)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, round, client))


@contextmanager
def seed_torch(
    seed: int, purpose: str, round: int = 0, client: int = 0, *, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Let torch's global generator be that of one purpose, round and client; then it is as before.

    Layers such as dropout draw from it.

    Args:
        device: where is computed.
    """
    import torch

    device = torch.device(device)
    # On a CPU no other device is seeded: torch would note for each from where it was asked to.
    seeded = torch.default_generator if device.type == "cpu" else torch
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seeded.manual_seed(derive(seed, purpose, round, client))
        yield
