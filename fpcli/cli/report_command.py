"""`fp report`: runs as one page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fpcli.cli import compare_command as c
from fpcli.cli import options as o
from fpcli.errors import UsageError
from fpcli.settings.flags import Flag

Output = Annotated[
    Path | None,
    Flag(
        "-o/--output FILE",
        "Where the page goes",
        default="report.html, in the run's folder if there is one run",
    ),
]
Open = Annotated[bool, Flag("--open", "Show the page in the browser")]


def report(
    ctx: typer.Context,
    run: c.RunPaths,
    output: Output = None,
    force: o.ReplaceFile = False,
    open_: Open = False,
    target: c.Target = None,
    at: c.At = None,
    by: c.By = None,
    reference: c.Reference = None,
    runs: o.Runs = Path("runs"),
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a page with the numbers, curves and settings of runs.

    It is one file without scripts that needs no network.
    """
    found = c.load(run, runs, target=target, at=at, by=by, reference=reference)
    from fpcli.files import write_atomic
    from fpcli.report.page import page

    paths = [one.path for row in found.rows for one in row.runs]
    output = output or (paths[0] if len(paths) == 1 else Path()) / "report.html"
    if output.exists() and not force:
        raise UsageError(
            f"{output} exists", hint="`--force` replaces it, `-o FILE` names another", where="-o"
        )
    if not output.parent.is_dir():
        raise UsageError(
            f"-o: there is no folder {output.parent}", hint="make it first", where="-o"
        )
    write_atomic(output, page(found))
    ctx.obj.warnings += found.warnings
    ctx.obj.warn()
    ctx.obj.finish({"page": str(output), "bytes": output.stat().st_size}, f"wrote {output}")
    if open_:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())
