"""Load an exported file as a network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fpcli.errors import LayoutError
from fpcli.export.file import decode
from fpcli.run.trained import build_model
from fpcli.run.weights import misfit
from fpcli.structure.shrink import shrink


def load(path: str | Path, *, code: str = "") -> nn.Module:
    """Return the network of a file that `fp export` wrote, small and in evaluation mode.

    Its attribute ``card`` (``export.card.Card``) says what it takes and returns.

    Args:
        path: a ``.safetensors`` file.
        code: ``module:function`` of the network, where it is one of your own; it runs.

    Raises:
        DataError: the file is missing, damaged, hostile, or belongs to another network.
        FpError: the network cannot be built.
    """
    path = Path(path)
    values, _, card = decode(path)
    template = build_model(card.model, card.input_shape, card.num_classes, code=code)
    try:
        model = shrink(template, values).eval()
        with torch.no_grad():
            model(torch.zeros(1, *card.input_shape))
    except LayoutError as error:
        raise misfit(path, error.message) from error
    except RuntimeError as error:
        raise misfit(path, f"its network does not run: {str(error).splitlines()[0]}") from error
    model.card = card  # type: ignore[assignment]
    return model
