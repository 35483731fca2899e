"""A contact sheet: a few images of every class of a data set."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fpcli.data.datasets import Dataset
from fpcli.report.canvas import draw_in_style, make_figure, save_figure

PER_CLASS = 8
_ROW_INCHES = 0.45


def draw_contact_sheet(dataset: Dataset, path: Path) -> Path:
    """Write the first training images of every class, one class per row.

    Args:
        dataset: of images.
        path: ends in ``.png``; its folder must exist.

    Raises:
        NeedError: the folder cannot be written.
    """
    sheet = _mosaic(dataset)
    height, width = sheet.shape[:2]
    rows = dataset.num_classes
    with draw_in_style():
        picture = make_figure(1.6 + _ROW_INCHES * rows * width / height, 0.3 + _ROW_INCHES * rows)
        axes = picture.subplots()
        axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        middles = [(row + 0.5) * height / rows for row in range(rows)]
        axes.set_yticks(middles, dataset.class_names)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        (written,) = save_figure(picture, path.with_suffix(""), ("png",))
    return written


def _mosaic(dataset: Dataset) -> Tensor:
    """Return one picture ``[H, W]`` or ``[H, W, 3]`` in [0, 1], white between the images."""
    images, labels = dataset.train.images, dataset.train.labels
    chosen = [
        (labels == label).nonzero().flatten()[:PER_CLASS] for label in range(dataset.num_classes)
    ]
    is_colour = images.shape[1] == 3
    shown = images[torch.cat(chosen)][:, : 3 if is_colour else 1].float() * dataset.scale
    if images.is_floating_point():  # in any unit
        shown = (shown - shown.min()) / (shown.max() - shown.min()).clamp(min=1e-12)
    tiles = torch.ones(len(chosen), PER_CLASS, *[size + 1 for size in images.shape[2:]], 3)
    start = 0
    for row, members in enumerate(chosen):
        block = shown[start : start + len(members)].movedim(1, 3)
        tiles[row, : len(members), :-1, :-1] = block
        start += len(members)
    rows, columns, height, width, _ = tiles.shape
    return tiles.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3).clamp(0, 1)
