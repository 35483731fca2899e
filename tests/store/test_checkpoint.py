from __future__ import annotations

import json
import math
import resource
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from fpcli import files
from fpcli.engine.types import ServerState
from fpcli.errors import NeedError, ResumeError, UsageError
from fpcli.files import list_checksums
from fpcli.store import checkpoint
from fpcli.store.checkpoint import dump_state, load_newest, load_state, save_checkpoint
from fpcli.structure.support import Support


@dataclass(frozen=True)
class Leaf:
    low: float
    pulls: int


@dataclass(frozen=True)
class State:
    trees: Mapping[int, tuple[Leaf, ...]]
    last_loss: float | None = None
    names: tuple[str, ...] = ()
    mixed: Any = None
    _cache: dict[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, eq=False)
class Tensorial:
    scores: Mapping[str, Tensor]
    supports: Mapping[int, Support]


STATE = State(
    trees={7: (Leaf(0.1 + 0.2, 3), Leaf(math.inf, 0)), 2: ()},
    last_loss=-0.0,
    names=("a", "b"),
    mixed=[(1, [2, ("x", None)]), {"1": True, 1: 1.0}, {}, (), [], 1e-320, 2**70],
    _cache={"x": 1},
)


def through_json(value: Any) -> Any:
    data, tensors = dump_state(value)
    return load_state(type(value), json.loads(json.dumps(data)), tensors)


def test_a_nested_state_comes_back_equal() -> None:
    back = through_json(STATE)
    assert back == STATE
    assert repr(back) == repr(replace(STATE, _cache={}))
    assert list(back.trees) == [7, 2]
    assert through_json(None) is None
    assert through_json(MappingProxyType({1: 2})) == {1: 2}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.builds(Leaf, inner, inner)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_any_plain_data_comes_back_exactly(value: Any) -> None:
    state = State(trees={}, mixed=value)
    assert repr(through_json(replace(state, trees={0: (Leaf(0, 0),)})).mixed) == repr(value)


def test_tensors_have_readable_and_distinct_names() -> None:
    one, two = torch.ones(1), torch.ones(2)
    data, tensors = dump_state({"a/b": one, "a": {"b": two, 1: one, "1": two}})
    assert list(tensors) == ["a/b", "a/b'", "a/1", "a/1'"]
    back = load_state(None, data, tensors)
    assert back["a"]["1"] is two
    assert list(dump_state(one)[1]) == ["value"]


@pytest.mark.parametrize("wrong", [{1, 2}, {True: 1}, {(1,): 1}, b"x", Leaf, object()])
def test_what_a_state_may_not_hold(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold `mixed/0`"):
        dump_state(State({}, mixed=[wrong]))


@pytest.mark.parametrize(
    "data",
    [
        {"os.system": {}},
        {"a": 1, "b": 2},
        {"tensor": "none"},
        {f"{__name__}.Leaf": {"low": 1}},
        {f"{__name__}.Leaf": {"low": 1, "pulls": 2, "new": 3}},
    ],
)
def test_json_that_does_not_fit(data: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        load_state(State, data, {})


def server_state(round: int, method: Any = STATE) -> ServerState:
    generator = torch.Generator().manual_seed(round)
    values = {
        "z.weight": torch.randn(4, 3, generator=generator),
        "a.bias": torch.randn(4, generator=generator).expand(2, 4),
        "scalar": torch.tensor(float(round)),
        "empty": torch.zeros(0, 3),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    support = Support({"z": torch.tensor([0, 2])}, {"z.weight": torch.rand(4, 3) > 0.5})
    return ServerState(round, values, support, method)


def assert_equal(a: Mapping[Any, Tensor], b: Mapping[Any, Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name])


def test_save_and_load(tmp_path: Path) -> None:
    state = server_state(10)
    extra = {"best": 0.5, "seen": [1, None], "worst": math.inf}
    path = save_checkpoint(tmp_path, state, digest="d", extra=extra)
    assert path == tmp_path / "checkpoints" / "round-00010"
    names = ["SHA256SUMS", "meta.json", "state.safetensors"]
    assert sorted(item.name for item in path.iterdir()) == names
    found, back, warnings = load_newest(tmp_path, method_state=State, digest="d")
    assert (found.round, found.method, back, warnings) == (10, STATE, extra, [])
    assert_equal(found.values, state.values)
    assert_equal(found.support.keep, state.support.keep)
    assert_equal(found.support.mask, state.support.mask)
    with safe_open(path / "state.safetensors", "pt") as stored:
        assert "values/z.weight" in list(stored.keys())


def test_loaded_tensors_do_not_live_in_the_file(tmp_path: Path) -> None:
    state = server_state(1)
    path = save_checkpoint(tmp_path, state, digest="d", extra={})
    found, _, _ = load_newest(tmp_path, method_state=State, digest="d")
    file = path / "state.safetensors"
    with file.open("rb+") as opened:
        opened.write(b"\xff" * file.stat().st_size)
    assert_equal(found.values, state.values)


def test_a_method_state_with_tensors_that_share_memory(tmp_path: Path) -> None:
    state = server_state(1, None)
    weight = state.values["z.weight"]
    method = Tensorial({"x": weight, "y": weight[1:], "t": weight.T}, {3: state.support})
    save_checkpoint(tmp_path, replace(state, method=method), digest="d", extra={})
    found, _, _ = load_newest(tmp_path, method_state=Tensorial, digest="d")
    assert_equal(found.method.scores, method.scores)
    assert_equal(found.method.supports[3].mask, state.support.mask)
    assert_equal(found.values, state.values)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    parent = tmp_path / "checkpoints"
    for round in range(5):
        save_checkpoint(tmp_path, server_state(round), digest="d", extra={})
        (parent / ".round-00099.tmp").mkdir()
    names = [".round-00099.tmp", "round-00003", "round-00004"]
    assert sorted(path.name for path in parent.iterdir()) == names
    save_checkpoint(tmp_path, server_state(5), digest="d", extra={}, keep=1)
    assert [path.name for path in parent.iterdir()] == ["round-00005"]


def flip(folder: Path, name: str, part: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(part * len(data))] ^= 1
    (folder / name).write_bytes(data)


def cut(folder: Path, name: str, part: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(part * len(data))])


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def rewrite(folder: Path, key: str, value: Any) -> None:
    file = folder / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    sums = list_checksums(folder, [file, folder / "state.safetensors"])
    (folder / "SHA256SUMS").write_text(sums)


FILES = ("state.safetensors", "meta.json", "SHA256SUMS")
DAMAGES: list[tuple[str, Callable[..., None], tuple[Any, ...]]] = [
    *[("it is damaged (SHA-256 differs)", cut, (name, 0.7)) for name in FILES],
    *[("it is damaged", cut, (name, 0)) for name in FILES],
    *[("it is damaged", flip, (FILES[0], part)) for part in (0, 0.3, 0.6, 0.8, 0.99)],
    ("it is damaged", flip, ("meta.json", 0.5)),
    ("it is damaged", flip, ("SHA256SUMS", 0.1)),
    *[(f"{name} is missing", remove, (name,)) for name in FILES],
    ("is missing", remove, FILES),
    ("does not fit", become_a_file, ()),
    ("format 2 is not 1", rewrite, ("format", 2)),
    ("it belongs to another recipe", rewrite, ("digest", "other")),
    ("it is of round 3", rewrite, ("round", 3)),
    ("does not fit", rewrite, ("state", 5)),
    ("does not fit", rewrite, ("state", {"os.system": {}})),
]


@pytest.mark.parametrize(("reason", "action", "how"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, reason: str, action: Callable[..., None], how: tuple[Any, ...]
) -> None:
    save_checkpoint(tmp_path, server_state(10), digest="d", extra={"x": 10})
    newest = save_checkpoint(tmp_path, server_state(20), digest="d", extra={"x": 20})
    action(newest, *how)
    state, extra, (warning,) = load_newest(tmp_path, method_state=State, digest="d")
    assert (state.round, extra) == (10, {"x": 10})
    assert "checkpoint round-00020 cannot be used: " in warning
    assert reason in warning
    assert newest.exists()
    action(tmp_path / "checkpoints" / "round-00010", *how)
    with pytest.raises(ResumeError, match="no usable checkpoint") as caught:
        load_newest(tmp_path, method_state=State, digest="d")
    assert caught.value.exit_status == 6
    assert "round-00020" in str(caught.value)


def test_a_damaged_checkpoint_is_replaced_when_its_round_comes_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, server_state(10), digest="d", extra={})
    cut(save_checkpoint(tmp_path, server_state(20), digest="d", extra={}), "meta.json", 0)
    save_checkpoint(tmp_path, server_state(15), digest="d", extra={})
    names = ["round-00010", "round-00015", "round-00020"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names
    save_checkpoint(tmp_path, server_state(20), digest="d", extra={})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names[1:]
    assert load_newest(tmp_path, method_state=State, digest="d")[0].round == 20


def test_a_model_that_is_not_finite(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, server_state(1), digest="d", extra={})
    state = server_state(2)
    state.values["scalar"].fill_(math.nan)
    save_checkpoint(tmp_path, state, digest="d", extra={})
    found, _, (warning,) = load_newest(tmp_path, method_state=State, digest="d")
    assert found.round == 1
    assert warning.endswith("`scalar` is not finite")


def test_a_method_state_of_another_class(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, server_state(1), digest="d", extra={})
    with pytest.raises(ResumeError, match=r"does not fit \(KeyError"):
        load_newest(tmp_path, method_state=None, digest="d")


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ResumeError) as caught:
        load_newest(tmp_path, method_state=None, digest="d")
    assert str(caught.value) == f"no usable checkpoint in {tmp_path}"


def test_a_file_size_limit_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, server_state(1), digest="d", extra={})
    big = replace(server_state(2), values={"big": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(NeedError, match="round-00002: File too large") as caught:
            save_checkpoint(tmp_path, big, digest="d", extra={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ulimit -f" in caught.value.hint
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round-00001"]
    assert load_newest(tmp_path, method_state=State, digest="d")[2] == []


class Killed(BaseException):
    """Stands for the end of the process: nothing is caught after it."""


@pytest.mark.parametrize("step", ["_write", "sync_folder", "list_checksums", "write_atomic"])
def test_an_end_at_any_step_leaves_a_usable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    save_checkpoint(tmp_path, server_state(1), digest="d", extra={})

    def end(path: Any, *_: Any) -> None:
        if step != "sync_folder" or path == tmp_path / "checkpoints":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files if step == "sync_folder" else checkpoint, step, end)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, server_state(2), digest="d", extra={})
    round = load_newest(tmp_path, method_state=State, digest="d")[0].round
    assert round == (2 if step == "sync_folder" else 1)
    save_checkpoint(tmp_path, server_state(2), digest="d", extra={})
    names = ["round-00001", "round-00002"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        save_checkpoint(tmp_path / "gone", server_state(1), digest="d", extra={})


def test_the_checkpoint_of_one_round_or_none(tmp_path: Path) -> None:
    for round in (10, 20):
        save_checkpoint(tmp_path, server_state(round), digest="d", extra={})
    found = load_newest(tmp_path, method_state=State, digest="d", round=10)
    assert (found[0].round, found[2]) == (10, [])
    with pytest.raises(UsageError, match="no checkpoint of round 15") as caught:
        load_newest(tmp_path, method_state=State, digest="d", round=15)
    assert "there is: 10, 20" in caught.value.hint
    cut(tmp_path / "checkpoints/round-00010", "meta.json", 0)
    with pytest.raises(ResumeError, match="round-00010 cannot be used"):
        load_newest(tmp_path, method_state=State, digest="d", round=10)
