from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpcli.data.datasets import load_dataset
from fpcli.report.contact import draw_contact_sheet


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_class_has_a_row(tmp_path: Path, channels: int) -> None:
    """Class 0 is black, class 1 as white as the page: the lower half of the sheet is empty."""
    labels = np.arange(24) % 2
    images = np.zeros((24, 5, 4, channels), np.uint8) + (labels * 255)[:, None, None, None].astype(
        np.uint8
    )
    arrays = {
        f"{part}_{what}": value
        for part in ("train", "test")
        for what, value in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "x.npz", **arrays)
    data = load_dataset(f"npz:{tmp_path / 'x.npz'}", None, seed=0)
    path = draw_contact_sheet(data, tmp_path / "sheet.png")
    assert path == tmp_path / "sheet.png"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["sheet.png", "x.npz"]
    pixels = picture(path)
    is_dark = (pixels < 40).all(axis=2)
    half = len(pixels) // 2
    assert is_dark[:half].mean() > 0.3
    assert is_dark[half:].mean() < 0.05


def test_images_in_any_unit(tmp_path: Path) -> None:
    """Floats from -3 to 5: the lowest are black, the highest white."""
    images = np.repeat([[[-3.0]], [[5.0]]], 12, axis=0) * np.ones((1, 6, 6))
    labels = np.repeat([0, 1], 12)
    np.savez(
        tmp_path / "x.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    pixels = picture(
        draw_contact_sheet(
            load_dataset(f"npz:{tmp_path / 'x.npz'}", None, seed=0), tmp_path / "a b.png"
        )
    )
    assert (pixels.min(), pixels.max()) == (0, 255)
