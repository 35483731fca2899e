"""Where a module computes."""

from __future__ import annotations

import torch
from torch import nn


def place(module: nn.Module, device: str, is_channels_last: bool) -> nn.Module:
    """Move a module to a device, with its images' channels last in memory or first."""
    module = module.to(device)
    return module.to(memory_format=torch.channels_last) if is_channels_last else module
