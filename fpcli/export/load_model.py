"""Load an exported file as a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.errors import LayoutError, first_line
from fpcli.export.card import Card
from fpcli.export.file import decode_model
from fpcli.models.build import measure_shapes
from fpcli.store.model_folder import build_model
from fpcli.store.weights import explain_misfit, is_outsized
from fpcli.structure.choice import LayerChoice, sparsify
from fpcli.structure.plain import describe_output
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
    model, masks, card = load_masked(Path(path), code=code)
    choices: list[LayerChoice] = []
    if kernels != "dense":
        example = card.learns.make_example(card.input_shape, batch_size)
        model, choices = sparsify(model, masks, example, kernels)
    model.card, model.kernels = card, choices  # type: ignore[assignment]
    return model.eval()


def load_masked(path: Path, *, code: str = "") -> tuple[nn.Module, dict[str, Tensor], Card]:
    """Return network, masks of its weights, and card. Arguments and errors as for :func:`load`."""
    values, masks, card = decode_model(path, _check_network)
    template = build_model(card.model, card.input_shape, card.learns, code=code)
    try:
        model = shrink(template, values).eval()
        with torch.no_grad():
            output = model(card.learns.make_example(card.input_shape))
    except LayoutError as error:
        raise explain_misfit(path, error.message) from error
    except Exception as error:  # networks of others may raise anything
        raise explain_misfit(path, f"its network does not run: {first_line(error)}") from error
    if not isinstance(output, Tensor) or tuple(output.shape) != (1, card.learns.num_outputs):
        raise explain_misfit(
            path, f"its network returns {describe_output(output)[0]} for one sample"
        )
    return model, masks, card


def _check_network(card: Card, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that the named network has just these tensors, none of them smaller.

    Raises:
        ValueError: it has not, or it is far larger than what is left of it.
    """
    whole = measure_shapes(card.model, card.input_shape, card.learns.num_outputs)
    if whole is None:
        return
    if strange := sorted(whole.keys() ^ shapes.keys()):
        raise ValueError(f"`{strange[0]}` is not in both the file and `{card.model}`")
    for name, shape in shapes.items():
        if len(shape) != len(whole[name]) or any(map(int.__gt__, shape, whole[name])):
            raise ValueError(
                f"`{name}` is {list(shape)}, and in `{card.model}` {list(whole[name])}"
            )
    if is_outsized(whole, sum(math.prod(shape) for shape in shapes.values())):
        raise ValueError(f"`{card.model}` is far larger than what the file has of it")
