"""GRU4Rec: next items by a recurrent network."""

from __future__ import annotations

from torch import Tensor, nn

from fpcli.models.item_embedding import ItemEmbedding, get_length
from fpcli.models.widths import InputShape, widen


def gru4rec(input_shape: InputShape, num_items: int, width: float = 1.0) -> nn.Module:
    """Return GRU4Rec with one layer of 64 units (132,672 parameters on 1,682 items).

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR
    2016; differs: items enter by vectors, which score the last state too.

    Raises:
        ValueError: samples are no sequences.
    """
    get_length(input_shape)
    return GRU4Rec(num_items, widen(64, width))


class GRU4Rec(nn.Module):
    """Scores of all items as the next one of a sequence of any length."""

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.item = ItemEmbedding(num_items, width)
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores ``[b, num_items]`` of ids ``[b, L]``, as ``fpcli.models`` has it."""
        states, _ = self.gru(self.dropout(self.item(ids)))
        return self.item.score(states[:, -1])
