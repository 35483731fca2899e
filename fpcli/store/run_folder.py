"""The folder of one run: what lies where, whole files only, one process at a time."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fpcli.errors import FpError, ResumeError, UsageError, suggest
from fpcli.files import cannot_write, delete_folder, list_checksums, write_atomic
from fpcli.recipe.load import to_yaml
from fpcli.settings.recipes import AnyRecipe
from fpcli.store.run_name import explain_taken
from fpcli.version import __version__

_NAME = re.compile(r"\w(?:[\w. +-]{0,118}\w)?")
_BEFORE_RECIPE = ("lock", "lock.pid", "log.txt", "command.txt", "environment.json")
"""Files that an end before or amid the writing of the recipe may leave in a folder."""
_RESULT = (
    "recipe.yaml", "events.jsonl", "final", "pruned", "forgetting.safetensors", "search.json",
    "unlearn.json",
)  # fmt: skip
"""Files and folders that SHA256SUMS vouches for; the last four are of `fp unlearn`."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run; its checkpoints are written by ``store.checkpoint``."""

    path: Path

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        name: str,
        recipe: AnyRecipe,
        *,
        force: bool = False,
        command: str = "",
    ) -> RunFolder:
        """Make the folder of a new run, which its recipe makes one.

        What a crash left of a folder that never had a recipe is free for a new run.

        Args:
            runs_dir: made where it is missing.
            name: of the run.
            force: delete an earlier run of that name; never anything else.
            command: as for :func:`run_name.explain_taken`.

        Raises:
            UsageError: the name is taken, or is no file name.
            ResumeError: a live process works on the earlier run, or on this very one.
            NeedError: the folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"`{name}` cannot be the name of a run",
                hint="use letters, digits, `-`, `_` and `.`",
                where="--name",
            )
        folder = cls(runs_dir / name)
        path = folder.path
        try:
            if force and not folder._is_free():
                _check_deletable(path)
                delete_folder(path)
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            if not path.exists():  # what stands in the way is a folder above
                raise cannot_write(path, error) from error
        except OSError as error:
            raise cannot_write(path, error) from error
        if folder._is_free():
            with folder.lock():
                if not folder.recipe.exists():  # no other process was quicker
                    folder.write_recipe(recipe)
                    return folder
        raise explain_taken(path, recipe, command)

    def _is_free(self) -> bool:
        """Tell whether all that is there may stand in a folder without a recipe."""
        if self.path.is_symlink() or not self.path.is_dir():
            return False
        leftovers = {
            *_BEFORE_RECIPE,
            *(f".{name}.tmp" for name in (*_BEFORE_RECIPE, "recipe.yaml")),
        }
        return {item.name for item in self.path.iterdir()} <= leftovers

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the folder of an existing run.

        Raises:
            ResumeError: nothing is there, or it is no run.
        """
        if (path / "recipe.yaml").is_file():
            return cls(path)
        problem = "is not a run: it has no recipe.yaml" if path.exists() else "does not exist"
        hint = (
            suggest(path.name, (run.name for run in list_runs(path.parent)))
            or f"runs are the folders in {path.parent}"
        )
        raise ResumeError(f"{path} {problem}", hint=hint, where=str(path))

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def events(self) -> Path:
        """One JSON line per event (``store.events``)."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """What went to the terminal."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint (``store.checkpoint``)."""
        return self.path / "checkpoints"

    @property
    def memory(self) -> Path:
        """What clients remember between rounds, where the method lets them (``engine.memory``)."""
        return self.path / "memory"

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.path / "final"

    @property
    def purged(self) -> Path:
        """Says why checkpoints and model are gone, where they were deleted (``store.purge``)."""
        return self.path / "purged.txt"

    @property
    def is_whole(self) -> bool:
        """Whether the run was finished, and nothing of its result has changed since."""
        path = self.path / "SHA256SUMS"
        return path.is_file() and path.read_bytes() == self._checksums().encode()

    def write_recipe(self, recipe: AnyRecipe) -> None:
        """Write the resolved recipe, which makes the folder a run."""
        write_atomic(self.recipe, to_yaml(recipe))

    def add_command(self, words: Sequence[str]) -> None:
        """Add a command line to command.txt; a resumed run has several."""
        path = self.path / "command.txt"
        earlier = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        write_atomic(path, f"{earlier}{shlex.join(words)}\n")

    def write_environment(self) -> None:
        """Write environment.json, once: what the numbers of this run may depend on."""
        path = self.path / "environment.json"
        if not path.exists():
            write_atomic(path, json.dumps(describe_environment(), indent=1) + "\n")

    def add_log(self, text: str) -> None:
        """Add one line to log.txt."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(text.rstrip("\n") + "\n")
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def write_checksums(self) -> None:
        """Write SHA256SUMS over everything in `_RESULT` that is there."""
        write_atomic(self.path / "SHA256SUMS", self._checksums())

    def _checksums(self) -> str:
        listed = [self.path / name for name in _RESULT]
        inside = [path for folder in listed for path in sorted(folder.rglob("*"))]
        return list_checksums(self.path, [path for path in [*listed, *inside] if path.is_file()])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while this one works on the run.

        Raises:
            ResumeError: a live process works on it.
            NeedError: the lock cannot be written.
        """
        # The number stands beside the lock, since a locked file cannot be read everywhere.
        owner = self.path / "lock.pid"
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise _in_use(self.path, owner) from error
        except OSError as error:
            raise cannot_write(self.path / "lock", error) from error
        try:
            write_atomic(owner, f"{os.getpid()}\n")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def list_runs(folder: Path) -> list[Path]:
    """Return the runs that a folder holds, sorted."""
    return sorted(path.parent for path in folder.glob("[!.]*/recipe.yaml"))


def _in_use(path: Path, owner: Path) -> FpError:
    process = owner.read_text("utf-8", errors="replace").strip() if owner.is_file() else "unknown"
    return ResumeError(
        f"run {path} is in use by a live process (number {process})",
        hint="wait until it ends, or stop it first",
        where=str(path / "lock"),
    )


def _check_deletable(path: Path) -> None:
    recipe = path / "recipe.yaml"
    is_run = recipe.is_file() and recipe.read_bytes()[:7] == b"recipe:"
    if path.is_symlink() or (path.exists() and not is_run):
        raise UsageError(
            f"`--force` deletes only earlier runs, and {path} is none",
            hint="choose another name with `--name`, or delete it yourself",
            where="--name",
        )
    for inner in path.rglob("recipe.yaml"):  # runs of `fp unlearn` hold others
        with RunFolder(inner.parent).lock():
            pass


def describe_environment() -> dict[str, Any]:
    """Return versions, processor count and thread settings; nothing about who or where."""
    import torch  # only here: a folder is read without it

    packages = ("torch", "torchvision", "torch-pruning", "numpy")
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "fpcli": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "thread_settings": {name: os.environ.get(name) for name in threads},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
