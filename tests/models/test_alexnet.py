from __future__ import annotations

import pytest
from torch import nn

from fpcli.models.alexnet import alexnet


@pytest.mark.parametrize(("side", "inputs"), [(15, 32), (31, 128), (32, 128), (64, 512)])
def test_the_first_linear_layer_takes_what_the_poolings_leave(side: int, inputs: int) -> None:
    """At an eighth of the width 32 channels leave: of 32 pixels 16, 8, 4, 2; of 15: 8, 4, 2, 1."""
    model = alexnet((3, side, side), 10, width=0.125)
    first = next(layer for layer in model if isinstance(layer, nn.Linear))
    assert first.in_features == inputs


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="14x32 images are too small"):
        alexnet((3, 14, 32), 10)
