"""Card: what an exported file says about its network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Len, Lt
from pydantic import ConfigDict, TypeAdapter

from fpcli.engine.trained import Inputs, Trained

CARD_FORMAT = 1
"""Format number of the card."""

Dtype = Literal["float32", "float16", "bfloat16", "int8"]

_LIMIT_INPUT_VALUES = 2**20
_Count = Annotated[int, Ge(1), Lt(2**20)]


@dataclass(frozen=True)
class Card:
    """What a file says about its network.

    Attributes:
        model: name for ``models.build``, options included.
        inputs: what its inputs and outputs mean; None where the run did not say.
        widths: channel group -> channels that are left.
        dtype: how weights are stored; in safetensors they are float32 again once loaded.
        source: where the model comes from: run, round, method, client, ratio.
        is_raw: the file normalises by itself what it is given.
        takes: type, shape and values of what the file is to be given, in words.
        calibrated_on: training samples that the ranges of activations of 8 bits are from; 0 where
            activations are float32.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: str
    input_shape: Annotated[tuple[_Count, ...], Len(1, 4)]
    num_classes: _Count
    inputs: Inputs | None
    widths: dict[str, _Count]
    dtype: Dtype
    source: dict[str, Any] = field(default_factory=dict)
    format: int = CARD_FORMAT
    is_raw: bool = False
    takes: str = ""
    calibrated_on: Annotated[int, Ge(0)] = 0

    @classmethod
    def of(
        cls,
        trained: Trained,
        source: Mapping[str, Any],
        dtype: Dtype = "float32",
        *,
        is_raw: bool = False,
        calibrated_on: int = 0,
    ) -> Card:
        """Return the card of a trained model."""
        kept = {name: len(channels) for name, channels in trained.support.keep.items()}
        return cls(
            model=trained.model,
            input_shape=trained.input_shape,
            num_classes=trained.num_classes,
            inputs=trained.inputs,
            widths={name: group.width for name, group in trained.layout.groups.items()} | kept,
            dtype=dtype,
            source=dict(source),
            is_raw=is_raw,
            takes=_takes(trained.input_shape, trained.inputs, is_raw=is_raw),
            calibrated_on=calibrated_on,
        )

    def to_json(self) -> str:
        """Return the card as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Return what :meth:`to_json` wrote, from an untrusted source.

        Raises:
            ValueError: it is no card, or its parts do not fit together.
        """
        card = TypeAdapter(cls).validate_json(text)
        if prod(card.input_shape) > _LIMIT_INPUT_VALUES:
            raise ValueError("its input is impossibly large")
        if card.inputs is not None and not card.inputs.do_fit(card.input_shape, card.num_classes):
            raise ValueError("class names or normalisation do not fit the network")
        return card


def _takes(shape: tuple[int, ...], inputs: Inputs | None, *, is_raw: bool) -> str:
    text = f"float32 [batch, {', '.join(map(str, shape))}]"
    if inputs is None:
        return text
    span = "" if inputs.scale == 1 else f", 0 to {1 / inputs.scale:g}"
    if is_raw:
        return f"{text} of raw values as they are read{span}; the file itself normalises them"
    return f"{text} of (raw * scale - mean) / std, with raw values as they are read{span}"
