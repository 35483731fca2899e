"""Simulated seconds of one client's work, or the server's, and of a round."""

from __future__ import annotations

from collections.abc import Sequence

from fpcli.fleet.devices import Device, Level


def forward_seconds(macs_per_sample: float, num_samples: float, device: Device | Level) -> float:
    """Return the seconds of forward passes; a multiply-add is two operations.

    Args:
        macs_per_sample: multiply-adds of one sample's forward pass.
        num_samples: samples that go through, counted again in every epoch.
        device: whose ``flops_per_s`` sets the pace.
    """
    return 2.0 * macs_per_sample * num_samples / device.flops_per_s


def train_seconds(macs_per_sample: float, num_samples: float, device: Device | Level) -> float:
    """Return the seconds of training steps, each as long as three forward passes.

    The three are the forward pass, the gradient by the input and the gradient by the weights.
    Arguments as for :func:`forward_seconds`.
    """
    return 3.0 * forward_seconds(macs_per_sample, num_samples, device)


def transfer_seconds(num_bytes: float, bps: float) -> float:
    """Return the seconds that bytes need at a number of bits per second."""
    return 8.0 * num_bytes / bps


def stamp(
    device: Device, *, compute_s: float, down_bytes: int, up_bytes: int
) -> tuple[float, float, float]:
    """Return ``(compute_s, down_s, up_s)`` of one job on one device."""
    return (
        compute_s,
        transfer_seconds(down_bytes, device.down_bps),
        transfer_seconds(up_bytes, device.up_bps),
    )


def round_seconds(totals_s: Sequence[float], deadline_s: float | None, any_late: bool) -> float:
    """Return the seconds of a synchronous round.

    Args:
        totals_s: total seconds of each client that was on time.
        deadline_s: simulated seconds after which the server stops waiting; None means never.
        any_late: whether the server waited in vain for somebody.

    Returns:
        The deadline if somebody was late, else the slowest client's seconds (0 without clients).
    """
    if any_late and deadline_s is not None:
        return deadline_s
    return max(totals_s, default=0.0)
