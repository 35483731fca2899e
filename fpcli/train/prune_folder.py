"""The folder that a pruning ends in: the small model, what was done, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.errors import UsageError
from fpcli.files import list_checksums, replace_folder, write_atomic
from fpcli.pruning.prune import Pruned
from fpcli.recipe.load import to_yaml
from fpcli.report.prune_plots import draw_pruning
from fpcli.settings.recipes import PruneRecipe
from fpcli.store.model_folder import write_trained
from fpcli.store.run_folder import describe_environment


def check_free(folder: Path, *, force: bool) -> None:
    """Make sure that an output folder may be written.

    Args:
        force: what stands there may go, if it is the output of an earlier pruning.

    Raises:
        UsageError: something stands there.
    """
    if not (folder.exists() or folder.is_symlink()):
        return
    is_ours = (folder / "report.json").is_file() and (folder / "layout.json").is_file()
    if folder.is_symlink() or not is_ours:
        raise UsageError(
            f"{folder} exists, and is no output of `fp prune`",
            hint="choose another folder with `-o`",
            where="-o",
        )
    if not force:
        raise UsageError(
            f"{folder} exists",
            hint="choose another folder with `-o`, or replace it with `--force`",
            where="-o",
        )


def write_pruned(
    folder: Path,
    result: Pruned,
    *,
    recipe: PruneRecipe,
    report: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    force: bool = False,
) -> None:
    """Write the folder of a pruning, as a whole.

    Raises:
        UsageError: see :func:`check_free`.
        NeedError: the folder cannot be written.
    """
    check_free(folder, force=force)
    with replace_folder(folder) as fresh:
        write_trained(fresh, result.trained)
        write_atomic(fresh / "recipe.yaml", to_yaml(recipe))
        write_atomic(fresh / "report.json", json.dumps(report, indent=1) + "\n")
        lines = "".join(json.dumps(event) + "\n" for event in history)
        write_atomic(fresh / "history.jsonl", lines)
        write_atomic(
            fresh / "environment.json", json.dumps(describe_environment(), indent=1) + "\n"
        )
        draw_pruning(result.widths, history, fresh)
        files = sorted(path for path in fresh.iterdir() if path.is_file())
        write_atomic(fresh / "SHA256SUMS", list_checksums(fresh, files))
