from __future__ import annotations

import json
from pathlib import Path

import pytest

from fpcli.errors import UsageError
from fpcli.pruning.sweep import Tally
from fpcli.store.partial import locate_partial, read_partial, write_partial

SAME = {"model_sha256": "a", "ratios": (0.1, 0.5)}
FOUND = {"": Tally(128, 100, 12.5), "l1/conv1/3": Tally(128, 90, 20.0)}


def test_what_was_found_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "sens.json"
    assert read_partial(out, SAME, force=False) == {}
    write_partial(out, SAME, FOUND)
    assert read_partial(out, SAME, force=False) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["sens.json.partial"]


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    tallies = {"": {"seen": 128, "correct": 100, "loss_sum": 12.5}}
    locate_partial(tmp_path / "a.json").write_text(
        json.dumps({"identity": SAME, "tallies": tallies}), "utf-8"
    )
    assert read_partial(tmp_path / "a.json", SAME, force=False) == {"": FOUND[""]}


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"identity": 1}', "[" * 100_000])
def test_another_sweep_is_neither_continued_nor_lost(tmp_path: Path, text: str | None) -> None:
    out = tmp_path / "sens.json"
    write_partial(out, SAME | {"ratios": (0.1,)}, FOUND)
    if text is not None:
        locate_partial(out).write_text(text, "utf-8")
    before = locate_partial(out).read_bytes()
    with pytest.raises(UsageError, match="unfinished sweep of another"):
        read_partial(out, SAME, force=False)
    assert locate_partial(out).read_bytes() == before
    assert read_partial(out, SAME, force=True) == {}


def test_a_result_is_not_overwritten_without_a_word(tmp_path: Path) -> None:
    out = tmp_path / "sens.json"
    out.write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="exists"):
        read_partial(out, SAME, force=False)
    assert read_partial(out, SAME, force=True) == {}
