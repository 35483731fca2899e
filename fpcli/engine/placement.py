"""Where a module computes."""

from __future__ import annotations

import torch
from torch import nn

from fpcli.errors import NeedError, suggest


def move_to(module: nn.Module, device: str, is_channels_last: bool) -> nn.Module:
    """Move a module to a device, with its images' channels last in memory or first."""
    module = module.to(device)
    return module.to(memory_format=torch.channels_last) if is_channels_last else module


def check_device(name: str, key: str) -> None:
    """Check that torch can compute on a device.

    Args:
        name: of the device.
        key: of the recipe, which says so.

    Raises:
        NeedError: it cannot.
    """
    try:
        torch.device(name)
        hint = ""
    except RuntimeError:
        hint = suggest(name, ("cpu", "cuda", "mps"))
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise NeedError(
            f"device `{name}` cannot be used: {str(error).splitlines()[0]}",
            hint=hint or "`fp doctor` lists the devices of this machine",
            where=key,
        ) from error
