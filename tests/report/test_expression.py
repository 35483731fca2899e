from __future__ import annotations

import pytest

from fpcli.errors import UsageError
from fpcli.report.expression import judge_condition

VALUES = {"fedmp.acc": 0.9, "fedavg.acc": 0.8, "a-b.1.acc": 5.0, "fedmp.bytes": 2e6, "a.hr@10": 0.2}


def look_up(name: str, word: str) -> float:
    try:
        return VALUES[f"{name}.{word}"]
    except KeyError:
        raise UsageError(f"no `{name}.{word}`", hint="look again") from None


def holds(text: str) -> bool:
    return judge_condition(text, ["fedmp", "fedavg", "a-b.1", "a"], look_up).holds


@pytest.mark.parametrize(
    "text",
    [
        "fedmp.acc > fedavg.acc",
        "fedmp.acc - fedavg.acc < 11%",
        "fedmp.acc-fedavg.acc<0.11",
        "a-b.1.acc == 5",
        "a-b.1.acc-fedmp.acc > 4",
        "fedmp.bytes <= 2MB and fedmp.bytes != 1.9MB * 2 / 2",
        "a.hr@10 < 0.9 * fedmp.acc and a.hr@10>19%",
        "1 + 2 * 3 == 7 and (1 + 2) * 3 == 9",
        "8 - 2 - 1 == 5 and 8 / 2 / 2 == 2",
        "not fedmp.acc < 0.5",
        "(fedmp.acc < 0.5 or fedmp.acc > 0.8) and 1 < 2",
        "1 > 2 and 1 > 2 or 1 < 2",
        "((fedmp.acc)) > -1",
        "2min > 119s and 1e3 == 1000",
    ],
)
def test_what_holds(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


def test_the_values_it_was_judged_by() -> None:
    verdict = judge_condition("fedmp.acc > 1 or fedavg.acc > 1", ["fedmp", "fedavg"], look_up)
    assert not verdict.holds
    assert verdict.values == {"fedmp.acc": 0.9, "fedavg.acc": 0.8}


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "missing before the end"),
        ("fedmp.acc", 10, "a comparison is missing"),
        ("fedmp.acc > ", 13, "missing before the end"),
        ("fedmp.acc > 1 2", 15, "`2` is not expected here"),
        ("1 < fedmp.acc < 2", 15, "`<` is not expected here"),
        ("(fedmp.acc > 1", 15, "`)` is missing"),
        ("(1 + 2 > 1", 11, "`)` is missing"),
        ("fedmp > 1", 1, "`fedmp` is neither a measure nor a number"),
        ("fedmp.byte > 1", 1, "no `fedmp.byte`"),
        ("1 > 2 and other.acc > 1", 11, "no `other.acc`"),
        ("1 < 2 or other.acc > 1", 10, "no `other.acc`"),
        ("fedmp.acc > 3 parsecs", 15, "`parsecs` is neither"),
        ("fedmp.acc > 3parsecs", 13, "unknown unit"),
        ("1 / 0 > 1", 5, "division by zero"),
        ("fedmp.acc @ 1", 11, "`@` is neither"),
        ("(" * 40 + "1" + ")" * 40 + " > 0", 30, "nested deeper"),
        ("not " * 40 + "1 > 0", 121, "nested deeper"),
        ("-" * 40 + "1 > 0", 30, "nested deeper"),
        ("__import__('os') > 1", 1, "neither a measure nor a number"),
    ],
)
def test_a_wrong_condition_says_where(text: str, column: int, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        holds(text)
    assert f"column {column} of " in caught.value.message
    assert problem in caught.value.message
    assert caught.value.hint


def test_a_wrong_word_has_its_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        holds("fedmpp > 1")
    assert caught.value.hint == "did you mean `fedmp`?"
