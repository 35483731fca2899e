"""Files of networks that predict numbers or rank items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tasked import learned

from fpcli.engine.evaluate import evaluate
from fpcli.errors import CheckError, DataError
from fpcli.export import write
from fpcli.export.bench import Plan, step_run, time_in_turns
from fpcli.export.candidates import open_candidate
from fpcli.export.formats import PROGRAMS, Form
from fpcli.export.load_model import load
from fpcli.export.source import ExportSource
from fpcli.export.write import NUM_INPUTS, ExportChoice, write_models

FORMATS = ("safetensors", "pt2", "onnx")


@pytest.mark.parametrize("kind", ["regress", "rank"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_says_what_the_network_says(kind: str, format: str, tmp_path: Path) -> None:
    trained, data = learned(kind)
    (file,) = write_models([ExportSource("m", trained, {})], ExportChoice((format,)), tmp_path)
    assert file.max_difference <= 1e-5
    assert (file.num_same, file.answers) == ((None, "") if kind == "regress" else (32, "items"))
    run = load(file.path, code=trained.model) if format == FORMATS[0] else None
    x = data.normalise(data.test.images[:7])
    with torch.no_grad():
        outputs = (run or PROGRAMS[format].read(file.path))(x)
    torch.testing.assert_close(outputs, trained.module()(x).detach(), rtol=1e-4, atol=1e-5)
    candidate = open_candidate(file.path, code=trained.model)
    assert candidate.task == data.task
    assert (candidate.draw(3).dtype, len(candidate.draw(3))) == (x.dtype, 3)
    (row,) = time_in_turns([candidate], Plan((2,), (1,), 0.01))
    assert len(row.forward) == 1
    assert len(row.step) == (format == FORMATS[0])


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_a_file_of_raw_values_predicts_numbers_in_their_own_units(
    format: str, tmp_path: Path
) -> None:
    trained, data = learned("regress")
    choice = ExportChoice((format,), is_raw=True)
    (file,) = write_models([ExportSource("m", trained, {})], choice, tmp_path)
    outputs = PROGRAMS[format].read(file.path)(data.test.images.float())
    predicted = outputs.detach().flatten().double()
    error = (predicted - data.test.labels).abs().mean()
    wanted = evaluate(trained.module(), data.test, data).metrics["mae"]
    assert float(error) == pytest.approx(wanted, rel=1e-4)


def test_what_takes_items_normalises_nothing(tmp_path: Path) -> None:
    choice = ExportChoice(("pt2",), is_raw=True)
    with pytest.raises(DataError, match="sequences of items, which nothing normalises") as caught:
        write_models([ExportSource("m", learned("rank")[0], {})], choice, tmp_path)
    assert "leave out --with-normalise" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("off", [5e-6, 5e-5])
def test_predicted_numbers_may_differ_by_a_share_of_the_largest(
    off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by a share of every output, which is hundreds: absolute limits would say nothing."""
    trained, _ = learned("regress")
    source = ExportSource("m", replace(trained), {})
    raw = write._with_raw_inputs(source, trained.module())
    wrong = Form(PROGRAMS["pt2"].write, lambda path: lambda x: raw(x) * (1 + off))
    monkeypatch.setattr(write, "PROGRAMS", {**PROGRAMS, "pt2": wrong})
    choice = ExportChoice(("pt2",), is_raw=True)
    if off < choice.atol:
        (file,) = write_models([source], choice, tmp_path)
        assert file.max_difference == pytest.approx(off, rel=0.2)
        return
    with pytest.raises(CheckError, match=rf"outputs differ by 5.*on {NUM_INPUTS} inputs$"):
        write_models([source], choice, tmp_path)


@pytest.mark.parametrize("kind", ["regress", "rank"])
def test_a_quantised_file_is_judged_by_the_tasks_metric(kind: str, tmp_path: Path) -> None:
    trained, data = learned(kind)
    for is_raw in (False, True) if kind == "regress" else (False,):
        choice = ExportChoice(("onnx",), is_quantised=True, is_raw=is_raw)
        source = ExportSource(f"m{is_raw}", trained, {})
        (file,) = write_models([source], choice, tmp_path, dataset=data)
        name = data.task.primary_name
        whole = evaluate(trained.module(), data.test, data).metrics[name]
        assert file.metric == name
        assert file.judged is not None
        assert file.judged[0] == pytest.approx(whole, rel=1e-4)
        assert file.judged[1] == pytest.approx(whole, rel=0.2)


def test_a_timed_step_has_the_tasks_loss() -> None:
    for kind in ("regress", "rank"):
        trained, data = learned(kind)
        model = trained.module()
        before = {name: value.clone() for name, value in model.named_parameters()}
        x = data.task.draw_inputs(data.input_shape, 4, torch.Generator().manual_seed(0))
        step_run(model, x, data.task)()
        assert all(torch.equal(before[name], x) for name, x in model.named_parameters())
        assert any(bool(x.grad.abs().sum() > 0) for x in model.parameters() if x.grad is not None)
