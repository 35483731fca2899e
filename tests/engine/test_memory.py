from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from contexts import context
from torch import Tensor

from fpcli.engine import memory
from fpcli.engine.client_context import ClientContext
from fpcli.engine.site import Site
from fpcli.errors import FpError
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.support import Support
from fpcli.train.setup import prepare_run


def number(value: float) -> dict[str, Tensor]:
    return {"x": torch.tensor([value])}


def known(home: Path, client: int, before: int, name: str = "model") -> float | None:
    found = memory.recall(home, client, name, before)
    return float(found["x"]) if found else None


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Client 1 remembered in rounds 2, 5 and 7; client 10 in round 5; another name in round 6."""
    for round in (5, 2, 7):
        memory.remember(tmp_path, 1, "model", round, number(round))
    memory.remember(tmp_path, 10, "model", 5, number(50))
    memory.remember(tmp_path, 1, "model_2", 6, number(60))
    return tmp_path


def test_only_earlier_rounds_are_seen(home: Path) -> None:
    seen = [known(home, 1, before) for before in (0, 2, 3, 5, 6, 7, 8, 100)]
    assert seen == [None, None, 2, 2, 5, 5, 7, 7]
    assert known(home, 10, 100) == 50
    assert known(home, 1, 100, "model_2") == 60
    assert known(home, 0, 100) is None
    assert known(home / "absent", 1, 100) is None


def test_what_is_older_than_asked_for_counts_no_more(home: Path) -> None:
    seen = [memory.recall(home, 1, "model", 7, since) for since in (0, 2, 5, 6, 7)]
    assert [float(x["x"]) if x else None for x in seen] == [5, 5, 5, None, None]


def test_a_repeated_job_writes_its_memory_again(home: Path) -> None:
    memory.remember(home, 1, "model", 7, number(-7))
    assert known(home, 1, 8) == -7
    assert known(home, 1, 7) == 5
    assert len(files(home)) == 5


def test_rounds_are_compared_as_numbers(tmp_path: Path) -> None:
    for round in (99_999, 100_000):
        memory.remember(tmp_path, 1, "model", round, number(round))
    assert known(tmp_path, 1, 200_000) == 100_000
    assert known(tmp_path, 1, 100_000) == 99_999


@pytest.mark.parametrize("name", ["", "Model", "../model", "a.round-00001", "a b"])
def test_a_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(FpError, match="lower-case letters"):
        memory.remember(tmp_path, 1, name, 1, number(1))
    assert files(tmp_path) == []


def test_rewinding_forgets_later_rounds_and_unfinished_files(home: Path) -> None:
    partial = home / "client-00010" / "model.round-00009.123.partial"
    partial.write_bytes(b"half")
    memory.rewind(home, 5)
    assert files(home) == [
        "client-00001/model.round-00002.safetensors",
        "client-00001/model.round-00005.safetensors",
        "client-00010/model.round-00005.safetensors",
    ]
    memory.rewind(home, -1)
    assert files(home) == []
    memory.rewind(home / "absent", 0)


@pytest.mark.parametrize("oldest", range(9))
def test_pruning_keeps_whatever_a_resumed_run_can_ask_for(home: Path, oldest: int) -> None:
    """The oldest checkpoint is of this round, so that rounds after it may be played again."""
    questions = [(1, "model"), (1, "model_2"), (10, "model"), (2, "model")]
    asked = [(c, before, n) for c, n in questions for before in range(oldest + 1, 10)]
    answers = [known(home, *question) for question in asked]
    memory.prune_versions(home, oldest)
    assert [known(home, *question) for question in asked] == answers
    versions = [name for name in files(home) if name.startswith("client-00001/model.")]
    assert len(versions) == sum(round > oldest for round in (2, 5, 7)) + (oldest >= 2)


UNITS = Group("g", 4, (Member("w", 0, torch.arange(4).reshape(4, 1)),))
LAYOUT = Layout({"w": TensorSpec((4, 2), True), "s": TensorSpec((1,), True)}, {"g": UNITS})


class Home(Site):
    """A site of a layout of 4 channels."""

    layout = LAYOUT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return prepare_run(toy_recipe("toys:Personal"), tmp_path_factory.mktemp("home")).site


def client(
    site: Site, home: Path, round: int, keep: list[int], op: str = "train", is_told: bool = True
) -> ClientContext:
    own = Home(**{**vars_of(site), "home": home})
    kept = Support({"g": torch.tensor(keep)})
    received = {name: torch.zeros(shape) for name, shape in kept.block_shapes(LAYOUT).items()}
    told = kept.keep if is_told else None
    return context(own, received, client=3, round=round, op=op, keep=told)


def vars_of(site: Site) -> dict[str, Any]:
    return {name: getattr(site, name) for name in Site.__dataclass_fields__}


def block(rows: list[float], scalar: float) -> dict[str, Tensor]:
    return {"w": torch.tensor([[x, -x] for x in rows]), "s": torch.tensor([scalar])}


def test_memory_follows_channels_through_changing_sub_models(site: Site, tmp_path: Path) -> None:
    """Hold channels 0, 2 in round 1, 1, 2 in round 2, and look at all in round 3.

    Channel 0 is as in round 1, channels 1 and 2 as in round 2, channel 3 was never held: 0.
    """
    first = client(site, tmp_path, 1, [0, 2])
    assert first.recall("model") == {}
    first.remember("model", block([10.0, 12.0], 1.0))
    second = client(site, tmp_path, 2, [1, 2])
    assert second.recall("model")["w"].tolist() == [[0.0, 0.0], [12.0, -12.0]]
    second.remember("model", block([21.0, 22.0], 2.0))
    last = client(site, tmp_path, 3, [0, 1, 2, 3]).recall("model")
    assert last["w"][:, 0].tolist() == [10.0, 21.0, 22.0, 0.0]
    assert last["w"][:, 1].tolist() == [-10.0, -21.0, -22.0, 0.0]
    assert last["s"].tolist() == [2.0]
    assert client(site, tmp_path, 3, [0, 1, 2, 3]).recall("other") == {}


def test_a_round_does_not_see_its_own_traces(site: Site, tmp_path: Path) -> None:
    client(site, tmp_path, 1, [0, 1]).remember("model", block([1.0, 2.0], 1.0))
    for _ in range(2):  # the second time is the same job, repeated
        again = client(site, tmp_path, 2, [1, 2])
        assert again.recall("model")["w"][:, 0].tolist() == [2.0, 0.0]
        again.remember("model", block([5.0, 6.0], 2.0))
    assert client(site, tmp_path, 3, [0, 1, 2, 3]).recall("model")["w"][:, 0].tolist() == [
        1.0, 5.0, 6.0, 0.0,
    ]  # fmt: skip


def test_personal_evaluation_sees_its_own_round(site: Site, tmp_path: Path) -> None:
    client(site, tmp_path, 2, [0, 1, 2, 3]).remember("model", block([1.0, 2.0, 3.0, 4.0], 5.0))
    judged = client(site, tmp_path, 2, [0, 1, 2, 3], op="evaluate").recall("model")
    assert judged["s"].tolist() == [5.0]
    assert client(site, tmp_path, 2, [0, 1, 2, 3]).recall("model") == {}


def test_a_client_whose_jobs_carry_no_coordinates(site: Site, tmp_path: Path) -> None:
    whole = client(site, tmp_path, 1, [0, 1, 2, 3], is_told=False)
    assert whole.support.keep == {}
    cut = client(site, tmp_path, 1, [0, 1], is_told=False)
    with pytest.raises(FpError, match="coordinates that its jobs do not carry"):
        cut.remember("model", block([1.0, 2.0], 1.0))


def test_only_earlier_rounds_count_as_a_memory(home: Path) -> None:
    assert [memory.has_any(home, 1, before) for before in (2, 3)] == [False, True]
    assert not memory.has_any(home, 3, 9)
