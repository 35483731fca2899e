from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytest
import torch
from exports import narrow

from fpcli.errors import DataError, NeedError
from fpcli.export.card import Card
from fpcli.export.formats import PROGRAMS, silence_exporters

TRAINED = narrow("digits-cnn")
CARD = Card.of(TRAINED, {"run": "x"})


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_takes_batches_of_any_size_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    form = PROGRAMS[name]
    for package in form.needs:
        pytest.importorskip(package)
    path = tmp_path / f"a.{name}"
    data, _ = form.write(TRAINED.module(), CARD, 0)
    path.write_bytes(data)
    run = form.read(path)
    for batch in (1, 2, 7):
        x = torch.randn(batch, 1, 8, 8)
        assert torch.allclose(run(x), TRAINED.module()(x), atol=1e-5)
    assert Card.from_json(about(name, path)) == CARD


def about(name: str, path: Path) -> str:
    """Return the card that lies in a file, read by the file's own library."""
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return str(session.get_modelmeta().custom_metadata_map["fpcli"])
    extra = {"fpcli": ""}
    torch.export.load(path, extra_files=extra)
    return extra["fpcli"]


def test_another_opset_is_taken_or_refused() -> None:
    pytest.importorskip("onnxscript")
    data, detail = PROGRAMS["onnx"].write(TRAINED.module(), CARD, 19)
    assert detail == "opset 19, onnxruntime"
    assert data
    with pytest.raises(DataError, match="needs opset 18 instead of 99"):
        PROGRAMS["onnx"].write(TRAINED.module(), CARD, 99)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_network_that_decides_by_its_values_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be exported") as caught:
        PROGRAMS["pt2"].write(Branching(), CARD, 0)
    assert "--to safetensors" in caught.value.hint


@pytest.mark.parametrize("package", PROGRAMS["onnx"].needs)
def test_a_missing_extra_is_named_with_its_command(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in PROGRAMS["onnx"].needs:
        monkeypatch.setitem(sys.modules, other, sys)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NeedError, match=f"--to onnx needs the package `{package}`") as caught:
        PROGRAMS["onnx"].check_installed("--to onnx")
    assert caught.value.hint == "`pip install 'fpcli[onnx]'`"


def test_chatter_is_kept_back_and_the_loggers_are_left_as_they_were(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with silence_exporters():
        print("x")
        print("y", file=sys.stderr)
        warnings.warn("z", stacklevel=1)
        logging.getLogger("a").error("b")
    assert (*capsys.readouterr(), caplog.text) == ("", "", "")
    logging.getLogger("a").error("b")
    assert "b" in caplog.text
