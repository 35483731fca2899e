from __future__ import annotations

import json
from dataclasses import asdict
from typing import get_args

import pytest
from exports import INPUTS, narrow

from fpcli.export.card import Card, Dtype
from fpcli.settings.options import DTYPES
from fpcli.tasks.classify import Classify

CARD = Card.of(narrow("digits-cnn"), {"run": "a", "round": 3})


def test_a_card_says_what_rebuilds_the_network() -> None:
    assert CARD.model == "digits-cnn"
    assert (CARD.input_shape, CARD.learns, CARD.inputs) == ((1, 8, 8), Classify(10), INPUTS)
    # Half of 16, 32 and 64 channels; the output is protected.
    assert list(CARD.widths.values()) == [8, 16, 32, 10]
    assert (CARD.source, CARD.format) == ({"run": "a", "round": 3}, 2)
    assert Card.from_json(CARD.to_json()) == CARD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": [0, 8, 8]}, "input_shape"),
        ({"input_shape": [1000, 1000, 1000]}, "impossibly large"),
        ({"task": Classify(9).to_json()}, "do not fit"),
        ({"inputs": asdict(INPUTS) | {"std": [0.0]}}, "std"),
        ({"inputs": asdict(INPUTS) | {"mean": [0.1, 0.2]}}, "do not fit"),
        ({"dtype": "float8"}, "dtype"),
        ({"more": 1}, "more"),
        ({"widths": {"conv1": 0}}, "widths"),
    ],
)
def test_a_wrong_card_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Card.from_json(json.dumps(asdict(CARD) | changes))


def test_the_command_line_knows_the_same_dtypes() -> None:
    assert get_args(Dtype) == DTYPES
