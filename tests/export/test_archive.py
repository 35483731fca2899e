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

from fpcli.export.archive import read_archive
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
    assert len(read_archive(path).getvalue()) > 50_000
    assert open_pt2(path)[0].module()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def added(data: bytes, end: str, new: str, content: bytes) -> bytes:
    """Return an archive with another entry behind it all, beside the one with that end."""
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(end)]
        archive.writestr(name.removesuffix(end) + new, content)
    return out.getvalue()


def graph(data: bytes, before: str, after: str) -> bytes:
    """Return an archive whose graph has a text replaced."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("models/model.json")]
        text = archive.read(name).decode()
    assert before in text
    return changed(data, "models/model.json", text.replace(before, after).encode())


CALL = "open('canary', 'w')"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: pickle.dumps(Bomb()),
        lambda data: changed(data, "sample_inputs/model.pt", saved(Bomb())),
        lambda data: changed(data, "sample_inputs/model.pt", pickle.dumps(Bomb())),
        lambda data: added(data, "inputs/model.pt", "inputs/MODEL.PT", saved(Bomb())),
        lambda data: added(data, "weights/weight_0", "weights/model.pt", saved(Bomb())),
        lambda data: added(data, "weights/weight_0", "aotinductor/model/x.wrapper.so", b"x"),
        lambda data: added(data, "models/model.json", "serialized_state_dict.json", saved(Bomb())),
        lambda data: added(data, "weights/weight_0", "weights/weight_0", b"x"),
        lambda data: config(data, use_pickle=True),
        lambda data: config(data, path_name="opaque_obj_0"),
        lambda data: graph(data, "Symbol(", f"{CALL} or Symbol("),
        lambda data: graph(data, '"guards_code": []', f'"guards_code": ["{CALL}"]'),
        lambda data: graph(data, "torch.ops.aten.relu.default", "torch.load"),
        lambda data: changed(data, "/byteorder", bytes(10**6), compression=zipfile.ZIP_DEFLATED),
        lambda data: data[: len(data) // 2],
    ],
    ids=["pickle", "inputs", "bare inputs", "other case", "weights", "library", "legacy", "twice",
         "weight", "object", "formula", "guards", "operator", "bomb", "half"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
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
