from __future__ import annotations

import getpass
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from driver import dies

from fpcli.errors import DataError, FpError, NeedError, ResumeError, UsageError
from fpcli.recipe.load import to_yaml
from fpcli.report.runs import find_runs
from fpcli.settings.recipes import Recipe
from fpcli.store.run_folder import RunFolder, describe_environment

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def make(runs_dir: Path, name: str = "x") -> RunFolder:
    return RunFolder.create(runs_dir, name, Recipe())


def test_create_and_open(tmp_path: Path) -> None:
    run = make(tmp_path / "deep" / "runs", "mein Lauf 1")
    assert run.recipe.read_text() == to_yaml(Recipe())
    assert RunFolder.open(run.path) == run


def test_a_taken_name(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(UsageError, match="run name `x` is taken") as caught:
        RunFolder.create(tmp_path, "x", Recipe())
    assert f"--resume {run.path}" in caught.value.hint
    assert "--name" in caught.value.hint
    (run.path / "old").touch()
    assert RunFolder.create(tmp_path, "x", Recipe(), force=True) == run
    assert sorted(path.name for path in run.path.iterdir()) == ["lock", "recipe.yaml"]


def test_force_deletes_nothing_but_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, content in (("a", "name: of something else\n"), ("b", None)):
        (runs / name).mkdir(parents=True)
        if content:
            (runs / name / "recipe.yaml").write_text(content)
    (runs / "b" / "notes.txt").touch()
    (runs / "c").write_text("a file")
    (runs / "d").symlink_to(make(tmp_path / "elsewhere").path)
    for name in "abcd":
        with pytest.raises(UsageError, match="deletes only earlier runs"):
            RunFolder.create(runs, name, Recipe(), force=True)
        assert (runs / name).exists()
    assert RunFolder.create(runs, "new", Recipe(), force=True).path.is_dir()


def test_a_kill_while_a_folder_is_made_leaves_a_run_or_a_free_name(tmp_path: Path) -> None:
    number = 1
    while dies(number, partial(RunFolder.create, tmp_path / str(number), "x", Recipe())):
        runs = tmp_path / str(number)
        if (runs / "x" / "recipe.yaml").exists():
            assert RunFolder.open(runs / "x").recipe.read_text() == to_yaml(Recipe())
        else:
            make(runs)
        number += 1
    assert number > 4


def test_a_kill_while_a_run_is_replaced_leaves_a_whole_one_or_a_free_name(tmp_path: Path) -> None:
    is_old = True
    for number in itertools.count(1):
        run = make(tmp_path / str(number))
        (run.checkpoints / "round-00001").mkdir(parents=True)
        (run.checkpoints / "round-00001" / "meta.json").touch()
        (run.path / "events.jsonl").touch()
        replace = partial(RunFolder.create, run.path.parent, "x", Recipe(seed=1), force=True)
        if not dies(number, replace):
            break
        names = {path.name for path in run.path.iterdir()} if run.path.exists() else set()
        is_old = "recipe.yaml" in names and "seed: 0" in run.recipe.read_text()
        assert is_old == (names >= {"checkpoints", "events.jsonl", "recipe.yaml"})
        if "recipe.yaml" not in names:
            with pytest.raises(DataError, match="is not a run"):
                find_runs([run.path.parent], tmp_path)
        replace()
        assert {path.name for path in run.path.parent.iterdir()} == {"x"}
        assert "seed: 1" in run.recipe.read_text()
    assert number > 8 and not is_old


def test_only_what_stands_there_before_a_recipe_is_free(tmp_path: Path) -> None:
    for name in ("lock", "log.txt", ".recipe.yaml.tmp"):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).touch()
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").touch()
    with RunFolder(tmp_path / "x").lock(), pytest.raises(ResumeError, match="in use"):
        RunFolder.create(tmp_path, "x", Recipe())
    make(tmp_path)
    for name in "xy":
        with pytest.raises(UsageError, match="is taken"):
            RunFolder.create(tmp_path, name, Recipe())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".x", "-x", "x.", "x\n", "x" * 200])
def test_a_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a run"):
        RunFolder.create(tmp_path, name, Recipe())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for runs_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(NeedError, match="cannot write"):
            RunFolder.create(runs_dir, "x", Recipe())
    run = RunFolder(tmp_path / "gone")
    for action in (
        lambda: run.write_recipe(Recipe()),
        lambda: run.add_log("x"),
        lambda: run.add_command(["fp"]),
    ):
        with pytest.raises(NeedError, match="cannot write"):
            action()


def test_open_what_is_no_run(tmp_path: Path) -> None:
    make(tmp_path, "fedmp-s0")
    (tmp_path / "other").mkdir()
    with pytest.raises(ResumeError, match="does not exist") as caught:
        RunFolder.open(tmp_path / "fedmp-s1")
    assert caught.value.exit_status == 6
    assert caught.value.hint == "did you mean `fedmp-s0`?"
    with pytest.raises(ResumeError, match="is not a run"):
        RunFolder.open(tmp_path / "other")


def test_small_files(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.add_command(["fp", "train", "--name", "a b"])
    run.add_command(["fp", "train", "--resume", "x"])
    assert (run.path / "command.txt").read_text().splitlines() == [
        "fp train --name 'a b'",
        "fp train --resume x",
    ]
    run.add_log("one\n")
    run.add_log("zwei ü")
    assert run.log.read_text("utf-8") == "one\nzwei ü\n"


def test_the_environment_says_nothing_about_who_or_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FP_CANARY", "secret-canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = make(tmp_path)
    run.write_environment()
    text = (run.path / "environment.json").read_text()
    for word in ("secret-canary", platform.node(), getpass.getuser(), str(tmp_path)):
        assert f'"{word}"' not in text
    found = json.loads(text)
    assert found == describe_environment()
    assert found["packages"]["torch"].count(".") >= 2
    assert found["thread_settings"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_checksums_are_read_by_sha256sum(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.events.write_text("{}\n")
    (run.final / "deep").mkdir(parents=True)
    (run.final / "model.safetensors").write_bytes(b"123")
    (run.final / "deep" / "layout.json").write_bytes(b"{}")
    run.write_checksums()

    def check() -> subprocess.CompletedProcess[str]:
        command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        return subprocess.run(command, cwd=run.path, capture_output=True, text=True, check=False)

    found = check()
    assert found.returncode == 0
    assert found.stdout.count(": OK") == 4
    (run.final / "model.safetensors").write_bytes(b"124")
    assert check().returncode == 1


def test_a_lock_held_by_a_live_process(tmp_path: Path) -> None:
    run = make(tmp_path)
    command = [sys.executable, "-c", HOLD, str(run.path / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        (run.path / "lock.pid").write_text(f"{other.pid}\n")
        in_use = rf"{run.path} .* live process \(number {other.pid}"
        with pytest.raises(ResumeError, match=in_use), run.lock():
            pass
        with pytest.raises(ResumeError, match="live process"):
            RunFolder.create(tmp_path, "x", Recipe(), force=True)
        assert run.recipe.exists()
        other.kill()
    with run.lock():
        assert (run.path / "lock.pid").read_text() == f"{os.getpid()}\n"
    assert not (run.path / "lock.pid").exists()


def test_a_lock_is_not_given_twice(tmp_path: Path) -> None:
    run = make(tmp_path)
    with run.lock(), pytest.raises(ResumeError, match=f"number {os.getpid()}"), run.lock():
        pass
    inside_a_file = RunFolder(tmp_path / "x" / "recipe.yaml")
    with pytest.raises(NeedError, match="cannot write"), inside_a_file.lock():
        pass


def test_a_run_inside_that_is_at_work_saves_the_folder(tmp_path: Path) -> None:
    run, inner = make(tmp_path), make(tmp_path / "x", "inner")
    with inner.lock(), pytest.raises(ResumeError, match="live process"):
        RunFolder.create(tmp_path, "x", Recipe(), force=True)
    assert run.recipe.exists()
    RunFolder.create(tmp_path, "x", Recipe(), force=True)
    assert not inner.path.exists()


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(FpError), run.lock():
        raise FpError("x")
    with run.lock():
        pass
