from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import rounds, write_run

from fpcli.cli.completion import SCRIPTS

ROOT = str(Path(__file__).parents[2])
CODE = "from fpcli.cli.app import main; main()"
HEAVY = {"torch", "torchvision", "numpy", "sklearn", "matplotlib", "torch_pruning", "safetensors"}
COMPGEN = """
eval "$(fp --show-completion bash)"
COMP_LINE=$1 COMP_POINT=${#1}
_fp_completion fp
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { }
_files() { print FILES }
_describe() { print -l -- ${(P)2} "$3$4" }
setopt extendedglob
eval "$(fp --show-completion zsh)"
words=(${(z)1}) CURRENT=$#words
_fp_completion
"""


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a script in a shell whose `fp` is this one, with a word; gives its lines."""
    for name in ("fedmp-one", "fit-two"):
        write_run(tmp_path / "runs" / name, rounds(0.5))
    command = tmp_path / "bin" / "fp"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{CODE}' \"$@\"\n")
    command.chmod(0o755)
    path = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": ROOT}
    path |= {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
    }

    def call(program: str, script: str, word: str = "") -> list[str]:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
        more = [] if program == "fish" else [program, word]
        done = subprocess.run(
            [program, "-c", script, *more],
            env=os.environ | path, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return [text for text in done.stdout.splitlines() if text]

    return call


OFFERED = {
    "fp train --set local.ep": ["local.epochs="],
    "fp train --method fedmp --set method.rew": ["method.reward_loss=", "method.reward_norm="],
    "fp train -c heterofl/digits --set method.win": ["method.window="],
    "fp fit --set fit.ep": ["fit.epochs="],
    "fp prune --method gdp --set method.lr": ["method.lr=", "method.lr_period="],
    "fp unlearn --set method.ag": ["method.agg="],
    "fp train --method mine:Method --set method.": ["method.name="],
    "fp train -c missing.yaml --set method.": ["method.name="],
    "fp train --set task.partition.kind=d": [
        "task.partition.kind=dirichlet", "task.partition.kind=dominant",
    ],
    "fp train --method fedmp --set method.split=": ["method.split=arm", "method.split=midpoint"],
    "fp train --set method.name=fedm": ["method.name=fedmp"],
    "fp train --set local.lr=": [],
    "fp train --set nothing.of=": [],
    "fp fit -c fit/d": ["fit/digits"],
    "fp fit -c fedmp": [],
    "fp recipe show fit/d": ["fit/digits"],
    "fp recipe check fedmp/d": ["fedmp/digits"],
    "fp train --resume ": ["runs/fedmp-one", "runs/fit-two"],
    "fp resume runs/fe": ["runs/fedmp-one"],
    "fp resume runs/fedmp-one --roun": ["--rounds", "--round-retries"],
    "fp compare runs/fedmp-one fi": ["fit-two"],
    "fp report ../ru": [],
    "fp compare --runs other ": ["other/three"],
    "fp export fe": ["fedmp-one"],
    "fp bench ru": ["runs/fedmp-one", "runs/fit-two"],
    "fp unlearn --retrained fe": ["fedmp-one"],
    "fp prune fedm": ["fedmp-one"],
    "fp prune feda": ["fedavg-cnn"],
    "fp explain F13": ["F130"],
}  # fmt: skip
"""Line up to the cursor -> words that Tab offers."""

ASK = """
import os, sys
from fpcli.cli.app import main
for line in sys.stdin.read().splitlines():
    os.environ["_TYPER_COMPLETE_ARGS"] = line
    try:
        main()
    except SystemExit as end:
        assert not end.code
    print("END")
print(*{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def test_what_is_offered_and_that_it_takes_no_torch(tmp_path: Path) -> None:
    for name in ("runs/fedmp-one", "runs/fit-two", "other/three"):
        write_run(tmp_path / name, rounds(0.5))
    request = {"_FP_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    lines = [*OFFERED, "fp train --set local."]
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input="\n".join(lines), env=os.environ | request | {"PYTHONPATH": ROOT}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *answers, last = [answer.split("\n") for answer in done.stdout.split("END\n")[:-1]]
    assert [[word.split("\t")[0] for word in words if word] for words in answers] == [
        *OFFERED.values()
    ]
    assert (
        "local.lr=\tLearning rate of a client's training; Adam wants a hundredth of what SGD does."
        in last
    )
    assert all(text.startswith("local.") for text in last if text)  # a meaning is one line
    assert not set(done.stderr.split()) & HEAVY


def test_bash_gets_only_what_stands_behind_its_break(shell: Callable) -> None:
    for line, words in {
        "fp train --set task.partition.kind=d": ["dirichlet", "dominant"],
        "fp train --resume=runs/fe": ["runs/fedmp-one"],
    }.items():
        assert shell("bash", COMPGEN, line) == words


def test_zsh_adds_no_space_behind_a_key(shell: Callable) -> None:
    meaning = "Passes of a client over its data per round."
    assert shell("zsh", ZSH, "fp train --set local.ep") == [f"local.epochs=:{meaning}", "-S"]
    assert shell("zsh", ZSH, "fp compare nothing") == ["FILES"]


def test_fish_offers_files_where_there_is_nothing_else(shell: Callable) -> None:
    source = "fp --show-completion fish | source; "
    (line,) = shell("fish", f"{source} complete -C 'fp train --set local.ep'")
    assert line == "local.epochs=\tPasses of a client over its data per round."
    assert "bin/" in " ".join(shell("fish", f"{source} complete -C 'fp compare bi'"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_shown_and_installed(
    fp: Callable, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fp("--show-completion", name) == (0, SCRIPTS[name], "")
    for _ in range(2):
        done = fp("--install-completion", name)
        assert (done.status, done.err) == (0, "")
        path = Path(done.out.split()[1].rstrip(":"))
        assert path.read_text() == SCRIPTS[name] and path.is_relative_to(tmp_path)


def test_another_shell_is_refused(fp: Callable) -> None:
    done = fp("--show-completion", "tcsh")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "error[F201]: no completion for the shell `tcsh`\n\nhint: known: bash, zsh, fish\n"
    )
    assert "requires an argument" in fp("--show-completion").err
