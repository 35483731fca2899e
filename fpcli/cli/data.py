"""`fp data`: the commands about data."""

from __future__ import annotations

import typer

from fpcli.cli.data_split import split

app = typer.Typer(help="Show how data is split over clients.")
app.callback()(lambda: None)  # keeps `split` a command with a name of its own
app.command()(split)
