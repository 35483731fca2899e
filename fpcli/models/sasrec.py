"""SASRec: next items by self-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpcli.models.item_embedding import STD, ItemEmbedding, draw_weights, get_length
from fpcli.models.widths import InputShape, widen


def sasrec(input_shape: InputShape, num_items: int, width: float = 1.0) -> nn.Module:
    """Return SASRec with 2 blocks of 64 channels (152,768 parameters on 1,682 items, L = 50).

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, with one head
    and a dropout of 0.5; differs: 64 channels instead of 50, and initial weights as in `fmlp`.

    Raises:
        ValueError: samples are no sequences.
    """
    return SASRec(get_length(input_shape), num_items, widen(64, width))


class AttentionBlock(nn.Module):
    """Causal self-attention, then two linear layers, each behind layer norm and in a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, is_seen: Tensor, start: int = 0) -> Tensor:
        """Return the positions from ``start`` on.

        Args:
            x: ``[b, L, width]``.
            is_seen: bool ``[b, L, L]``, by which position (second axis) which one (third).
        """
        y, x = self.norm1(x), x[:, start:]
        likeness = self.query(y[:, start:]) @ self.key(y).transpose(1, 2) / y.shape[2] ** 0.5
        weight = likeness.masked_fill(~is_seen[:, start:], -torch.inf).softmax(2)
        x = x + self.dropout(self.dropout(weight) @ self.value(y))
        return x + self.dropout(self.fc2(self.dropout(functional.relu(self.fc1(self.norm2(x))))))


class SASRec(nn.Module):
    """Scores of all items as the next one of a sequence."""

    def __init__(self, length: int, num_items: int, width: int) -> None:
        super().__init__()
        self.item = ItemEmbedding(num_items, width)
        self.position = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.position, std=STD)
        self.dropout = nn.Dropout(0.5)
        self.blocks = nn.ModuleList(AttentionBlock(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        draw_weights(self)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores ``[b, num_items]`` of ids ``[b, L]``, as ``fpcli.models`` has it."""
        order = torch.arange(ids.shape[1], device=ids.device)
        # Padding is seen by itself alone: a position that sees nothing would have no softmax.
        is_seen = (ids[:, None] > 0) & (order <= order[:, None]) | (order == order[:, None])
        x = self.dropout(self.item(ids) + self.position)
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x, is_seen)
        return self.item.score(self.norm(last(x, is_seen, start=-1)[:, 0]))
