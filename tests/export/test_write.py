from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from exports import every_way, masked, narrow

from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, NeedError, UsageError
from fpcli.export.formats import PROGRAMS, Forward
from fpcli.export.source import ExportSource
from fpcli.export.write import EXPORT_FORMATS, NUM_INPUTS, ExportChoice, write_models

pytestmark = pytest.mark.processor

CUT = ExportSource("model", narrow("digits-cnn"), {"run": "x"})


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def choice(*names: str, **more: object) -> ExportChoice:
    """Return a choice of formats; a test that needs a package which is missing is skipped."""
    for name in names:
        for package in PROGRAMS[name].needs if name in PROGRAMS else ():
            pytest.importorskip(package)
    return replace(ExportChoice(names), **more)  # type: ignore[arg-type]


SMALL: dict[str, Trained] = {
    "convolutions": narrow("digits-cnn"),
    "residual, batch norm": narrow("nets:tiny", ratio=0.3),
    "masked": masked("digits-cnn", {"conv2.weight": 0.3, "fc1.weight": 0.1}),
}


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", SMALL)
def test_every_format_computes_what_the_pruned_network_computes(
    name: str, format: str, tmp_path: Path
) -> None:
    (file,) = write_models([ExportSource("a", SMALL[name], {})], choice(format), tmp_path)
    assert file.max_difference <= (0.0 if format == "safetensors" else 1e-5)
    assert file.num_same == NUM_INPUTS
    assert contents(tmp_path) == [f"a.{format}"]
    data = file.path.read_bytes()
    assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


NETS: dict[str, tuple[int, ...]] = {
    "lenet5": (1, 28, 28),
    "mnist-cnn": (1, 28, 28),
    "fedavg-cnn": (1, 28, 28),
    "mnist-mlp": (1, 28, 28),
    "tabular-mlp": (30,),
    "alexnet": (3, 32, 32),
    "vgg11": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet20-gn": (3, 32, 32),
    "hetero-cnn": (3, 32, 32),
    "subfedavg-cifar-bn": (3, 32, 32),
    "torchvision:mobilenet_v2": (3, 64, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_every_format_takes_many_networks(name: str, format: str, tmp_path: Path) -> None:
    source = ExportSource("a", narrow(name, NETS[name], ratio=0.4), {})
    (file,) = write_models([source], choice(format), tmp_path)
    assert file.max_difference <= 1e-5
    assert file.num_same == NUM_INPUTS


def test_smaller_dtypes_report_their_error_and_are_held_to_no_limit(tmp_path: Path) -> None:
    (file,) = write_models([CUT], choice("safetensors", dtype="int8"), tmp_path)
    assert file.max_difference > 1e-5
    assert 0 < file.max_weight_error < 0.1
    (dense,) = write_models([CUT], choice("safetensors"), tmp_path, force=True)
    assert file.bytes < dense.bytes / 2


def test_sparse_files_are_smaller_than_dense_ones(tmp_path: Path) -> None:
    source = ExportSource("a", every_way(), {})
    (sparse,) = write_models([source], choice("safetensors"), tmp_path / "sparse")
    (dense,) = write_models([source], choice("safetensors", is_dense=True), tmp_path / "dense")
    assert sparse.bytes < dense.bytes
    assert sparse.detail.endswith(", 2 tensors sparse")
    assert "sparse" not in dense.detail


def read_as(monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Forward]) -> None:
    """Let files of torch.export be read in another way."""
    monkeypatch.setitem(PROGRAMS, "pt2", replace(PROGRAMS["pt2"], read=read))  # type: ignore[misc]


def test_a_difference_above_the_limit_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first format would do; a model of two formats is still written whole or not at all."""
    read_as(monkeypatch, lambda path: lambda x: CUT.trained.module()(x) + 0.01)
    with pytest.raises(CheckError, match=r"model.pt2: outputs differ by 1.0e-02"):
        write_models([CUT], choice("safetensors", "pt2"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (file,) = write_models([CUT], choice("pt2", atol=0.1), tmp_path)
    assert file.max_difference == pytest.approx(0.01, rel=1e-3)


def test_other_classes_leave_no_file_however_small_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch, lambda path: lambda x: -CUT.trained.module()(x))
    with pytest.raises(CheckError, match="of which 0 are given equal classes"):
        write_models([CUT], choice("pt2", atol=1e9), tmp_path)
    assert contents(tmp_path) == []


def test_a_file_that_its_runtime_cannot_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> Forward:
        raise RuntimeError("no such operator\nmore")

    read_as(monkeypatch, fail)
    with pytest.raises(CheckError, match=r"once written: no such operator$"):
        write_models([CUT], choice("pt2"), tmp_path)
    assert contents(tmp_path) == []


def test_what_is_there_stays_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("mine")
    with pytest.raises(UsageError, match=r"model.pt2 exists") as caught:
        write_models([CUT], choice("safetensors", "pt2"), tmp_path)
    assert "--force" in caught.value.hint
    assert contents(tmp_path) == ["model.pt2"]
    write_models([CUT], choice("pt2"), tmp_path, force=True)
    assert (tmp_path / "model.pt2").read_bytes()[:2] == b"PK"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_what_was_there(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_text("mine")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((NeedError, KeyboardInterrupt)) as caught:
        write_models([CUT], choice("safetensors"), tmp_path, force=True)
    if isinstance(caught.value, NeedError):
        assert "free some disk space" in caught.value.hint
    assert contents(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_what_a_crash_left_behind_goes(tmp_path: Path) -> None:
    for name, age_s in ((".export.old", 90_000), (".export.beside", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    write_models([CUT], choice("safetensors"), tmp_path)
    assert contents(tmp_path) == [".export.beside", "model.safetensors"]


def test_a_folder_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").mkdir()
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(UsageError, match=r"model.pt2 exists") as caught:
        write_models([CUT], choice("safetensors", "pt2"), tmp_path, force=True)
    assert "--force" not in caught.value.hint
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    def other(text: str) -> None:
        write_models([CUT], choice("safetensors"), tmp_path)

    with pytest.raises(UsageError, match="exists"):
        write_models([CUT], choice("safetensors"), tmp_path, tell=other)
    assert contents(tmp_path) == ["model.safetensors"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NeedError, match="cannot write"):
        write_models([CUT], choice("safetensors"), tmp_path / "file")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    sums = {write_models([CUT], choice("safetensors"), tmp_path / n)[0].sha256 for n in ("a", "b")}
    assert len(sums) == 1
