"""Scores: how much a channel or a weight matters."""

from __future__ import annotations

from collections.abc import Mapping

SCORES: Mapping[str, str] = {
    "l1": "fpcli.scores.magnitude:l1",
    "l2": "fpcli.scores.magnitude:l2",
}
"""Name in a recipe -> "module:function"."""
