"""What networks of sequences have in common: vectors of items, which also score them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpcli.models.widths import InputShape

STD = 0.02
"""Deviation of initial weights, as in BERT and most networks of sequences since."""


class ItemEmbedding(nn.Embedding):
    """Vectors of the items 1..num_items. Row 0, of padding, is 0 and takes no gradient.

    Args:
        width: of a vector.
        has_random_padding: draw row 0 like the others; it takes no gradient all the same.
    """

    def __init__(self, num_items: int, width: int, *, has_random_padding: bool = False) -> None:
        super().__init__(num_items + 1, width, padding_idx=0)
        nn.init.normal_(self.weight, std=STD)
        if not has_random_padding:
            nn.init.zeros_(self.weight[0])

    def score(self, x: Tensor) -> Tensor:
        """Return the products of ``[b, width]`` with the vectors of all items, ``[b, num_items]``.

        Column i is item i+1.
        """
        return functional.linear(x, self.weight[1:])


def get_length(input_shape: InputShape) -> int:
    """Return the length of sequences.

    Raises:
        ValueError: samples are no sequences.
    """
    if len(input_shape) != 1:
        raise ValueError("it takes sequences of items")
    return input_shape[0]


@torch.no_grad()
def draw_weights(model: nn.Module) -> None:
    """Draw the weights of linear layers from N(0, 0.02^2), and set their biases to 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
