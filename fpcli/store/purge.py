"""Delete the models of a run that must not be kept, so that every later use says so."""

from __future__ import annotations

from fpcli.files import delete_folder, write_atomic
from fpcli.store.run_folder import RunFolder


def count_checkpoints(folder: RunFolder) -> int:
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
        for path in (folder.checkpoints, folder.memory, folder.final):
            delete_folder(path)
        folder.write_checksums()


def purge_unlearned(folder: RunFolder) -> None:
    """Delete what an unlearning keeps of the original model: the pruned model, and all checkpoints
    but the newest.

    Raises:
        ResumeError: a live process works on the run.
        NeedError: something cannot be deleted.
    """
    with folder.lock():
        delete_folder(folder.path / "pruned")
        for path in sorted(folder.checkpoints.glob("round-*"))[:-1]:
            delete_folder(path)
        # Of a call that was cut short; these have lost their name already.
        for left in folder.checkpoints.glob(".round-*"):
            delete_folder(left)
        folder.write_checksums()
