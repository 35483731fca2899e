"""Pieces of HTML; every text that goes in is escaped here, and only here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from fpcli.report.charts import Line, chart
from fpcli.report.curves import Chart

_DASHES = {"-": "", "--": "5 3", ":": "2 3", "-.": "6 3 2 3"}


def text(words: str) -> str:
    """Return a text that cannot be taken for markup, without characters that hide or reorder it.

    >>> text("<b>&\\u202e")
    '&lt;b&gt;&amp;�'
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in words)
    return html.escape(shown)


def element(tag: str, inner: str, kind: str = "") -> str:
    """Return an element around markup."""
    return f'<{tag} class="{kind}">{inner}</{tag}>' if kind else f"<{tag}>{inner}</{tag}>"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a table that scrolls where it is too wide.

    Args:
        right: columns that hold numbers.
    """
    kinds = {0: "name"} | dict.fromkeys(right, "n")

    def line(tag: str, cells: Sequence[str]) -> str:
        inner = (
            element(tag, text(words), kinds.get(number, "")) for number, words in enumerate(cells)
        )
        return element("tr", "".join(inner))

    body = "\n".join(line("td", row) for row in rows)
    head = element("thead", line("th", headers)) if any(headers) else ""
    return element("div", element("table", f"{head}\n<tbody>{body}</tbody>"), "scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values."""
    return table(("", ""), pairs)


def items(texts: Iterable[str], kind: str = "") -> str:
    """Return a list."""
    inner = "".join(element("li", text(words)) for words in texts)
    return element("ul", inner, kind)


def fold(title: str, inner: str) -> str:
    """Return something that is hidden until it is asked for."""
    return element("details", element("summary", text(title)) + inner)


def code(words: str) -> str:
    """Return a text with its line breaks."""
    return element("pre", text(words))


def legend(lines: Iterable[Line]) -> str:
    """Return samples of lines with their names."""
    samples = []
    for line in lines:
        dashes = _DASHES[line.dashes]
        sample = (
            '<svg viewBox="0 0 26 10" aria-hidden="true"><path d="M1 5H25" '
            f'stroke="var(--s{line.colour})" stroke-width="3" stroke-dasharray="{dashes}"/></svg>'
        )
        samples.append(element("li", sample + text(line.label)))
    return element("ul", "".join(samples), "legend")


def figure(found: Chart, name: str, *, has_legend: bool) -> str:
    """Return a chart with its title, its legend and its note."""
    about = f"{found.title}: {found.y.title} against {found.x.title}, {len(found.lines)} lines"
    drawn = chart(found.lines, found.x, found.y, name=name, about=about)
    below = (legend(found.lines) if has_legend else "") + text(found.note)
    head = element("figcaption", element("b", text(found.title)))
    return element("figure", head + drawn + (element("figcaption", below) if below else ""))
