"""Published devices: peaks by hand, and the fleets made of them."""

from __future__ import annotations

from collections import Counter

import pytest

from fpcli.fleet.boards import BOARDS, edge_boards, phones


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("raspberry-pi-4", 48e9),
        ("raspberry-pi-5", 153.6e9),
        ("jetson-nano", 235.776e9),
        ("jetson-tx2", 750.08e9),
        ("jetson-xavier-nx", 1057.536e9),
        ("jetson-orin-nano", 1280e9),
        ("snapdragon-865", 219.2e9),
    ],
)
def test_peaks_by_hand(name: str, peak: float) -> None:
    """Four cores, 8 operations, 1.5 GHz make 48e9; 256 cores, 2 operations, 1.465 GHz 750e9."""
    assert BOARDS[name].peak_flops_per_s == pytest.approx(peak)


def test_every_device_names_its_source_and_never_reaches_its_peak() -> None:
    for name, board in BOARDS.items():
        level = board.level(name)
        assert len(board.source) > 20, name
        assert level.name == name
        assert level.flops_per_s == board.peak_flops_per_s * board.efficiency
        assert 0 < board.efficiency < 1
        assert (level.down_bps, level.up_bps) == board.link


def test_boards_come_in_turn() -> None:
    fleet = edge_boards(0)
    names = [fleet.level(client).name for client in range(12)]
    assert names[:6] == names[6:] and len(set(names)) == 6
    speeds = [fleet.nominal(client).flops_per_s for client in range(6)]
    assert max(speeds) / min(speeds) > 10


def test_of_ten_phones_two_are_fast() -> None:
    fleet = phones(0)
    names = Counter(fleet.level(client).name for client in range(30))
    assert names == {"snapdragon-865": 6, "snapdragon-660": 15, "helio-p35": 9}
