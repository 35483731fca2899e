from __future__ import annotations

import re
import xml.etree.ElementTree

import pytest

from fpcli.report.charts import ChartAxis, Line, draw_chart

STEPS = [(float(number), 1 - 1 / number) for number in range(1, 1001)]


ROUND = ChartAxis("round", "count", 0)


def draw(lines: list[Line], x: ChartAxis = ROUND, **more: str) -> str:
    said = {"name": "c1-", "about": "a < b"} | more
    return draw_chart(lines, x, ChartAxis("accuracy", "percent", 0, 1.02), **said)


def words(svg: str) -> list[str]:
    root = xml.etree.ElementTree.fromstring(svg)
    return [node.text or "" for node in root.iter() if node.tag.endswith("text")]


def test_a_chart_is_an_element_of_the_page() -> None:
    band = [(x, y - 0.1, y + 0.1) for x, y in STEPS]
    svg = draw([Line("one", 0, STEPS, band), Line("two", 9, STEPS)])
    assert svg.startswith('<svg role="img" aria-label="a &lt; b"')
    assert {"round", "accuracy (%)", "100"} <= set(words(svg))
    assert "var(--s0)" in svg and "var(--s1)" in svg and "var(--ink)" in svg
    assert "stroke-dasharray" in svg  # the ninth series after the first eight
    assert not re.search(r"#[0-9a-f]{6}\b", svg)  # no colour that a dark page could not change
    assert "<style" not in svg and "font-family" not in svg and "DejaVu" not in svg
    assert " width=" not in svg[: svg.index(">")]
    assert len(svg) < 20_000  # 1,000 rounds


def test_ids_of_charts_do_not_meet() -> None:
    first, second = draw([Line("a", 0, STEPS)]), draw([Line("a", 0, STEPS)], name="c2-")
    ids = re.findall(r' id="([^"]*)"', first)
    assert ids and all(name.startswith("c1-") for name in ids)
    assert not set(ids) & set(re.findall(r' id="([^"]*)"', second))
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', first)
    assert used and set(used) <= set(ids)


@pytest.mark.parametrize(
    ("kind", "highest", "label"),
    [
        ("bytes", 2e6, "x (MB)"), ("bytes", 10, "x (B)"), ("seconds", 90, "x (min)"),
        ("seconds", 59, "x (s)"), ("number", 9, "x"), ("amount", 9e6, "x (millions)"),
        ("amount", 9, "x"),
    ],
)  # fmt: skip
def test_units_of_an_axis(kind: str, highest: float, label: str) -> None:
    assert label in words(
        draw([Line("a", 0, [(0.0, 0.1), (highest, 0.2)])], ChartAxis("x", kind, 0))
    )


@pytest.mark.parametrize("points", [[], [(1.0, 0.5)]])
def test_few_points(points: list) -> None:
    assert draw([Line("a", 0, points)]).endswith("</svg>")


def test_the_same_chart_is_the_same_text() -> None:
    assert draw([Line("a", 0, STEPS)]) == draw([Line("a", 0, STEPS)])
