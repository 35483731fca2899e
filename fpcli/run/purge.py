"""Delete the models of a run that must not be kept, so that every later use says so."""

from __future__ import annotations

import shutil
from pathlib import Path

from fpcli.files import cannot_write, write_atomic
from fpcli.run.folder import RunFolder


def num_checkpoints(folder: RunFolder) -> int:
    """Return how many checkpoints a run has."""
    return len(list(folder.checkpoints.glob("round-*")))


def purge(folder: RunFolder, reason: str) -> None:
    """Delete a run's checkpoints, its clients' memories and its final model.

    Recipe, events, log and pictures stay, and SHA256SUMS vouches for what is left. ``purged.txt``
    comes first, so that a run which is half deleted is already refused everywhere.

    Args:
        reason: for ``purged.txt``.

    Raises:
        ResumeError: a live process works on the run.
        NeedError: something cannot be deleted; the same call goes on with it.
    """
    with folder.lock():
        write_atomic(folder.purged, reason + "\n")
        _delete(folder.checkpoints, folder.path / "memory", folder.final)
        folder.write_checksums()


def purge_unlearned(folder: RunFolder) -> None:
    """Delete what an unlearning keeps of the original model: the pruned model, and all checkpoints
    but the newest.

    Raises:
        ResumeError: a live process works on the run.
        NeedError: something cannot be deleted.
    """
    with folder.lock():
        _delete(folder.path / "pruned", *sorted(folder.checkpoints.glob("round-*"))[:-1])
        folder.write_checksums()


def _delete(*paths: Path) -> None:
    for path in paths:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
