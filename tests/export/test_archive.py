from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exports import narrow

from fpcli.export.archive import check_archive
from fpcli.export.card import Card
from fpcli.export.formats import PROGRAMS, open_pt2


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("canary", "w")


@pytest.fixture(scope="module")
def whole() -> bytes:
    trained = narrow("digits-cnn")
    return PROGRAMS["pt2"].write(trained.module(), Card.of(trained, {}), 0)[0]


def changed(data: bytes, end: str, content: bytes, **how: int) -> bytes:
    """Return an archive in which the entry with that end of a name holds something else."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", **how) as new:  # type: ignore[call-overload]
        assert sum(name.endswith(end) for name in old.namelist()) == 1
        for name in old.namelist():
            new.writestr(name, content if name.endswith(end) else old.read(name))
    return out.getvalue()


def config(data: bytes, **changes: object) -> bytes:
    """Return an archive whose first weight is said to lie there in another way."""
    end = "model_weights_config.json"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(end)]
        said = json.loads(archive.read(name))
    next(iter(said["config"].values())).update(changes)
    return changed(data, end, json.dumps(said).encode())


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def test_what_torch_writes_is_let_through(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(whole)
    check_archive(path)
    assert open_pt2(path).module()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: pickle.dumps(Bomb()),
        lambda data: changed(data, "sample_inputs/model.pt", saved(Bomb())),
        lambda data: changed(data, "sample_inputs/model.pt", pickle.dumps(Bomb())),
        lambda data: config(data, use_pickle=True),
        lambda data: config(data, path_name="opaque_obj_0"),
        lambda data: changed(data, "/byteorder", bytes(10**6), compression=zipfile.ZIP_DEFLATED),
        lambda data: data[: len(data) // 2],
    ],
    ids=["pickle", "inputs", "bare inputs", "weight", "object", "bomb", "half"],
)  # fmt: skip
def test_a_pickle_in_disguise_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt2").write_bytes(damage(whole))
    with pytest.raises(ValueError, match=r"^`|^it "):
        open_pt2(Path("model.pt2"))
    assert not Path("canary").exists()


def test_the_bomb_would_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb())).close()
    assert Path("canary").exists()
