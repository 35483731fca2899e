from __future__ import annotations

import re
from pathlib import Path

import fpcli
from fpcli import errors
from fpcli.error_pages import PAGES
from fpcli.unlearn.ratio_search import NotForgottenError

SOURCES = sorted(Path(fpcli.__file__).parent.rglob("*.py"))
SIGNALS = {"F130", "F143"}


def test_every_code_of_the_source_has_a_page_and_no_other_has() -> None:
    """Those of signals are made from their numbers."""
    used = {
        code
        for path in SOURCES
        if path.name != "error_pages.py"
        for code in re.findall(r'"(F\d{3})"', path.read_text("utf-8"))
    }
    assert used | SIGNALS == set(PAGES)


def test_pages_are_in_order_and_say_something() -> None:
    assert list(PAGES) == sorted(PAGES)
    for code, page in PAGES.items():
        assert page.code == code
        assert all(text.endswith(".") for text in (page.meaning, page.causes, page.remedies))
        assert "\n" not in page.meaning


def test_a_class_ends_with_the_status_of_its_page_and_no_two_share_a_code() -> None:
    classes = [errors.FpError, *errors.FpError.__subclasses__(), NotForgottenError]
    kinds = [kind for kind in classes if kind.__module__.startswith("fpcli.")]
    ours = [kind for kind in kinds if kind.__module__ != "fpcli.cli.app"]  # stopped by a signal
    assert len({kind.code for kind in ours}) == len(ours) >= 12
    assert {kind.code: kind.exit_status for kind in ours} == {
        kind.code: PAGES[kind.code].status for kind in ours
    }


def test_what_is_no_error_has_no_status() -> None:
    going_on = {code for code, page in PAGES.items() if page.status is None}
    assert going_on == {"F302", *(f"F{number}" for number in range(402, 414))}
