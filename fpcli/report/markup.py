"""Pieces of HTML; every text that goes in is escaped here, and only here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from fpcli.report.charts import Line, draw_chart
from fpcli.report.curves import Chart

_DASHES = {"-": "", "--": "5 3", ":": "2 3", "-.": "6 3 2 3"}


def escape(words: str) -> str:
    """Return a text that cannot be taken for markup, without characters that hide or reorder it.

    >>> escape("<b>&\\u202e")
    '&lt;b&gt;&amp;�'
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in words)
    return html.escape(shown)


def make_element(tag: str, inner: str, kind: str = "") -> str:
    """Return an element around markup."""
    return f'<{tag} class="{kind}">{inner}</{tag}>' if kind else f"<{tag}>{inner}</{tag}>"


def make_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()
) -> str:
    """Return a table that scrolls where it is too wide.

    Args:
        right: columns that hold numbers.
    """
    kinds = {0: "name"} | dict.fromkeys(right, "n")

    def line(tag: str, cells: Sequence[str]) -> str:
        inner = (
            make_element(tag, escape(words), kinds.get(number, ""))
            for number, words in enumerate(cells)
        )
        return make_element("tr", "".join(inner))

    body = "\n".join(line("td", row) for row in rows)
    head = make_element("thead", line("th", headers)) if any(headers) else ""
    return make_element("div", make_element("table", f"{head}\n<tbody>{body}</tbody>"), "scroll")


def make_facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values."""
    return make_table(("", ""), pairs)


def make_items(texts: Iterable[str], kind: str = "") -> str:
    """Return a list."""
    inner = "".join(make_element("li", escape(words)) for words in texts)
    return make_element("ul", inner, kind)


def fold(title: str, inner: str) -> str:
    """Return something that is hidden until it is asked for."""
    return make_element("details", make_element("summary", escape(title)) + inner)


def make_code(words: str) -> str:
    """Return a text with its line breaks."""
    return make_element("pre", escape(words))


def make_legend(lines: Iterable[Line]) -> str:
    """Return samples of lines with their names."""
    samples = []
    for line in lines:
        dashes = _DASHES[line.dashes]
        sample = (
            '<svg viewBox="0 0 26 10" aria-hidden="true"><path d="M1 5H25" '
            f'stroke="var(--s{line.colour})" stroke-width="3" stroke-dasharray="{dashes}"/></svg>'
        )
        samples.append(make_element("li", sample + escape(line.label)))
    return make_element("ul", "".join(samples), "legend")


def make_chart(chart: Chart, name: str, *, has_legend: bool) -> str:
    """Return a chart with its title, its legend and its note."""
    about = f"{chart.title}: {chart.y.title} against {chart.x.title}, {len(chart.lines)} lines"
    drawn = draw_chart(chart.lines, chart.x, chart.y, name=name, about=about)
    below = (make_legend(chart.lines) if has_legend else "") + escape(chart.note)
    head = make_element("figcaption", make_element("b", escape(chart.title)))
    return make_element(
        "figure", head + drawn + (make_element("figcaption", below) if below else "")
    )
