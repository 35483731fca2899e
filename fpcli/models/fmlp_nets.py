"""FMLP-Rec: next items by learnable filters of frequencies, without attention.

Source: Zhou, Yu, Zhao, Wen, "Filter-enhanced MLP is All You Need for Sequential Recommendation",
WWW 2022 (arXiv 2202.13556), and its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpcli.models.item_embedding import STD, ItemEmbedding, draw_weights, get_length
from fpcli.models.widths import InputShape, widen

_WIDTH, _NUM_BLOCKS, _DROPOUT, _EPS = 64, 2, 0.5, 1e-12


def fmlp(input_shape: InputShape, num_items: int, width: float = 1.0) -> nn.Module:
    """Return FMLP-Rec with 2 blocks of 64 channels (184,384 parameters on 1,682 items, L = 50).

    Differs from the official code: the vector of padding is 0, and every block draws a filter of
    its own.

    Raises:
        ValueError: samples are no sequences.
    """
    return FMLPRec(get_length(input_shape), num_items, widen(_WIDTH, width))


def fmlp_parity(input_shape: InputShape, num_items: int, width: float = 1.0) -> nn.Module:
    """Return FMLP-Rec as its official code starts it: the vector of padding is drawn like those of
    items (and stays as it is), and the filters of all blocks are equal.

    Raises:
        ValueError: samples are no sequences.
    """
    model = FMLPRec(
        get_length(input_shape), num_items, widen(_WIDTH, width), has_random_padding=True
    )
    filters = [layer for layer in model.modules() if isinstance(layer, FourierFilter)]
    for layer in filters[1:]:
        layer.load_state_dict(filters[0].state_dict())
    return model


class FourierFilter(nn.Module):
    """Multiplies every frequency of every channel by a complex number that is learned.

    With X the orthonormal real Fourier transform over positions, the output is the inverse
    transform of W * X: a circular convolution, so every output position depends on all inputs,
    later ones too. Of the frequencies 0 and, for even lengths, L/2 the imaginary part of W has no
    effect and no gradient.

    Transforms are products with their matrices: on a processor in the same time as torch's FFT for
    200 positions and twice as fast for 50, and every exporter knows them.

    Attributes:
        weight: W, ``[L//2+1, width, 2]`` with real and imaginary parts on the last axis.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        bins = length // 2 + 1
        self.weight = nn.Parameter(torch.empty(bins, width, 2))
        nn.init.normal_(self.weight, std=STD)
        spectra = torch.fft.rfft(torch.eye(length, dtype=torch.float64), norm="ortho")
        units = torch.eye(bins, dtype=torch.complex128)
        waves = torch.fft.irfft(torch.cat([units, 1j * units]), length, norm="ortho")
        analysis = torch.cat([spectra.real, spectra.imag], 1).t().float()
        self.register_buffer("analysis", analysis.contiguous(), persistent=False)
        self.register_buffer("synthesis", waves.t().float().contiguous(), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Return the positions from ``start`` on of ``[b, L, width]``."""
        real, imag = (self.analysis @ x).chunk(2, 1)
        weight = torch.view_as_complex(self.weight)
        own, turned = weight.real, weight.imag
        product = torch.cat([real * own - imag * turned, real * turned + imag * own], 1)
        return self.synthesis[start:] @ product


class FilterBlock(nn.Module):
    """A filter over positions, then two linear layers over channels, each with layer norm."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.filter = FourierFilter(length, width)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Return the positions from ``start`` on of ``[b, L, width]``."""
        x = self.norm1(x[:, start:] + self.dropout(self.filter(x, start)))
        return self.norm2(x + self.dropout(self.fc2(functional.gelu(self.fc1(x)))))


class FMLPRec(nn.Module):
    """Scores of all items as the next one of a sequence.

    Only the last position is scored, and only it may be trained: any other one has seen its target.
    So the last block computes no other position behind its filter.

    Args:
        has_random_padding: see :class:`ItemEmbedding`.
    """

    def __init__(
        self, length: int, num_items: int, width: int, *, has_random_padding: bool = False
    ) -> None:
        super().__init__()
        self.item = ItemEmbedding(num_items, width, has_random_padding=has_random_padding)
        self.position = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.position, std=STD)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(_DROPOUT)
        self.blocks = nn.ModuleList(FilterBlock(length, width) for _ in range(_NUM_BLOCKS))
        draw_weights(self)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores ``[b, num_items]`` of ids ``[b, L]``, as ``fpcli.models`` has it."""
        x = self.dropout(self.norm(self.item(ids) + self.position))
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x)
        return self.item.score(last(x, start=-1)[:, 0])
