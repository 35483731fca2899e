"""fpcli: prune neural networks, and train them federated with pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fpcli.version import __version__

if TYPE_CHECKING:
    from fpcli.export.load_model import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what ``fpcli`` offers when it is asked for: importing fpcli must not import torch."""
    if name == "load":
        from fpcli.export.load_model import load

        return load
    raise AttributeError(f"module `fpcli` has no attribute `{name}`")
