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
from fpcli.tasks import read_task
from fpcli.tasks.classify import Classify
from fpcli.tasks.learning_task import LearningTask

CARD_FORMAT = 2
"""Newest format number of a card that is read, and the one that is written. In the first, all
networks told classes apart."""

Dtype = Literal["float32", "float16", "bfloat16", "int8"]

_LIMIT_INPUT_VALUES = 2**20
_Count = Annotated[int, Ge(1), Lt(2**20)]


@dataclass(frozen=True)
class Card:
    """What a file says about its network.

    Attributes:
        model: name for ``models.build``, options included.
        task: what it is for, as ``tasks.read_task`` understands it.
        inputs: what its inputs and outputs mean; None where the run did not say.
        widths: channel group -> channels that are left.
        dtype: how weights are stored; in safetensors they are float32 again once loaded.
        source: where the model comes from: run, round, method, client, ratio.
        is_raw: the file normalises by itself what it is given; a number that it predicts is then
            in the target's own units, else in standard ones (``task`` has their mean and std).
        takes: type, shape and values of what the file is to be given, in words.
        calibrated_on: training samples that the ranges of activations of 8 bits are from; 0 where
            activations are float32.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: str
    input_shape: Annotated[tuple[_Count, ...], Len(1, 4)]
    task: dict[str, Any]
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
            task=trained.task.to_json(),
            inputs=trained.inputs,
            widths={name: group.width for name, group in trained.layout.groups.items()} | kept,
            dtype=dtype,
            source=dict(source),
            is_raw=is_raw,
            takes=_takes(trained.task, trained.input_shape, trained.inputs, is_raw=is_raw),
            calibrated_on=calibrated_on,
        )

    @property
    def learns(self) -> LearningTask:
        """The task that the network is for.

        Raises:
            ValueError: the file says none that there is.
        """
        return read_task(self.task)

    def to_json(self) -> str:
        """Return the card as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Return what :meth:`to_json` wrote, from an untrusted source.

        Raises:
            ValueError: it is no card, or its parts do not fit together.
        """
        about = json.loads(text)
        if isinstance(about, dict) and about.get("format") == 1 and "num_classes" in about:
            classes = Classify(about.pop("num_classes"))
            about |= {"task": classes.to_json(), "format": CARD_FORMAT}
        card = TypeAdapter(cls).validate_json(json.dumps(about))
        if prod(card.input_shape) > _LIMIT_INPUT_VALUES:
            raise ValueError("its input is impossibly large")
        if card.inputs is not None and not card.inputs.do_fit(card.input_shape, card.learns):
            raise ValueError("class names or normalisation do not fit the network")
        return card


def _takes(
    task: LearningTask, shape: tuple[int, ...], inputs: Inputs | None, *, is_raw: bool
) -> str:
    if task.kind == "rank":
        return f"int64 [batch, {shape[0]}] of items 1 to {task.num_outputs}, 0 in front of fewer"
    text = f"float32 [batch, {', '.join(map(str, shape))}]"
    if inputs is None:
        return text
    span = "" if inputs.scale == 1 else f", 0 to {1 / inputs.scale:g}"
    if is_raw:
        return f"{text} of raw values as they are read{span}; the file itself normalises them"
    return f"{text} of (raw * scale - mean) / std, with raw values as they are read{span}"
