from __future__ import annotations

import itertools

from fpcli.report.canvas import BLUE, NUM_STYLES, ORANGE, SERIES, describe_series, style_series


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2), which is what grey paper shows."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(factor * x for factor, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_series_can_be_told_apart_without_colour() -> None:
    styles = [style_series(number) for number in range(NUM_STYLES)]
    assert len({(style.dashes, style.marker) for style in styles}) == NUM_STYLES
    assert len({style.colour for style in styles[: len(SERIES)]}) == len(SERIES)


def test_the_two_colours_of_most_pictures_differ_in_grey() -> None:
    assert luminance(ORANGE) > 2 * luminance(BLUE)


def test_every_line_has_markers_but_no_crowd_of_them() -> None:
    for number, points in itertools.product(range(9), (1, 2, 7, 30, 150)):
        start, every = describe_series(number, points)["markevery"]
        assert 1 <= len(range(start, points, every)) <= 13
