"""`fp report`: runs as one page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fpcli.cli import compare_command as c
from fpcli.errors import UsageError
from fpcli.settings import options as o
from fpcli.settings.flags import Flag

_Output = Annotated[
    Path | None,
    Flag(
        "-o/--output FILE",
        "Where the page goes",
        default="report.html, in the run's folder if there is one run",
    ),
]
Open = Annotated[bool, Flag("--open", "Show the page in the browser")]


def run_report(
    ctx: typer.Context,
    run: c.RunPaths,
    output: _Output = None,
    force: o.ReplaceFile = False,
    open_: Open = False,
    target: c._Target = None,
    at: c.At = None,
    by: c.By = None,
    reference: c._Reference = None,
    runs: o.Runs = Path("runs"),
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Write a page with the numbers, curves and settings of runs.

    It is one file without scripts that needs no network.
    """
    comparison = c.load_comparison(run, runs, target=target, at=at, by=by, reference=reference)
    from fpcli.files import write_atomic
    from fpcli.report.page import make_page

    paths = [member.path for row in comparison.rows for member in row.runs]
    output = output or (paths[0] if len(paths) == 1 else Path()) / "report.html"
    check_output_file(output, force=force)
    write_atomic(output, make_page(comparison))
    ctx.obj.warnings += comparison.warnings
    ctx.obj.warn()
    ctx.obj.finish({"page": str(output), "bytes": output.stat().st_size}, f"wrote {output}")
    if open_:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def check_output_file(output: Path, *, force: bool) -> None:
    """Make sure that ``-o`` names a file that may be written.

    Raises:
        UsageError: it is there and ``--force`` is not, or its folder is missing.
    """
    if output.exists() and not force:
        raise UsageError(
            f"{output} exists", hint="`--force` replaces it, `-o FILE` names another", where="-o"
        )
    if not output.parent.is_dir():
        raise UsageError(
            f"-o: there is no folder {output.parent}", hint="make it first", where="-o"
        )
