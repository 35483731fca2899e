from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fpcli.errors import DataError
from fpcli.store.weights import read_weights
from fpcli.tasks.classify import Classify


class Net(nn.Sequential):
    """Ends in a layer `2` of some classes."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, classes))


FRESH, TRAINED = (dict(Net().state_dict()) for _ in range(2))
ONE_LINE = '`torch.save(model.state_dict(), "own.pt")`'


def read(path: Path, classes: int = 4, **more: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    return read_weights(path, Net(), FRESH, Classify(classes), **more)


def saved(folder: Path, content: object, **more: Any) -> Path:
    torch.save(content, folder / "own.pt", **more)
    return folder / "own.pt"


OPTIMIZER = torch.optim.SGD(Net().parameters(), lr=0.1).state_dict()


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (TRAINED, ""),
        ({"state_dict": TRAINED}, "a checkpoint with `state_dict`; the weights are read from"),
        (
            {"model": TRAINED, "optimizer": OPTIMIZER, "epoch": 3},
            "a checkpoint with `model`, `optimizer`, `epoch`; the weights are read from `model`",
        ),
        ({"epoch": 1, "model_state_dict": TRAINED}, "the weights are read from `model_state_dict`"),
        (
            {f"module.{name}": x for name, x in TRAINED.items()},
            "`module.` before all names",
        ),
        ({f"_orig_mod.module.{name}": x for name, x in TRAINED.items()}, "`_orig_mod.` before all"),
        ({f"module._orig_mod.{name}": x for name, x in TRAINED.items()}, "`module.` before all"),
    ],
)
def test_weights_are_found_where_trainings_leave_them(
    content: object, note: str, tmp_path: Path
) -> None:
    values, notes = read(saved(tmp_path, content))
    assert all(torch.equal(values[name], x) for name, x in TRAINED.items())
    assert list(values) == list(FRESH)
    assert note in " ".join(notes)
    assert bool(notes) == bool(note)


def test_safetensors_and_other_endings_of_torch(tmp_path: Path) -> None:
    save_file(TRAINED, tmp_path / "own.safetensors")
    for name in ("own.pth", "own.ckpt", "own.bin"):
        torch.save(TRAINED, tmp_path / name)
    for path in tmp_path.iterdir():
        assert torch.equal(read(path)[0]["2.weight"], TRAINED["2.weight"])


def test_a_network_whose_own_names_begin_so_keeps_them(tmp_path: Path) -> None:
    path = saved(tmp_path, {f"module.{name}": x for name, x in TRAINED.items()})
    model = nn.Module()
    model.add_module("module", Net())
    values, notes = read_weights(path, model, dict(model.state_dict()), Classify(4))
    assert (next(iter(values)), notes) == ("module.0.weight", ())


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Net, r"own\.pt: a whole pickled module, `\S*\.Net`, and only running its code could"),
        (
            lambda: {"args": argparse.Namespace(lr=1), "model": TRAINED},
            "own\\.pt: a checkpoint that holds `argparse.Namespace` beside tensors",
        ),
        (lambda: {"model": Net()}, r"a checkpoint that holds `\S*\.Net`"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, that a class of the tests has no source
def test_what_only_code_could_open_is_named_and_not_opened(
    make: Callable[[], object], message: str, is_zip: bool, protocol: int, tmp_path: Path
) -> None:
    more = {"_use_new_zipfile_serialization": is_zip, "pickle_protocol": protocol}
    with pytest.raises(DataError, match=message) as caught:
        read(saved(tmp_path, make(), **more))
    assert ONE_LINE in caught.value.hint


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path("canary"),))


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "absent_nets", None)
    for content in (_Bomb(), {"state_dict": _Bomb()}, {"state_dict": TRAINED, "more": _Bomb()}):
        with pytest.raises(DataError, match="only running"):
            read(saved(tmp_path, content))
    (tmp_path / "own.pt").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(DataError):
        read(tmp_path / "own.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ([1, 2], "a list and no named tensors", ONE_LINE),
        ({}, "an empty checkpoint", ONE_LINE),
        (
            {"net": TRAINED, "epoch": 3},
            "a checkpoint with `net`, `epoch`, and weights in none of `state_dict`",
            '`torch.save(torch.load("own.pt")["net"], "own.pt")`',
        ),
        ({"model": 3}, "a checkpoint with `model`, and weights in none of", ONE_LINE),
        ({**TRAINED, "2.bias": torch.full((4,), torch.nan)}, "not finite", "diverged"),
        ({**TRAINED, "0.bias": torch.ones(9)}, r"`0.bias` has shape \[9\]", "another network"),
        ({**TRAINED, "more": torch.ones(9)}, "the network has no `more`", "another network"),
        ({"0.weight": TRAINED["0.weight"]}, "`0.bias` is missing", ""),
    ],
)
def test_what_does_not_fit_is_named(
    content: object, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(saved(tmp_path, content))
    assert hint in caught.value.hint


def test_a_head_of_another_width_is_told_and_can_be_made_anew(tmp_path: Path) -> None:
    path = saved(tmp_path, Net(1000).state_dict())
    with pytest.raises(DataError, match="`2` has 1,000 outputs, and the data 4 classes") as caught:
        read(path)
    assert "`--head new`" in caught.value.hint
    values, notes = read(path, head="new")
    assert torch.equal(values["2.weight"], FRESH["2.weight"])
    assert torch.equal(values["2.bias"], FRESH["2.bias"])
    assert not torch.equal(values["0.weight"], FRESH["0.weight"])
    assert notes == (f"{path}: `2` is new, for 4 classes",)
    # Only the last layer: what lies before it must fit.
    with pytest.raises(DataError, match=r"`0\.weight`"):
        read(saved(tmp_path, {**Net(1000).state_dict(), "0.weight": torch.ones(5, 9)}), head="new")


def test_a_head_that_fits_is_made_anew_only_if_asked_and_a_missing_one_too(tmp_path: Path) -> None:
    path = saved(tmp_path, TRAINED)
    assert torch.equal(read(path)[0]["2.weight"], TRAINED["2.weight"])
    assert torch.equal(read(path, head="new")[0]["2.weight"], FRESH["2.weight"])
    backbone = {name: x for name, x in TRAINED.items() if not name.startswith("2.")}
    assert torch.equal(read(saved(tmp_path, backbone), head="new")[0]["2.bias"], FRESH["2.bias"])


def test_a_network_without_a_layer_for_the_classes_has_no_head(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ends in no layer of its outputs"):
        read(saved(tmp_path, TRAINED), 7, head="new")
