"""Random changes of training images, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fpcli.errors import RecipeError
from fpcli.settings.tasks import Augment


def make_augmenter(name: Augment, generator: torch.Generator) -> Callable[[Tensor], Tensor] | None:
    """Return what changes a batch of stored images ``[b, C, H, W]``, or None for ``none``.

    Args:
        name: ``crop`` surrounds an image with zeros, an eighth of its side on each side (4 of 32
            pixels, 3 of 28, 1 of 8), and cuts an image of the old size out at random; ``crop-flip``
            also mirrors it left to right with probability 1/2.
        generator: of the CPU; every batch draws from it.

    Source: He et al., CVPR 2016, section 4.2. The zeros are stored ones, hence black, as
    torchvision's crop of undecoded pixels pads them; they are not the mean.
    """
    if name == "none":
        return None
    return partial(_augment, does_flip=name == "crop-flip", generator=generator)


def check_augment(name: Augment, data: str, inputs: Tensor) -> None:
    """Refuse to augment what are no images.

    Raises:
        RecipeError: ``name`` is not ``none`` and ``inputs`` are not ``[n, C, H, W]``.
    """
    if name != "none" and inputs.ndim != 4:
        raise RecipeError(
            f"task.augment is `{name}`, but samples of data `{data}` are no images",
            hint="set task.augment to none",
            where="task.augment",
        )


def _augment(images: Tensor, *, does_flip: bool, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    rows, columns = max(1, height // 8), max(1, width // 8)
    windows = F.pad(images, (columns, columns, rows, rows)).unfold(2, height, 1).unfold(3, width, 1)
    # Drawn on the CPU, so that every device trains on the same images.
    top = torch.randint(2 * rows + 1, (count,), generator=generator)
    left = torch.randint(2 * columns + 1, (count,), generator=generator)
    number, top, left = (x.to(images.device) for x in (torch.arange(count), top, left))
    cropped = windows[number, :, top, left]
    if not does_flip:
        return cropped
    is_flipped = torch.randint(2, (count, 1, 1, 1), generator=generator).bool()
    return torch.where(is_flipped.to(images.device), cropped.flip(3), cropped)
