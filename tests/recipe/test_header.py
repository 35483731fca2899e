from __future__ import annotations

from pathlib import Path

import pytest

from fpcli.errors import RecipeError
from fpcli.recipe.header import Header, parse_header, read_header

GOOD = """\
# FedMP on digits;
# what it does.
# paper: Jiang et al., ICDE 2022
# result: figure 6: a CNN on MNIST,
#   with layers of ours
# expected: accuracy 0.969
# tolerance: 0.015
# machine: 2 CPU cores
# minutes: 0.3
recipe: 1
# no: header any more
"""


def test_a_header(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD)
    assert read_header(path) == Header(
        about="FedMP on digits; what it does.",
        paper="Jiang et al., ICDE 2022",
        result="figure 6: a CNN on MNIST, with layers of ours",
        measure="accuracy",
        expected=0.969,
        tolerance=0.015,
        machine="2 CPU cores",
        minutes=0.3,
    )


@pytest.mark.parametrize(
    ("measure", "value", "tolerance"),
    [("hr@10", "0.21", "0.01"), ("mae", "44.2", "2"), ("best_ndcg@10", "0.1", "0.02")],
)
def test_other_metrics(measure: str, value: str, tolerance: str) -> None:
    text = GOOD.replace("accuracy 0.969", f"{measure} {value}").replace("0.015", tolerance)
    header = parse_header(text.splitlines(), "r")
    assert (header.measure, header.expected) == (measure, float(value))
    assert header.tolerance == float(tolerance)


def test_nothing_was_measured() -> None:
    text = GOOD.replace("accuracy 0.969", "not measured").replace("0.015", "none")
    header = parse_header(text.replace("0.3", "not measured").splitlines(), "r")
    assert (header.measure, header.expected, header.tolerance, header.minutes) == (None,) * 4


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("# minutes: 0.3\n", "", 9, "lacks `minutes`"),
        (GOOD, "", 1, "lacks `paper`"),
        ("# FedMP on digits;\n# what it does.\n", "", 1, "does not say what"),
        ("# machine:", "# mashine:", 8, "unknown field `mashine`"),
        ("# tolerance: 0.015", "# tolerance: 0.015\n# tolerance: 0.02", 8, "stands twice"),
        ("# tolerance: 0.015\n# machine", "# machine", 7, "where `tolerance` is expected"),
        ("#   with", "# with", 5, "neither a field"),
        ("accuracy 0.969", "acuracy 0.969", 6, "unknown measure `acuracy`"),
        ("accuracy 0.969", "accuracy 96.9", 6, "`96.9` is not a number"),
        ("accuracy 0.969", "hr@10 21", 6, "`21` is not a number above 0 and up to 1"),
        ("accuracy 0.969", "bytes 21", 6, "unknown measure `bytes`"),
        ("accuracy 0.969", "accuracy nan", 6, "`nan` is not a number"),
        ("accuracy 0.969", "not measured", 7, "exactly where nothing is expected"),
        ("0.015", "none", 7, "exactly where nothing is expected"),
        ("minutes: 0.3", "minutes: soon", 9, "`soon` is not a number"),
    ],
)
def test_a_wrong_header_says_where(old: str, new: str, line: int, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_header(GOOD.replace(old, new).splitlines(), "r.yaml")
    assert caught.value.message.startswith(f"r.yaml:{line}: ")
    assert problem in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read recipe"):
        read_header(tmp_path / "none.yaml")
