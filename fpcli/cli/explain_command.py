"""`fp explain`: what the code of an error means, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fpcli.cli.session import Session
from fpcli.error_pages import PAGES, ErrorPage
from fpcli.errors import UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.flags import Flag

_Code = Annotated[
    str | None,
    Flag("[CODE]", "As errors and warnings begin, such as F301", default="all", known=(*PAGES,)),
]


def run_explain(
    ctx: typer.Context, code: _Code = None, json: o.JsonOutput = False, debug: o.Debug = False
) -> None:
    """Say what the code of an error means, and what to do about it."""
    (_list if code is None else _show)(ctx.obj, code or "")


def _list(session: Session, _: str) -> None:
    from fpcli.cli import show

    rows = [(page.code, _exit(page), page.meaning) for page in PAGES.values()]
    items = [asdict(page) for page in PAGES.values()]
    session.finish({"items": items}, show.align(("code", "exit status", "meaning"), rows))
    session.hint("`fp explain CODE` has causes and remedies")


def _show(session: Session, code: str) -> None:
    from fpcli.cli import show

    page = PAGES.get(code.upper())
    if page is None:
        hint = suggest(code.upper(), PAGES) or "`fp explain` lists all"
        raise UsageError(f"there is no code `{code}`", hint=hint, where="CODE")
    facts = [("causes", page.causes), ("remedies", page.remedies), ("exit status", _exit(page))]
    text = f"{show.prose(f'{page.code}: {page.meaning}')}\n\n{show.align(('', ''), facts)}"
    session.finish({"items": [asdict(page)]}, text)


def _exit(page: ErrorPage) -> str:
    return "-" if page.status is None else str(page.status)
