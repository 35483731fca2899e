from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpcli.data import npz
from fpcli.data.npz import read_npz
from fpcli.errors import DataError


def good() -> dict[str, Any]:
    return {
        "train_images": np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
        "train_labels": np.array([0, 1, 1]),
        "test_images": np.zeros((2, 4, 4), np.uint8),
        "test_labels": np.array([[0], [1]]),
    }


def packed(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **(good() | arrays))
    return buffer.getvalue()


class Boom:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_returns_the_known_keys_only(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a b.npz"
    save(path, other=np.array([object()]), **good())
    found = read_npz(path)
    assert set(found) == set(good())
    for key, value in good().items():
        np.testing.assert_array_equal(found[key], value)


def test_pickled_array_is_refused_without_running_it(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "x.npz"
    path.write_bytes(packed(train_images=np.array([Boom(canary)])))
    with pytest.raises(DataError, match="train_images holds Python objects"):
        read_npz(path)
    assert not canary.exists()


def test_pickle_file_is_refused_without_running_it(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "x.npz"
    path.write_bytes(pickle.dumps(Boom(canary)))
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        read_npz(path)
    assert not canary.exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*gone\.npz"):
        read_npz(tmp_path / "gone.npz")


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_npz(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_file(tmp_path: Path, part: float) -> None:
    path, data = tmp_path / "x.npz", packed()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError):
        read_npz(path)


def test_flipped_pixel_is_noticed(tmp_path: Path) -> None:
    path, data = tmp_path / "x.npz", bytearray(packed())
    data[data.index(bytes(range(48))) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="train_images cannot be read"):
        read_npz(path)


def entry(header: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


FORGED = {
    "huge": entry(b"{'descr': '|u1', 'fortran_order': False, 'shape': (10**5,)}".ljust(70)),
    "vast": entry(b"{'descr':'|u1','fortran_order':False,'shape':(99999999999999,)}".ljust(70)),
    "negative": entry(b"{'descr':'|u1','fortran_order':False,'shape':(-1,-4)}", b"abcd"),
    "short": entry(b"{'descr':'<f8','fortran_order':False,'shape':(2,)}", b"12345678"),
    "code": entry(b"__import__('os').system('true')"),
    "deep": entry(b"(" * 5000),
    "minus": entry(b"-" * 5000 + b"1"),
    "object": entry(b"{'descr':'|O','fortran_order':False,'shape':(1,)}", pickle.dumps([1])),
    "nested": entry(b"{'descr':[('a','|O')],'fortran_order':False,'shape':(1,)}", b"12345678"),
    "text": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_header(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", FORGED[case])
    with pytest.raises(DataError, match="train_images") as caught:
        read_npz(path)
    assert caught.value.hint


def test_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **(good() | {"train_images": np.zeros((65, 2**20), np.uint8)}))
    assert path.stat().st_size < 2**17
    with pytest.raises(DataError, match="expands suspiciously far"):
        read_npz(path)


def test_total_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 500)
    path = tmp_path / "x.npz"
    path.write_bytes(packed())
    with pytest.raises(DataError, match="unpacks to more than"):
        read_npz(path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(packed()) - 1), st.integers(1, 255)), min_size=1, max_size=4
    )
)
def test_damage_is_refused_or_harmless(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    path, data = tmp_path / "x.npz", bytearray(packed())
    for position, change in flips:
        data[position] ^= change
    path.write_bytes(data)
    try:
        found = read_npz(path)
    except DataError:
        return
    for key, value in found.items():
        np.testing.assert_array_equal(value, good()[key])
