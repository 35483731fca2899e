"""The look of pages: light and dark, wide and narrow, on paper."""

from __future__ import annotations

from collections.abc import Iterable

from fpcli.report.canvas import SERIES

_ON_DARK = (
    "#4fb0ec", "#ff8a3d", "#2fc79a", "#e79bc7", "#dcb43c", "#8ad4f5", "#b79bd6", "#b0b0b0",
)  # fmt: skip
"""``canvas.SERIES`` on a dark screen."""


def _define(colours: Iterable[str]) -> str:
    return " ".join(f"--s{number}: {colour};" for number, colour in enumerate(colours))


_RULES = """
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e4e7ea; --muted: #9aa4ae; --grid: #2c3238; --shade: #1c2125;
    --warn: #f0c060;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 3rem; max-width: 90rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .3rem 0; max-width: 75ch; }
.quiet, figcaption, .tile span { color: var(--muted); font-size: .875rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
.tile { background: var(--shade); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; }
.tile b { display: block; font-size: 1.3rem; font-weight: 600; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid var(--grid); }
td { border-bottom: 1px solid var(--grid); }
.n { text-align: right; }
td.n { white-space: nowrap; }
td.name { min-width: 11rem; overflow-wrap: anywhere; }
.charts {
  display: grid; gap: 1.2rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr));
}
figure { margin: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figcaption b { color: var(--ink); display: block; }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .5rem 0;
  font-size: .875rem;
}
.legend li { overflow-wrap: anywhere; }
.legend svg {
  display: inline-block; width: 26px; height: 10px; vertical-align: middle; margin-right: .4rem;
}
.warnings { border-left: 4px solid var(--warn); padding: .2rem 0 .2rem 1.7rem; margin: 1rem 0; }
.warnings li { color: var(--warn); }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre {
  background: var(--shade); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font: 13px/1.45 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace;
}
footer { margin-top: 3rem; }
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --ink: #000000; --muted: #444444; --grid: #cccccc; --shade: #f5f5f5;
  }
  /* What is folded on the screen has nobody on paper who could open it. */
  details::details-content { content-visibility: visible; block-size: auto; }
  details > *:not(summary) { display: block; }
  summary { list-style: none; break-after: avoid; }
  pre { overflow-wrap: anywhere; white-space: pre-wrap; }
  th, td { padding: .1rem .5rem .1rem 0; }
  td.name { min-width: 8rem; }
  td.n { white-space: normal; }
  details .facts { columns: 2; }
  body { max-width: none; padding: 0; font-size: 11px; }
  .charts { grid-template-columns: repeat(2, 1fr); }
  .scroll { overflow: visible; }
  tr, figure, .tile { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

CSS = f"""
:root {{
  color-scheme: light dark;
  --paper: #ffffff; --ink: #22262b; --muted: #66707a; --grid: #e3e6ea; --shade: #f5f7f9;
  --warn: #8a5a00; {_define(SERIES)}
}}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_define(_ON_DARK)} }} }}
{_RULES}"""
"""Style sheet of a report; ``--s0`` to ``--s7`` are the colours of ``canvas.SERIES``."""
