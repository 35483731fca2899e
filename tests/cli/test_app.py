from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

import fpcli
from fpcli.cli import app
from fpcli.errors import (
    CheckError,
    ClientError,
    CodeError,
    DataError,
    DivergedError,
    FpError,
    LayoutError,
    NeedError,
    RecipeError,
    ResumeError,
    UsageError,
    WireError,
)

HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "numpy", "fpcli.recipe")


def test_help_and_completion_import_nothing_heavy() -> None:
    code = (
        "import sys; from fpcli.cli.app import run_line; status = run_line(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    lines = done.stdout.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80 and not any(
        line.endswith("...") for line in lines if line[:2] == "  "
    )
    for word in (
        "train", "fit", "sensitivity", "prune", "unlearn", "export", "bench", "compare", "report",
        "recipe", "methods", "doctor", "explain", "data", "--version", "--install-completion",
    ):  # fmt: skip
        assert word in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "train", "fit", "sensitivity", "prune", "unlearn", "export", "bench", "compare", "report",
        "methods",
        "doctor", "explain", "recipe", "recipe list", "recipe show", "recipe copy", "recipe check",
        "recipe schema", "data", "data list", "data show", "data fetch", "data check", "data split",
    ],
)  # fmt: skip
def test_every_option_of_every_command_has_help(fp: Callable, command: str) -> None:
    done = fp(*command.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out


def test_no_arguments_show_the_help(fp: Callable) -> None:
    assert fp().out == fp("--help").out == fp("-h").out


def test_a_group_alone_shows_its_commands(fp: Callable) -> None:
    done = fp("data")
    assert done == fp("data", "--help")
    assert (done.status, done.err) == (0, "")
    for word in ("list", "show", "fetch", "check"):
        assert f"\n  {word} " in done.out
    assert "..." not in done.out.partition("Commands:")[2]


def test_version(fp: Callable) -> None:
    assert fp("--version") == (0, f"fpcli {fpcli.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["trian"], "unknown command `trian`", "did you mean `train`?"),
        (["xyz"], "unknown command `xyz`", "known: train, "),
        (["data", "lst"], "unknown command `data lst`", "did you mean `list`?"),
        (["data", "xyz"], "unknown command `data xyz`", "known: list, show"),
        (["data", "show"], "missing argument 'NAME|PATH'", "`fp data show --help` lists"),
        (["data", "list", "--jsn"], "unknown option `--jsn`", "did you mean `--json`?"),
        (["--verson"], "unknown option `--verson`", "did you mean `--version`?"),
        (["train", "--rouns", "3"], "unknown option `--rouns`", "did you mean `--rounds`?"),
        (["train", "--zzz"], "unknown option `--zzz`", "`fp train --help` lists the options"),
        (["train", "--rounds"], "option '--rounds' requires an argument", "`fp train --help`"),
        (["train", "qqqqqq"], "unexpected word `qqqqqq`", "`fp train --help` lists"),
        (["resume"], "`fp resume` needs a run", "for example `fp resume runs/NAME`"),
        (["methods", "fedmpp"], "unknown method `fedmpp`", "did you mean `fedmp`?"),
        (["methods", "--kind", "dens"], "unknown kind `dens`", "did you mean `dense`?"),
    ],
)
def test_wrong_words(fp: Callable, words: list[str], message: str, hint: str) -> None:
    done = fp(*words)
    assert (done.status, done.out) == (2, "")
    first, blank, last = done.err.splitlines()
    assert first.startswith("error[F201]: ")
    assert message in first
    assert blank == ""
    assert last.startswith("hint: ")
    assert hint in last
    place = 2 if words[0] == "data" else 1
    envelope = json.loads(fp(*words[:place], "--json", *words[place:]).out)
    assert list(envelope) == ["format", "command", "status", "data", "warnings", "error"]
    assert (envelope["format"], envelope["status"], envelope["data"]) == (1, "error", {})
    assert list(envelope["error"]) == ["code", "message", "hint", "where"]
    assert message in envelope["error"]["message"]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    # A mock, since what a file of tests raises would be the user's own code.
    monkeypatch.setattr(app, "_call", Mock(side_effect=error))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (UsageError, 2),
        (RecipeError, 3),
        (DataError, 3),
        (LayoutError, 3),
        (CodeError, 3),
        (WireError, 4),
        (ClientError, 4),
        (NeedError, 5),
        (ResumeError, 6),
        (DivergedError, 7),
        (CheckError, 8),
    ],
)
def test_every_kind_of_error_has_its_status(
    fp: Callable, monkeypatch: pytest.MonkeyPatch, kind: type[FpError], status: int
) -> None:
    raising(monkeypatch, kind("it\nbroke", hint="mend it"))
    assert fp("train") == (status, "", f"error[{kind.code}]: it broke\n\nhint: mend it\n")


def test_an_unexpected_error_leaves_a_traceback_in_a_file(
    fp: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raising(monkeypatch, ZeroDivisionError("by zero"))
    done = fp("train", "--json")
    error = json.loads(done.out)["error"]
    assert (done.status, done.err) == (1, "")
    assert error["message"] == "internal error: ZeroDivisionError: by zero"
    with open(error["where"], encoding="utf-8") as file:  # noqa: PTH123 - a path as text
        assert "Traceback" in file.read()


def test_debug_shows_the_traceback(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, NeedError("no disk"))
    assert "Traceback" in fp("train", "--debug").err
    assert "Traceback" not in fp("train").err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 7 bytes")]
)
def test_out_of_memory(fp: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    raising(monkeypatch, error)
    done = fp("train")
    assert done.status == 5
    assert done.err.startswith("error[F502]: out of memory\n")


def test_ctrl_c_before_anything_has_begun(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert fp("train") == (130, "", "error[F130]: stopped\n")


def test_a_command_that_is_terminated_clears_up(tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
from fpcli.cli import app
def call(words, session):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        pathlib.Path("cleared").touch()
app._call = call
sys.argv = ["fp", "export"]
app.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "error[F143]: stopped\n")
    assert (tmp_path / "cleared").exists()


def test_nobody_reads_stdout(spawn: Callable) -> None:
    for words in (["--help"], ["train", "--help"], ["--version"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = spawn(*words, stdout=writer)
        os.close(writer)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")


def test_completion_knows_the_names(spawn: Callable) -> None:
    request = {
        "_FP_COMPLETE": "complete_bash",
        "COMP_WORDS": "fp train --method fed",
        "COMP_CWORD": "3",
    }
    process = spawn(env=os.environ | request)
    out, _ = process.communicate(timeout=60)
    assert out.split() == [
        "fedavg", "fedduap", "federated-pruning", "fedmp", "fedprox", "fedsparsify",
    ]  # fmt: skip
