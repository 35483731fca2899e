"""Made-up events of a run, and what stands in the pictures that are drawn from them."""

from __future__ import annotations

import xml.etree.ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def client(number: int, ratio: float | None, seconds: float) -> dict[str, Any]:
    notes = {} if ratio is None else {"ratio": ratio}
    return {
        "client": number, "macs": 1e6, "num_examples": 100, "compute_s": seconds, "notes": notes,
        "params": 1000, "pruning_error": 0.0,
    }  # fmt: skip


def event(number: int, ratios: Sequence[float | None], *, is_judged: bool = True) -> dict[str, Any]:
    found = {
        "event": "round",
        "round": number,
        "total_down_bytes": 1_500_000 * number,
        "total_up_bytes": 1_000_000 * number,
        "clock_s": 45.0 * number,
        "params": 1000,
        "coverage": len(ratios),
        "notes": {},
        "clients": [client(i, ratio, 1.0 + 3 * (i % 2)) for i, ratio in enumerate(ratios)],
    }
    if is_judged:
        score = {"accuracy": 1 - 0.9 / number, "loss": 1 / number}
        found |= {"validation": score, "test": score}
    return found


def texts(path: Path) -> str:
    """Return the text of an SVG, which matplotlib keeps in comments beside the glyphs."""
    parser = xml.etree.ElementTree.XMLParser(
        target=xml.etree.ElementTree.TreeBuilder(insert_comments=True)
    )
    root = xml.etree.ElementTree.parse(path, parser).getroot()
    return " ".join(node.text or "" for node in root.iter() if callable(node.tag))


def names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]
