"""Load an exported file as a network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from fpcli.errors import LayoutError
from fpcli.export.file import decode
from fpcli.run.trained import build_model
from fpcli.run.weights import misfit
from fpcli.structure.choice import Choice, sparsify
from fpcli.structure.shrink import shrink


def load(
    path: str | Path,
    *,
    code: str = "",
    kernels: Literal["dense", "auto", "always"] = "dense",
    batch_size: int = 1,
) -> nn.Module:
    """Return the network of a file that `fp export` wrote, small and in evaluation mode.

    Its attribute ``card`` (``export.card.Card``) says what it takes and returns; ``kernels`` (a
    ``structure.choice.Choice`` per masked layer) what was found about sparse execution.

    Args:
        path: a ``.safetensors`` file.
        code: ``module:function`` of the network, where it is one of your own; it runs.
        kernels: let masked layers skip their dead weights: never, where a measurement here and now
            finds that faster, or always. Outputs agree to about 1e-5, relative.
        batch_size: of the measurement; large batches gain more.

    Raises:
        DataError: the file is missing, damaged, hostile, or belongs to another network.
        FpError: the network cannot be built.
    """
    path = Path(path)
    values, masks, card = decode(path)
    template = build_model(card.model, card.input_shape, card.num_classes, code=code)
    try:
        model = shrink(template, values).eval()
        with torch.no_grad():
            model(torch.zeros(1, *card.input_shape))
    except LayoutError as error:
        raise misfit(path, error.message) from error
    except RuntimeError as error:
        raise misfit(path, f"its network does not run: {str(error).splitlines()[0]}") from error
    choices: list[Choice] = []
    if kernels != "dense":
        example = torch.zeros(batch_size, *card.input_shape)
        model, choices = sparsify(model, masks, example, kernels)
    model.card, model.kernels = card, choices  # type: ignore[assignment]
    return model.eval()
