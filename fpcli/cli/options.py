"""The options of commands that set no key of a recipe, as far as several commands have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fpcli.settings.flags import OUTPUT, RUN, TASK, Flag
from fpcli.settings.tasks import DATA_DIR

RecipeName = Annotated[
    str | None,
    Flag("-c/--recipe NAME|FILE", "Recipe: a YAML file or a shipped name", TASK, default="none"),
]
Settings = Annotated[
    list[str] | None, Flag("--set KEY=VALUE", "Set any key of the recipe; may be repeated", TASK)
]
DataDir = Annotated[str | None, DATA_DIR]
RUNS = Flag("--runs DIR", "Folder of all runs", RUN)
Runs = Annotated[Path, RUNS]
NAME = Flag("--name NAME", "Folder of the run", RUN)
Resume = Annotated[str | None, Flag("--resume RUN", "Go on with an earlier run", RUN)]
Force = Annotated[
    bool,
    Flag("--force", "Replace a run of that name; with --resume: change recipe, start over", RUN),
]
ReplaceFile = Annotated[bool, Flag("--force", "Replace a file that exists")]
ReplaceFiles = Annotated[bool, Flag("--force", "Replace files that exist", OUTPUT)]
Json = Annotated[bool, Flag("--json", "Print the result as one JSON object", OUTPUT)]
Quiet = Annotated[bool, Flag("-q/--quiet", "Show warnings and the result only", OUTPUT)]
NoProgress = Annotated[
    bool,
    Flag(
        "--no-progress", "No moving bar (or set FP_NO_PROGRESS=1)", OUTPUT, envvar="FP_NO_PROGRESS"
    ),
]
Debug = Annotated[bool, Flag("--debug", "Show the traceback of an error", OUTPUT)]
