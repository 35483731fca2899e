"""What the README tells people to type is what works."""

from __future__ import annotations

import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from fpcli.cli.app import build_parser, run_line
from fpcli.cli.build_command import read_options
from fpcli.cli.words import split_overrides
from fpcli.recipe.load import find_recipe, load_recipe
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import RECIPE_KINDS
from fpcli.version import __version__

ParserError = typer.BadParameter.__mro__[1]  # of all that is wrong with words
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
LINES = [line[2:] for _, block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]
COMMANDS = [part for line in LINES for part in line.split(" && ")]
IN_PROSE = sorted(set(re.findall(r"(?:`|\$\()(fp [^`)|]+)[`)|]", README.replace("\n", " "))))
CODE = [block for language, block in BLOCKS if language == "python"]
(METHOD,) = (block for block in CODE if "(Method):" in block)
NOT_RUN = ("pip ", "pytest", "ATEN_CPU_CAPABILITY=", "fp data fetch ")
"""Beginnings of commands that need the network, or run this test."""


def write_mnist(folder: Path) -> None:
    """Write random images in MNIST's own file format."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", 1000), ("t10k", 40)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">4i", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2i", 2049, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the README's blocks of code and its download leave there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_mnist(tmp_path / "home" / "data" / "MNIST" / "raw")
    for block in CODE:
        if match := re.match(r'"""(\w+\.py): ', block):
            (tmp_path / match[1]).write_text(block)
    (tmp_path / "lighten.py").write_text(METHOD)
    return tmp_path


def test_the_two_commands_are_there_and_ci_runs_the_second() -> None:
    assert "pip install -e . && fp train --method fedmp" in LINES
    tests = "pip install -e '.[dev]' && pytest"
    assert tests in LINES
    assert tests in (ROOT / ".ci" / "run").read_text("utf-8").replace("install -q", "install")


def parse(words: Sequence[str]) -> Any:
    """Return the context of a command line that is read and not run."""
    command, words = build_parser(), list(words)
    if words[0] == "resume":
        words[0] = "train"
        words.insert(1, "--resume")
    names = []
    while words and hasattr(command, "commands"):
        names.append(words.pop(0))
        command = command.commands[names[-1]]
    is_group = hasattr(command, "commands")  # alone it shows its commands
    return command.make_context(" ".join(names), words, resilient_parsing=is_group)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("fp ")])
def test_a_command_is_one_of_ours_and_its_names_exist(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = parse(shlex.split(command)[1:])
    kind = context.command.name
    if kind not in RECIPE_KINDS:
        return
    options, cls = context.params, RECIPE_KINDS[kind]
    pairs, flags = split_overrides(options["set_"]), read_options(options, collect_flags(cls))
    monkeypatch.syspath_prepend(home)
    path = find_recipe(options["recipe"]) if options["recipe"] else None
    load_recipe(path, pairs, flags, cls=cls)


@pytest.mark.parametrize("text", IN_PROSE)
def test_a_command_in_prose_is_one_of_ours(text: str) -> None:
    """Words in capitals stand for others, with dots for several; a command may be named alone."""
    words = shlex.split(text)[1:]
    if words[0].startswith("-"):  # of `fp` itself
        assert words[0] in [name for option in build_parser().params for name in option.opts]
        return
    try:
        context = parse([word for word in words if not word.endswith("...")])
    except ParserError as error:
        assert re.search(
            "missing (argument|parameter)|requires an argument", str(error), re.IGNORECASE
        )
        return
    recipe = context.params.get("recipe")
    if recipe and not recipe.isupper():
        find_recipe(recipe)


def test_shown_outputs_are_real(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`fp methods` and the dry run print what the README shows."""
    shown = [block for language, block in BLOCKS if language == "text"]
    assert run_line(["methods"]) == 0
    table = capfd.readouterr().out
    assert any(table.strip() == block.strip() for block in shown)
    assert run_line(["train", "--method", "fedmp", "--dry-run"]) == 0
    table = capfd.readouterr().out[-400:]
    assert any(table.strip() in block for block in shown)


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= citation.keys()
    assert citation["version"] == __version__
    assert citation["authors"] == [{"name": "fpcli contributors"}]
    assert (
        f'license = {{ text = "{citation["license"]}" }}' in (ROOT / "pyproject.toml").read_text()
    )
    assert (
        "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    )


def test_the_method_of_the_readme_spares_the_slow_half(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_line(["train", "--method", "lighten:Lighten", "--dry-run"]) == 0
    table = capfd.readouterr().out
    sizes = re.findall(r"^ +\d+ +1[23]\d +([\d,]+) ", table, re.MULTILINE)
    assert (len(sizes), sizes.count("38,282"), len(set(sizes))) == (10, 5, 2)


def test_the_code_that_reads_without_fpcli_is_that_which_is_tested() -> None:
    code = (ROOT / "fpcli" / "export" / "reader.py").read_text("utf-8")
    assert f"```python\n{code[code.index('import json') :]}```" in README


@pytest.mark.slow
def test_all_commands_run_in_order_in_one_folder(home: Path) -> None:
    """Everything is as it stands there, but MNIST is noise, and nothing is downloaded."""
    program = f"exec '{sys.executable}' -c 'from fpcli.cli.app import main; main()' \"$@\"\n"
    folder = home / "bin"
    folder.mkdir()
    for name, text in {"fp": program, "python": f"exec '{sys.executable}' \"$@\"\n"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    more = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    work = home / "work"
    work.mkdir()
    for path in home.glob("*.py"):
        path.rename(work / path.name)
    for command in COMMANDS:
        if not command.startswith(NOT_RUN):
            done = subprocess.run(
                command, shell=True, cwd=work, env=os.environ | more, check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
