"""One call of a command that trains: from its options to a recipe, and from that to a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fpcli.cli.build_command import read_options
from fpcli.cli.session import Session
from fpcli.cli.words import make_importable, split_overrides
from fpcli.errors import FpError, ResumeError, UsageError
from fpcli.files import delete_folder
from fpcli.plugins import is_code
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import FitRecipe, Recipe, code_words
from fpcli.user_code import locate_failure

if TYPE_CHECKING:
    from fpcli.cli.watch import Watch
    from fpcli.store.run_folder import RunFolder

_R = TypeVar("_R", Recipe, FitRecipe)


@dataclass(frozen=True)
class Call(Generic[_R]):
    """The options of one call.

    Attributes:
        command: the first word.
        cls: the kind of recipe that it reads.
    """

    command: ClassVar[str]
    cls: ClassVar[Any]

    options: Mapping[str, Any]

    @property
    def run(self) -> str | None:
        """The run that is resumed, if one is."""
        name: str | None = self.options["resume"]
        return name

    def recipe(self) -> _R:
        """Return what the recipe file (of the run that is resumed) and the options say together."""
        from fpcli.recipe.load import find_recipe, load_recipe

        flags: dict[str, Any] = self.flags()
        pairs: list[tuple[str, str]] = split_overrides(self.options["set_"])
        make_importable([*flags.values(), *(value for _, value in pairs)])
        path = None
        if self.run is not None:
            self._check_resume()
            folder = self.folder()
            path = folder.recipe
            self._check_kind(path, f"{folder.path} is a run", f"--resume {folder.path}")
        elif name := self.options["recipe"]:
            path = find_recipe(name)
            self._check_kind(path, f"{name} is a recipe", f"-c {name}")
        recipe: _R = load_recipe(path, pairs, flags, cls=self.cls)
        return recipe

    def folder(self) -> RunFolder:
        """Return the folder of the run that is resumed."""
        return open_run(self.run or "", self.options["runs"])

    def stored(self, folder: RunFolder) -> _R:
        """Return the recipe of the run that is resumed, as it was."""
        from fpcli.recipe.load import load_recipe

        # Code that the file names may run only if the command line names the same code.
        text = folder.recipe.read_text("utf-8")
        changes = dict(split_overrides(self.options["set_"])) | self.flags()
        same = {k: v for k, v in changes.items() if is_code(str(v)) and str(v) in text}
        recipe: _R = load_recipe(folder.recipe, (), same, cls=self.cls)
        return recipe

    def flags(self) -> dict[str, Any]:
        """Return dotted key -> value of every option that was given."""
        return read_options(self.options, collect_flags(self.cls))

    def _check_resume(self) -> None:
        for name in ("recipe", "name"):
            if self.options[name]:
                raise UsageError(
                    f"--resume and --{name} exclude each other",
                    hint="a resumed run keeps its recipe and name; --set changes single keys",
                    where=f"--{name}",
                )

    def _check_kind(self, path: Path, what: str, words: str) -> None:
        from fpcli.recipe.load import find_command

        command = find_command(path)
        if command != self.command:
            raise UsageError(
                f"{what} of `fp {command}`, not of `fp {self.command}`",
                hint=f"`fp {command} {words}`",
                where=str(path),
            )

    def carry_out(
        self,
        session: Session,
        watch: Callable[..., Watch],
        run: Callable[..., Any],
        check: Callable[[Any], Any],
        around: Callable[..., AbstractContextManager[Any]] | None = None,
    ) -> tuple[RunFolder, _R, Any]:
        """Start or resume the run.

        Args:
            watch: makes what shows the progress.
            run: trains in a folder, ``play_federated`` or ``play_fit``.
            check: refuses a recipe that cannot begin, before it takes the place of an earlier run.
            around: of (watcher, recipe, folder), gives the watcher to use while the run goes on.

        Returns:
            Folder, recipe and summary.
        """
        from fpcli.store.run_folder import RunFolder
        from fpcli.store.run_name import AUTO, choose_name, number_name

        recipe, options = self.recipe(), self.options
        stored = None
        if self.run is not None:
            folder = self.folder()
            stored = self.stored(folder)
        else:
            name = options["name"] or choose_name(recipe)
            if name == AUTO:
                name = number_name(options["runs"], choose_name(recipe))
            if options["force"] and (options["runs"] / name / "recipe.yaml").exists():
                check(recipe)
            folder = RunFolder.create(options["runs"], name, recipe, force=options["force"])
        session.log = folder.log
        session.again = f"fp resume {shlex.quote(str(folder.path))}{code_words(recipe)}"
        watcher = watch(
            session,
            folder,
            is_quiet=options["quiet"],
            is_moving=not (options["no_progress"] or session.is_lines),
        )
        wrapped = around(watcher, recipe, folder) if around else nullcontext(watcher)
        with _cleanup(session, folder, watcher, is_new=self.run is None), wrapped as listener:
            words, force = ("fp", *sys.argv[1:]), options["force"]
            summary = run(recipe, folder, listener, stored=stored, command=words, force=force)
        return folder, recipe, summary


@contextmanager
def _cleanup(
    session: Session, folder: RunFolder, watcher: Watch, *, is_new: bool
) -> Iterator[None]:
    """Leave a clear screen, and no folder of a run that failed before it had anything to keep."""
    try:
        yield
    except ResumeError:  # another process works there
        raise
    except (Exception, KeyboardInterrupt) as error:
        is_explained = isinstance(error, FpError | KeyboardInterrupt) or locate_failure(error)
        if is_explained and is_new and not folder.checkpoints.exists():
            session.log = None
            with suppress(FpError):
                delete_folder(folder.path)
        raise
    finally:
        watcher.end()


def check_output(options: Mapping[str, Any]) -> None:
    """Check that there is one form of output.

    Raises:
        UsageError: there are two.
    """
    if options["json"] and options["json_lines"]:
        raise UsageError("--json and --json-lines exclude each other", hint="give one of them")


def open_run(run: str, runs: Path) -> RunFolder:
    """Return the folder of a run, which may go without that of all runs.

    Raises:
        ResumeError: there is none.
    """
    from fpcli.store.run_folder import RunFolder

    path = Path(run)
    return RunFolder.open(runs / path if (runs / path).is_dir() and not path.is_dir() else path)
