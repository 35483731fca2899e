from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import (
    Listener,
    assert_same,
    begin,
    checkpoints,
    digits_file,
    everything,
    go_on,
    history,
    newest,
)
from faults import Tampering, losing
from safetensors.torch import load_file

from fpcli.errors import ClientError, DivergedError, ResumeError
from fpcli.files import list_checksums
from fpcli.train import federated_run
from fpcli.train.setup import Setup

pytestmark = pytest.mark.usefixtures("no_figures")


def test_a_finished_run_goes_on_with_more_rounds(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any]
) -> None:
    expected = whole("fedmp")
    first = begin(
        tmp_path, "run", "fedmp", task__data=digits_file(runs), rounds=4, checkpoint_every=2
    )
    assert first.rounds == 4
    listener = Listener()
    longer = go_on(tmp_path, "run", listener, rounds=6)
    assert longer.rounds == 6
    assert listener.rounds == [5, 6]
    assert_same(everything(tmp_path, "run"), expected)


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    first = begin(tmp_path, "run", "fedavg", rounds=2)
    before = everything(tmp_path, "run")
    listener = Listener()
    again = go_on(tmp_path, "run", listener)
    assert (again, listener.rounds) == (first, [])
    assert_same(everything(tmp_path, "run"), before)


def test_a_run_that_has_reached_its_target_is_finished(tmp_path: Path) -> None:
    listener = Listener()
    first = begin(tmp_path, "run", "fedavg", listener, rounds=5, target="accuracy=0.01")
    assert (first.rounds, listener.rounds) == (1, [1])
    assert any("accuracy 1.00% reached in round 1" in text for text in listener.messages)
    listener = Listener()
    again = go_on(tmp_path, "run", listener)
    assert (again.state_sha256, listener.rounds) == (first.state_sha256, [])
    assert go_on(tmp_path, "run", target="null", rounds=2).rounds == 2


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_changed_recipe_is_refused_by_name(tmp_path: Path) -> None:
    begin(tmp_path, "run", "fedavg", rounds=1)
    before = files(tmp_path)
    deciding: dict[str, Any] = {
        "seed": 8,
        "local__lr": 0.1,
        "min_clients": 2,
        "wire__codec": "sparse",
    }
    for key, value in deciding.items():
        with pytest.raises(ResumeError) as caught:
            go_on(tmp_path, "run", rounds=2, **{key: value})
        assert f"{key.replace('__', '.')}: " in caught.value.message
        assert f"-> {value}" in caught.value.message
        assert "--force" in caught.value.hint
        assert caught.value.exit_status == 6
        assert files(tmp_path) == before


def test_force_goes_on_with_a_changed_recipe_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break the forced run off before its first regular checkpoint: it needs no force again."""
    same = begin(tmp_path, "same", "fedavg", rounds=4)
    begin(tmp_path, "run", "fedavg", rounds=2, checkpoint_every=10)

    class BrokenError(Exception):
        """Ends a run as nothing that it expects."""

    def stop(round: int) -> None:
        if round == 3:
            raise BrokenError

    with pytest.raises(BrokenError):
        go_on(tmp_path, "run", Listener(stop), force=True, rounds=4, local__lr=0.01)
    listener = Listener()
    forced = go_on(tmp_path, "run", listener)
    assert listener.rounds == [3, 4]
    assert listener.messages == []
    assert forced.rounds == 4
    assert forced.state_sha256 != same.state_sha256
    assert [event["round"] for event in history(tmp_path, "run")] == [1, 2, 3, 4]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "is_missing"),
    [
        ("state.safetensors", False),
        ("state.safetensors", True),
        ("meta.json", False),
        ("SHA256SUMS", True),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, runs: Path, whole: Callable[[str], Any],
    file: str, is_missing: bool,
) -> None:  # fmt: skip
    expected = whole("fedmp")
    begin(tmp_path, "run", "fedmp", task__data=digits_file(runs), rounds=4, checkpoint_every=2)
    path = tmp_path / "run" / "checkpoints" / "round-00004" / file
    path.unlink() if is_missing else damage(path)
    listener = Listener()
    go_on(tmp_path, "run", listener, rounds=6)
    assert listener.rounds == [3, 4, 5, 6]
    (message,) = listener.messages
    assert message.startswith("warning: checkpoint round-00004 cannot be used: ")
    assert_same(everything(tmp_path, "run"), expected)


def test_no_usable_checkpoint(tmp_path: Path) -> None:
    begin(tmp_path, "run", "fedavg", rounds=2)
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.safetensors"):
        damage(path)
    before = files(tmp_path)
    with pytest.raises(ResumeError, match=r"round-00002.*round-00001") as caught:
        go_on(tmp_path, "run")
    assert caught.value.exit_status == 6
    assert files(tmp_path) == before, "nothing is deleted"


def test_a_round_that_fails_leaves_the_rounds_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_executor(setup: Setup) -> tuple[Any, str]:
        return Tampering(setup.site, losing(0, 1, 2, 3, runs=range(3, 99))), "inline"

    monkeypatch.setattr(federated_run, "open_executor", open_executor)
    with pytest.raises(ClientError, match="round 3: 0 usable replies"):
        begin(tmp_path, "run", "fedavg", rounds=4, checkpoint_every=10)
    monkeypatch.undo()
    whole = begin(tmp_path, "whole", "fedavg", rounds=4)
    listener = Listener()
    assert go_on(tmp_path, "run", listener).state_sha256 == whole.state_sha256
    assert listener.rounds == [3, 4]


def test_a_diverged_run_keeps_its_last_sound_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        begin(tmp_path, "run", "fedavg", local__lr=1e12)
    assert checkpoints(tmp_path) == ["round-00000"]
    assert newest(tmp_path, "run")


def test_the_final_model_is_the_state_s_block(tmp_path: Path) -> None:
    summary = begin(tmp_path, "run", "fedmp", rounds=1)
    run = tmp_path / "run"
    model = load_file(run / "final" / "model.safetensors")
    stored = load_file(run / "checkpoints" / "round-00001" / "state.safetensors")
    values = {name.rpartition("values/")[2]: x for name, x in stored.items() if "values/" in name}
    assert {name: x.numpy().tobytes() for name, x in model.items()} == {
        name: x.numpy().tobytes() for name, x in values.items()
    }
    assert federated_run.state_sha256(model) == summary.state_sha256
    layout = json.loads((run / "final" / "layout.json").read_text())
    assert (layout["model"], layout["task"]["num_outputs"]) == ("nets:tiny", 10)
    assert sorted(row[0] for row in layout["layout"]["tensors"]) == sorted(values)
    assert summary.params == sum(
        x.numel() for name, x in model.items() if not name.startswith("norm.running")
    )
    listed = (run / "SHA256SUMS").read_text()
    files = [run / line.split("  ")[1] for line in listed.splitlines()]
    assert list_checksums(run, files) == listed
    assert {"recipe.yaml", "events.jsonl", "model.safetensors"} <= {file.name for file in files}


def test_a_run_with_absent_and_lost_clients_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(
        "devices: [{device: raspberry-pi-4, availability: 0.7}, {device: jetson-nano}]\n"
    )
    changes: dict[str, Any] = {
        "fleet__profile": str(tmp_path / "fleet.yaml"),
        "fleet__dropout": 0.4,
        "round_retries": 9,
    }
    begin(tmp_path, "whole", "fedmp", rounds=5, **changes)
    begin(tmp_path, "parts", "fedmp", rounds=2, **changes)
    (tmp_path / "fleet.yaml").unlink()
    go_on(tmp_path, "parts", rounds=5)
    assert_same(everything(tmp_path, "parts"), everything(tmp_path, "whole"))
    assert any(event["dropped"] for event in history(tmp_path, "parts"))
