"""Conditions such as ``fedmp.bytes > 0.9 * fedavg.bytes``: read and judged here, never executed.

::

    condition   clause {"or" clause}
    clause      test {"and" test}
    test        "not" test | "(" condition ")" | sum ("<" | "<=" | ">" | ">=" | "==" | "!=") sum
    sum         product {("+" | "-") product}
    product     factor {("*" | "/") factor}
    factor      "-" factor | "(" sum ")" | number | name "." measure

A number may have a unit: ``50MB``, ``60s``, ``90%``. A name is looked up by the caller.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fpcli.errors import UsageError, suggest
from fpcli.units import parse_bytes, parse_seconds, parse_share

_TESTS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_LIMIT_DEPTH = 30
_NUMBER = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)([a-zµ%]*)", re.IGNORECASE)
_SIGN = re.compile(r"<=|>=|==|!=|[-+*/<>()]|(?:and|or|not)(?![\w.-])")
_REFERENCE = re.compile(r"([^\s()<>=!*+]*)\.([\w@]+)")
_WORD = re.compile(r"[^\s()<>=!*+]+")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds, and the values it was judged by, in the order of their names."""

    holds: bool
    values: Mapping[str, float]


@dataclass
class _Reader:
    """Reads tokens from left to right; every method returns the value of what it has read."""

    text: str
    lookup: Callable[[str, str], float]
    tokens: list[_Token]
    at: int = 0
    depth: int = 0
    values: dict[str, float] = field(default_factory=dict)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def accept(self, *texts: str) -> str:
        """Go past the next sign or word if it is one of these."""
        if self.next.kind == "sign" and self.next.text in texts:
            self.at += 1
            return self.tokens[self.at - 1].text
        return ""

    def error(self, problem: str, hint: str = "") -> UsageError:
        return _error(self.text, self.next.start, problem, hint)

    def condition(self) -> bool:
        holds = self.clause()
        while self.accept("or"):
            # Both sides are read in any case, since a mistake in the second must be found.
            other = self.clause()
            holds = holds or other
        return holds

    def clause(self) -> bool:
        holds = self.test()
        while self.accept("and"):
            other = self.test()
            holds = holds and other
        return holds

    def test(self) -> bool:
        self.deeper()
        if self.accept("not"):
            holds = not self.test()
        elif self.next.text == "(" and self.is_condition():
            self.accept("(")
            holds = self.condition()
            self.close()
        else:
            left = self.sum()
            sign = self.accept(*_TESTS)
            if not sign:
                raise self.error("a comparison is missing", "write for example `a.acc < 0.9`")
            holds = _TESTS[sign](left, self.sum())
        self.depth -= 1
        return holds

    def is_condition(self) -> bool:
        """Tell whether the parenthesis that opens here holds a comparison."""
        level = 0
        for token in self.tokens[self.at :]:
            level += (token.text == "(") - (token.text == ")")
            if level == 0:
                return False
            if token.kind == "sign" and token.text in (*_TESTS, "and", "or", "not"):
                return True
        return False

    def sum(self) -> float:
        value = self.product()
        while sign := self.accept("+", "-"):
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> float:
        value = self.factor()
        while sign := self.accept("*", "/"):
            before = self.next
            other = self.factor()
            if sign == "/" and other == 0:
                raise _error(self.text, before.start, "division by zero", "")
            value = value * other if sign == "*" else value / other
        return value

    def factor(self) -> float:
        self.deeper()
        token = self.next
        if self.accept("-"):
            value = -self.factor()
        elif self.accept("("):
            value = self.sum()
            self.close()
        elif token.kind == "number":
            self.at += 1
            value = _number(self.text, token)
        elif token.kind == "name":
            value = self.named(token)
            self.at += 1
        else:
            shown = f"`{token.text}`" if token.text else "the end"
            raise self.error(f"a number or NAME.MEASURE is missing before {shown}")
        self.depth -= 1
        return value

    def named(self, token: _Token) -> float:
        name, _, measure = token.text.rpartition(".")
        try:
            value = self.lookup(name, measure)
        except UsageError as error:
            raise self.error(error.message, error.hint) from error
        self.values[token.text] = value
        return value

    def close(self) -> None:
        if not self.accept(")"):
            raise self.error("`)` is missing")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _LIMIT_DEPTH:
            raise self.error("nested deeper than anyone can read")


def judge_condition(
    text: str, names: Iterable[str], lookup: Callable[[str, str], float]
) -> Verdict:
    """Return whether a condition holds.

    Args:
        text: the condition.
        names: known names, which may contain any characters but stand before ``.measure``.
        lookup: returns the value of a name's measure; raises UsageError if there is none.

    Raises:
        UsageError: the condition cannot be read; the message says at which column.

    >>> values = {"a": 2.0, "b": 3.0}
    >>> condition = "a.x + 1 >= b.x and not b.x < 2"
    >>> judge_condition(condition, values, lambda name, measure: values[name])
    Verdict(holds=True, values={'a.x': 2.0, 'b.x': 3.0})
    """
    reader = _Reader(text, lookup, _tokens(text, names))
    holds = reader.condition()
    if reader.next.kind != "end":
        hint = "join comparisons with `and` or `or`"
        raise reader.error(f"`{reader.next.text}` is not expected here", hint)
    return Verdict(holds, reader.values)


def _tokens(text: str, names: Iterable[str]) -> list[_Token]:
    ordered = sorted(names, key=len, reverse=True)
    reference = (
        re.compile(rf"({'|'.join(map(re.escape, ordered))})\.([\w@]+)") if ordered else _REFERENCE
    )
    kinds = (("name", reference), ("number", _NUMBER), ("sign", _SIGN), ("name", _REFERENCE))
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = next((t for kind, pattern in kinds if (t := _match(kind, pattern, text, at))), None)
        if token is None:
            raise _explain_unknown(text, at, ordered)
        tokens.append(token)
        at += len(token.text)
    return [*tokens, _Token("end", "", len(text))]


def _match(kind: str, pattern: re.Pattern[str], text: str, at: int) -> _Token | None:
    match = pattern.match(text, at)
    return _Token(kind, match[0], at) if match else None


def _explain_unknown(text: str, at: int, names: Iterable[str]) -> UsageError:
    match = _WORD.match(text, at)
    word = match[0] if match else text[at]
    hint = suggest(word, [*names, "and", "or", "not"])
    example = "write NAME.MEASURE, for example `fedmp.bytes`"
    return _error(text, at, f"`{word}` is neither a measure nor a number", hint or example)


def _number(text: str, token: _Token) -> float:
    match = _NUMBER.fullmatch(token.text)
    number, unit = (match[1], match[2]) if match else (token.text, "")
    if not unit:
        return float(number)
    if unit == "%":
        return parse_share(token.text)
    try:
        return parse_bytes(token.text) if unit.lower().endswith("b") else parse_seconds(token.text)
    except ValueError as error:
        hint = "units are those of bytes and of time, and %"
        raise _error(text, token.start, str(error), hint) from error


def _error(text: str, at: int, problem: str, hint: str) -> UsageError:
    return UsageError(
        f"--fail-if: column {at + 1} of `{text}`: {problem}",
        hint=hint or "for example `fedmp.bytes > fedavg.bytes`",
        where="--fail-if",
    )
