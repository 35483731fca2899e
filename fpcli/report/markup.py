"""Pieces of HTML; every text that goes in is escaped here, and only here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from fpcli.report.canvas import style_series
from fpcli.report.charts import Line, draw_chart
from fpcli.report.curves import Chart

_DASHES = {"-": "", "--": "5 3", ":": "2 3", "-.": "6 3 2 3"}
_MARKERS = {
    "o": "M16 5a3 3 0 1 1-6 0a3 3 0 1 1 6 0Z",
    "s": "M10.3 2.3h5.4v5.4h-5.4Z",
    "^": "M13 1.6L16.4 8H9.6Z",
    "D": "M13 1.4L16.6 5L13 8.6L9.4 5Z",
    "v": "M13 8.4L9.6 2H16.4Z",
    "P": "M12 1.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5Z",
    "X": "M10 3l1-1l2 2l2-2l1 1l-2 2l2 2l-1 1l-2-2l-2 2l-1-1l2-2Z",
    "*": "M13 1l1 3h3l-2.5 1.8l1 3l-2.5-1.9l-2.5 1.9l1-3L9 4h3Z",
}
"""Dashes and markers of ``canvas.style_series`` in a sample of 26 by 10."""

_ABSOLUTE = re.compile(
    r"""(?:(?<![^\s'"=:,;(\[`])|(?<=file://))  # where a word begins, or a value in it
    (?:[A-Za-z]:[\\/]|/)(?:[^\s'"`,;\\/]+[\\/])*  # folders, from the root
    (?=[\w.])""",
    re.VERBOSE,
)


def hide_folders(words: str) -> str:
    """Return a text with the last part only of every absolute path: a page goes to strangers.

    >>> hide_folders("npz:/home/me/organs.npz is not 'C:\\\\data\\\\x' or runs/a")
    "npz:…/organs.npz is not '…/x' or runs/a"
    """
    return _ABSOLUTE.sub("…/", words)


def escape(words: str) -> str:
    """Return a text that cannot be taken for markup, without absolute paths and without characters
    that hide or reorder it.

    >>> escape("<b>&\\u202e")
    '&lt;b&gt;&amp;�'
    """
    words = hide_folders(words)
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
    return make_element("div", make_table(("", ""), pairs), "facts")


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
        style = style_series(line.number)
        sample = (
            '<svg viewBox="0 0 26 10" aria-hidden="true"><path d="M1 5H25" '
            f'stroke="var(--s{style.colour})" stroke-width="2.4" '
            f'stroke-dasharray="{_DASHES[style.dashes]}"/>'
            f'<path d="{_MARKERS[style.marker]}" fill="var(--s{style.colour})"/></svg>'
        )
        samples.append(make_element("li", sample + escape(line.label)))
    return make_element("ul", "".join(samples), "legend")


def make_chart(chart: Chart, name: str, *, has_legend: bool) -> str:
    """Return a chart with its title, its legend and its note."""
    axes = f"{chart.y.title} against {chart.x.title}"
    about = hide_folders(f"{chart.title}: {axes}, {len(chart.lines)} lines")
    drawn = draw_chart(chart.lines, chart.x, chart.y, name=name, about=about)
    below = (make_legend(chart.lines) if has_legend else "") + escape(chart.note)
    head = make_element("figcaption", make_element("b", escape(chart.title)))
    return make_element(
        "figure", head + drawn + (make_element("figcaption", below) if below else "")
    )
