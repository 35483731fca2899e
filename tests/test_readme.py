"""What the README tells people to type is what works."""

from __future__ import annotations

import re
import shlex
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from fpcli.cli.app import run_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
LINES = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]
COMMANDS = [line for line in LINES if line.startswith("fp ")]
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(METHOD,) = (block for block in CODE if "(Method):" in block)


def write_mnist(folder: Path) -> None:
    """Write random images in MNIST's own file format."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", 400), ("t10k", 40)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">4i", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2i", 2049, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the README's examples take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("FP_DATA_DIR", str(tmp_path / "data"))
    write_mnist(tmp_path / "data" / "MNIST" / "raw")
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 600), ("test", 50)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 5
    np.savez(tmp_path / "organs.npz", **arrays)
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def small(input_shape, num_classes):\n"
        "    c, h, w = input_shape\n"
        "    return nn.Sequential(nn.Conv2d(c, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(8 * h * w, num_classes))\n"
    )
    (tmp_path / "lighten.py").write_text(METHOD)
    (tmp_path / "mydata.py").write_text(
        "import numpy as np\ndef load():\n    return dict(np.load('organs.npz'))\n"
    )
    return tmp_path


def test_the_two_commands_are_there_and_ci_runs_the_second() -> None:
    assert "pip install -e . && fp train --method fedmp" in LINES
    tests = "pip install -e '.[dev]' && pytest"
    assert tests in LINES
    assert tests in (ROOT / ".ci" / "run").read_text("utf-8").replace("install -q", "install")


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(
    command: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)[1:]
    words = [str(home / "data") if word == "~/data" else word for word in words]
    if words[0] == "train":
        words += ["--rounds", "1", "--executor", "inline"]
    assert run_line(words) == 0, capfd.readouterr().err


def test_shown_outputs_are_real(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`fp methods` and the dry run print what the README shows."""
    shown = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert run_line(["methods"]) == 0
    table = capfd.readouterr().out
    assert any(table.strip() == block.strip() for block in shown)
    assert run_line(["train", "--method", "fedmp", "--dry-run"]) == 0
    table = capfd.readouterr().out[-400:]
    assert any(table.strip() in block for block in shown)


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
