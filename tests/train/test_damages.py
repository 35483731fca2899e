"""Damages of a run's folder: what looks at it recovers the same bits, or refuses it clearly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Listener, assert_same, begin, digits_file, everything, go_on

from fpcli.errors import FpError
from fpcli.export.source import read_final_model, read_round_models
from fpcli.files import list_checksums
from fpcli.report.compare import compare_runs
from fpcli.report.page import make_page
from fpcli.report.runs import find_runs
from fpcli.report.text_tables import to_data
from fpcli.store.model_folder import read_trained
from fpcli.store.purge import purge
from fpcli.store.run_folder import RunFolder

METHOD, CODE = "toys:Personal", "nets:tiny"
OLDER, NEWEST = "checkpoints/round-00002", "checkpoints/round-00004"
FILES = (
    "recipe.yaml", "events.jsonl", "command.txt", "environment.json", "SHA256SUMS",
    "final/model.safetensors", "final/layout.json",
    *(f"{place}/{name}" for place in (OLDER, NEWEST)
      for name in ("state.safetensors", "meta.json", "SHA256SUMS")),
    "memory/client-00000/model.round-00004.safetensors",
)  # fmt: skip


def missing(path: Path, other: Path) -> None:
    path.unlink()


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def flipped(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 6 // 10] ^= 4
    path.write_bytes(data)


def not_text(path: Path, other: Path) -> None:
    path.write_bytes(b"\xff\x00" + path.read_bytes())


def of_other_run(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def newer_format(path: Path, other: Path) -> None:
    content = json.loads(path.read_text())
    content["format"] += 1
    path.write_text(json.dumps(content))
    if (path.parent / "SHA256SUMS").exists():
        files = [path.parent / name for name in ("meta.json", "state.safetensors")]
        (path.parent / "SHA256SUMS").write_text(list_checksums(path.parent, files))


DAMAGES = (missing, empty, truncated, flipped, not_text, of_other_run, folder)
FORMATS = ("final/layout.json", f"{NEWEST}/meta.json")

Damage = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a run of four rounds, one of another seed, and the first of six."""
    from fpcli.train import federated_run

    runs = tmp_path_factory.mktemp("damages")
    data = digits_file(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_run, "draw_run", lambda history, folder: [])
        for name, rounds, seed in (("run", 4, 7), ("other", 4, 8), ("longer", 6, 7)):
            begin(runs, name, METHOD, task__data=data, rounds=rounds, checkpoint_every=2, seed=seed)
            RunFolder(runs / name).add_command(["fp", "train"])
        yield runs


@pytest.fixture(scope="module")
def longer(finished: Path) -> Any:
    return everything(finished, "longer")


def cases(is_slow: Callable[[str, Damage], bool]) -> list[Any]:
    pairs = [(name, damage) for name in FILES for damage in DAMAGES]
    pairs += [(name, newer_format) for name in FORMATS]
    return [
        pytest.param(
            name, damage, id=f"{name}-{damage.__name__}",
            marks=[pytest.mark.slow] if is_slow(name, damage) else [],
        )
        for name, damage in pairs
    ]  # fmt: skip


def damaged(finished: Path, tmp_path: Path, name: str, damage: Damage) -> RunFolder:
    shutil.copytree(finished / "run", tmp_path / "run")
    damage(tmp_path / "run" / name, finished / "other" / name)
    return RunFolder(tmp_path / "run")


def refused(action: Callable[[], Any]) -> tuple[FpError | None, Any]:
    """Return the error by which something is refused, or its result."""
    try:
        return None, action()
    except FpError as error:
        assert error.code != "F100" and error.exit_status in (2, 3, 5, 6)
        assert error.hint or " must be " in error.message  # which is the remedy
        return error, None


QUICK = {"events.jsonl", f"{NEWEST}/meta.json", f"{NEWEST}/state.safetensors"}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("name", "damage"),
    cases(lambda name, damage: not (name in QUICK or damage in (flipped, folder))),
)
def test_a_damaged_run_goes_on_to_the_same_bits_or_not_at_all(
    finished: Path, longer: Any, tmp_path: Path, name: str, damage: Damage
) -> None:
    damaged(finished, tmp_path, name, damage)
    listener = Listener()
    error, _ = refused(lambda: go_on(tmp_path, "run", listener, rounds=6))
    print(error and error.message, listener.messages)
    if error is None:
        assert_same(everything(tmp_path, "run"), longer)
    recovers = name.startswith(("checkpoints", "final", "command", "environment", "SHA256SUMS"))
    assert not (recovers and error and damage is not folder)


@pytest.mark.parametrize(
    ("name", "damage"),
    cases(lambda name, damage: name not in {"events.jsonl", "environment.json"}),
)
def test_a_damaged_run_is_compared_as_it_was_or_not_at_all(
    finished: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    run = damaged(finished, tmp_path, name, damage)

    def look() -> Any:
        found = compare_runs(find_runs([run.path], tmp_path))
        assert make_page(found)
        return to_data(found)["runs"]

    _, found = refused(look)
    if found and not (name == "recipe.yaml" or damage in (of_other_run, truncated, missing, empty)):
        (wanted,) = to_data(compare_runs(find_runs([finished / "run"], finished)))["runs"]
        anywhere = {"run": "", "paths": []}
        assert found[0] | anywhere == wanted | anywhere


@pytest.mark.parametrize(
    ("name", "damage"),
    cases(lambda name, damage: not name.startswith("final")),
)
def test_a_damaged_run_is_exported_as_it_was_or_not_at_all(
    finished: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    run = damaged(finished, tmp_path, name, damage)
    error, source = refused(lambda: read_final_model(run.path, code=CODE))
    wanted = read_trained(finished / "run", code=CODE).values
    if error is None and name != "final/model.safetensors":
        assert all(torch.equal(source.trained.values[key], wanted[key]) for key in wanted)
    flags = {"task.model": CODE, "method.name": METHOD}
    refused(lambda: read_round_models(run.path, clients=None, flags=flags))


@pytest.mark.parametrize(
    ("name", "damage"),
    cases(lambda name, damage: damage is not folder),
)
def test_a_damaged_run_is_purged(finished: Path, tmp_path: Path, name: str, damage: Damage) -> None:
    run = damaged(finished, tmp_path, name, damage)
    error, _ = refused(lambda: purge(run, "because"))
    if error is not None:
        assert damage is folder and "Is a directory" in error.message
        return
    assert not run.final.exists() and not run.checkpoints.exists() and run.is_whole
    error, _ = refused(lambda: go_on(tmp_path, "run", rounds=6, force=True))
    assert error is not None
