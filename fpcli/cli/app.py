"""The console script `fp`: its commands, and how every way of failing leaves it."""

from __future__ import annotations

import functools
import io
import itertools
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fpcli.cli import data_command, recipe_command
from fpcli.cli.bench_command import run_bench
from fpcli.cli.build_command import build_command, restore_help
from fpcli.cli.compare_command import run_compare
from fpcli.cli.completion import install_script, prepare_completion, show_script
from fpcli.cli.data_split_command import SPLIT_FLAGS, split_data
from fpcli.cli.doctor_command import run_doctor
from fpcli.cli.explain_command import run_explain
from fpcli.cli.export_command import run_export
from fpcli.cli.fit_command import run_fit
from fpcli.cli.methods_command import run_methods
from fpcli.cli.parser_errors import explain_parser_error
from fpcli.cli.plot_command import run_plot
from fpcli.cli.prune_command import run_prune
from fpcli.cli.report_command import run_report
from fpcli.cli.sensitivity_command import run_sensitivity
from fpcli.cli.session import Session, close_stdout, emit, error_text
from fpcli.cli.train_command import run_train
from fpcli.cli.unlearn_command import run_unlearn
from fpcli.engine.process import prepare_libraries
from fpcli.errors import CodeError, FpError, NeedError, UsageError, suggest
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import FitRecipe, PruneRecipe, Recipe
from fpcli.settings.unlearning import METHOD_FLAGS
from fpcli.user_code import describe_failure, is_wrong_call, locate_failure
from fpcli.version import __version__

cli_app = typer.Typer(
    add_completion=False,  # ours, which names the shell and needs not guess it
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=False,
)
for command, flags in (
    (run_train, collect_flags(Recipe)),
    (run_fit, collect_flags(FitRecipe)),
    (run_sensitivity, {}),
    (run_prune, collect_flags(PruneRecipe)),
    (run_unlearn, METHOD_FLAGS),
    (run_export, {}),
    (run_bench, {}),
    (run_compare, {}),
    (run_report, {}),
    (run_plot, {}),
    (run_methods, {}),
    (run_doctor, {}),
    (run_explain, {}),
):
    cli_app.command(command.__name__.removeprefix("run_"))(build_command(command, flags))
cli_app.add_typer(recipe_command.recipe_app, name="recipe")
cli_app.add_typer(data_command.data_app, name="data")
data_command.data_app.command("split")(build_command(split_data, SPLIT_FLAGS))

# The parser's errors have no public name that all versions of typer share.
_ParserError: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        emit(f"fpcli {__version__}")
        raise typer.Exit


@cli_app.callback()
def _fp(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
    show_completion: Annotated[
        str | None,
        typer.Option(metavar="SHELL", hidden=True, is_eager=True, callback=show_script),
    ] = None,
    install_completion: Annotated[
        str | None,
        typer.Option(
            metavar="SHELL",
            help="bash, zsh or fish; --show-completion prints it.",
            is_eager=True,
            callback=install_script,
        ),
    ] = None,
) -> None:
    """Prune networks, train them federated. Start: `fp train --method fedmp`."""


@functools.cache
def build_parser() -> Any:
    """Return the group of all commands; built once, as it takes longer than to parse a line."""
    group: Any = typer.main.get_command(cli_app)
    restore_help(group)
    return group


def main() -> None:
    """Run the command line and end the process with its exit status."""
    prepare_libraries()
    prepare_completion()
    _settle_streams()
    if "--debug" in sys.argv:
        os.environ["FP_DEBUG"] = "1"  # for the clients of all processes
    warnings.formatwarning = _format_warning
    signal.signal(signal.SIGTERM, _terminate)
    status = run_line(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()
    sys.exit(status)


def _format_warning(message: object, *_place: object, **_line: object) -> str:
    return f"warning: {message}\n"


class _Terminated(BaseException):
    """Another process wants this one to end, which should leave nothing half-written."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _settle_streams() -> None:
    """Make sure that both streams exist and show what they can of every text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run_line(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; errors are reported, not raised."""
    session = Session.of(arguments)
    try:
        return _call(_without_alias(arguments), session)
    except FpError as error:
        return _report_failure(session, error, error)
    except _ParserError as error:
        return _report_failure(session, explain_parser_error(error, session.command), error)
    except (KeyboardInterrupt, typer.Abort, _Terminated) as error:
        number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
        going = f"continue with `{_again(session, session.log.parent)}`" if session.log else ""
        return _report_failure(session, StoppedError(number, hint=going), error)
    except SystemExit as error:
        # The parser ends like this when nobody reads its help text any more.
        if isinstance(error.__context__, BrokenPipeError):
            close_stdout()
            return 0
        raise
    except BrokenPipeError:
        close_stdout()
        return 0
    except Exception as error:
        return _report_unexpected(session, error)


def _call(arguments: Sequence[str], session: Session) -> int:
    command = build_parser()
    words = _with_help(command, arguments, session)
    status = command.main(words, prog_name="fp", standalone_mode=False, obj=session)
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _with_help(command: Any, arguments: Sequence[str], session: Session) -> list[str]:
    """Tell the session which command is meant, and ask a group without a command for its help.

    Raises:
        UsageError: a group has no command of that name.
    """
    path: list[str] = []
    words = iter(arguments)
    for word in words:
        if not hasattr(command, "commands"):
            break
        if word.startswith("-"):
            if any(word in item.opts and not item.is_flag for item in command.params):
                next(words, None)
            continue
        names = list(command.commands)
        if word not in names:
            options = [name for option in command.params for name in option.opts]
            raise UsageError(
                f"unknown command `{' '.join([*path, word])}`",
                hint=suggest(word, [*names, *options]) or f"known: {', '.join(names)}",
            )
        command = command.commands[word]
        path.append(word)
    session.command = " ".join(path)
    if not hasattr(command, "commands"):
        return list(arguments)
    # A list of commands stays plain and short, and so within one screen.
    command.rich_markup_mode = None
    return list(arguments) if len(path) < len(arguments) else [*path, "--help"]


def _without_alias(arguments: Sequence[str]) -> list[str]:
    """Turn ``fp resume RUN`` into ``fp train --resume RUN``, or ``fp fit`` for a run of that, and
    ``fp help COMMAND`` into ``fp COMMAND --help``."""
    if list(arguments[:1]) == ["help"]:
        return [*arguments[1:], "--help"]
    if list(arguments[:1]) != ["resume"]:
        return list(arguments)
    if {"-h", "--help"} & set(arguments):
        return ["train", "--help"]
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise UsageError("`fp resume` needs a run", hint="for example `fp resume runs/NAME`")
    return [_command_of_run(arguments[1:]), "--resume", *arguments[1:]]


def _command_of_run(words: Sequence[str]) -> str:
    from fpcli.cli.call import open_run
    from fpcli.recipe.load import find_command

    runs = "runs"
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith("--runs="):
            runs = word.removeprefix("--runs=")
        elif word == "--runs":
            runs = following
    return find_command(open_run(words[0], Path(runs)).recipe)


class StoppedError(FpError):
    """The user stopped the command by a signal."""

    def __init__(self, number: int, message: str = "stopped", hint: str = "") -> None:
        super().__init__(message, hint=hint, code=f"F{128 + number}")
        self.exit_status = 128 + number


def _report_failure(session: Session, error: FpError, cause: BaseException) -> int:
    if session.is_debug:
        traceback.print_exception(cause)
    if session.log is not None:
        _append(session.log, error_text(error))
    session.fail(error)
    return error.exit_status


def _report_unexpected(session: Session, error: Exception) -> int:
    # By its fields, since importing its module would import torch.
    if type(error).__name__ == "Interrupted":
        return _report_failure(session, _explain_stop(error, session), error)
    if _is_out_of_memory(error):
        hint = "lower --batch-size or --workers, or take a smaller model"
        return _report_failure(session, NeedError("out of memory", hint=hint, code="F502"), error)
    if locate_failure(error):
        return _report_failure(session, _explain_own_code(error), error)
    text = "".join(traceback.format_exception(error))
    log = session.log
    if log is None or not _append(log, text):
        handle, name = tempfile.mkstemp(prefix="fp-", suffix=".log", text=True)
        os.close(handle)
        log = Path(name)
        _append(log, text)
    first = str(error).partition("\n")[0]
    bug = FpError(
        f"internal error: {type(error).__name__}: {first}",
        hint=f"this is our mistake; please report it with the traceback in {log}",
        where=str(log),
    )
    session.log = None
    return _report_failure(session, bug, error)


def _explain_own_code(error: Exception) -> CodeError:
    what = "does not take what it is called with" if is_wrong_call(error) else "failed"
    return CodeError(
        f"your code {what}: {describe_failure(error)}",
        hint="mend that line; `--debug` shows the whole traceback",
        where=locate_failure(error),
    )


def _again(session: Session, folder: Path) -> str:
    return session.again or f"fp resume {folder}"


def _explain_stop(error: Any, session: Session) -> StoppedError:
    name = signal.Signals(error.number).name
    return StoppedError(
        error.number,
        f"stopped by {name}; checkpoint round-{error.round:05d} is kept",
        hint=f"continue with `{_again(session, error.folder)}`",
    )


def _is_out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def _append(path: Path, text: str) -> bool:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")
    except OSError:
        return False
    return True
