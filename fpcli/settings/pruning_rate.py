"""How a pruning rate is read from the curvature of a loss, as options of a method that does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True)
class RateRule:
    """Where a rate comes from."""

    rate_rule: Literal["spectrum", "gap", "fixed"] = "spectrum"
    """Where the pruning rate comes from: FedDUAP's code, the paper's spectral gap, or
    `prune_rate`."""
    gap: Literal["first", "last", "largest"] = "first"
    """Which gap counts under `gap`."""
    gap_from: Literal["nonnegative", "any"] = "nonnegative"
    """Whether gaps below zero count."""
    no_gap: Literal["zero", "spectrum"] = "zero"
    """The rate where no gap is wide enough: 0, or that of `spectrum`."""
    lanczos_steps: Annotated[int, Ge(2)] = 50
    """Lanczos steps; under `gap` networks of up to 3,000 parameters need none."""
    probes: Annotated[int, Ge(1)] = 1
    """Start vectors of Lanczos."""
    curvature_images: Annotated[int, Ge(1), Le(512)] = 100
    """Samples that the curvature is taken on."""
