"""What a sweep has found so far, beside the file that its result will be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpcli.errors import UsageError
from fpcli.files import write_atomic
from fpcli.pruning.sweep import Tally


def locate_partial(out: Path) -> Path:
    """Return where an unfinished sweep keeps what it has found."""
    return out.with_name(f"{out.name}.partial")


def read_partial(out: Path, identity: Mapping[str, Any], *, force: bool) -> dict[str, Tally]:
    """Return the tallies of an interrupted sweep of the same model and settings, if there is one.

    Args:
        out: where the result goes.
        identity: what both must have in common.
        force: forget what cannot be continued.

    Raises:
        UsageError: the result exists already, or an unfinished sweep is another one or damaged.
    """
    path = locate_partial(out)
    if out.exists() and not force:
        raise UsageError(
            f"{out} exists",
            hint="choose another file with -o, or replace it with --force",
            where="-o",
        )
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["identity"] == json.loads(json.dumps(identity)):
            return {key: _read_tally(tally) for key, tally in content["tallies"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # no sweep of ours, which is refused below like that of another model
    if force:
        return {}
    raise UsageError(
        f"{path} is of an unfinished sweep of another model or with other settings",
        hint="choose another file with -o, or start anew with --force",
        where="-o",
    )


def _read_tally(fields: Mapping[str, Any]) -> Tally:
    fields = dict(fields)
    if "correct" in fields:  # of a version that knew classes only
        fields["metric_sum"] = fields.pop("correct")
    return Tally(**fields)


def write_partial(out: Path, identity: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    """Keep what was found so far.

    Raises:
        NeedError: the file cannot be written.
    """
    content = {
        "identity": identity,
        "tallies": {key: asdict(tally) for key, tally in tallies.items()},
    }
    write_atomic(locate_partial(out), json.dumps(content) + "\n")
