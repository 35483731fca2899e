"""fpcli: prune neural networks, and train them federated with pruning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load(
    path: str | Path,
    *,
    code: str = "",
    kernels: Literal["dense", "auto", "always"] = "dense",
    batch_size: int = 1,
) -> nn.Module:
    """Return the network of a file that `fp export` wrote; see ``fpcli.export.load``."""
    # Here, because importing fpcli must not import torch.
    from fpcli.export.load import load as load_file

    return load_file(path, code=code, kernels=kernels, batch_size=batch_size)
