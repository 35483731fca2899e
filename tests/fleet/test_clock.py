from __future__ import annotations

import pytest

from fpcli.fleet import clock
from fpcli.fleet.devices import Device

DEVICE = Device(client=0, flops_per_s=1e9, down_bps=20e6, up_bps=10e6, memory_bytes=10**9)


def test_work_by_hand() -> None:
    # LeNet-5 has 416,520 multiply-adds; 600 samples: 2 * 416,520 * 600 = 499,824,000 operations.
    assert clock.forward_seconds(416_520, 600, DEVICE) == pytest.approx(0.499824)
    assert clock.train_seconds(416_520, 600, DEVICE) == pytest.approx(1.499472)


def test_transfer_by_hand() -> None:
    assert clock.transfer_seconds(2_500_000, 20e6) == 1.0


def test_stamp_by_hand() -> None:
    stamp = clock.stamp(DEVICE, compute_s=12.0, down_bytes=5_000_000, up_bytes=2_500_000)
    assert stamp == (12.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("totals_s", "deadline_s", "any_late", "seconds"),
    [
        ([12.0, 20.0, 16.0], None, False, 20.0),
        ([12.0, 16.0], 18.0, False, 16.0),
        ([12.0, 16.0], 18.0, True, 18.0),
        ([12.0, 16.0], None, True, 16.0),
        ([], 18.0, True, 18.0),
        ([], None, False, 0.0),
    ],
)
def test_round(
    totals_s: list[float], deadline_s: float | None, any_late: bool, seconds: float
) -> None:
    assert clock.round_seconds(totals_s, deadline_s, any_late) == seconds
