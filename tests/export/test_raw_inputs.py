from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exports import narrow
from torch import nn

from fpcli.data.datasets import load_dataset
from fpcli.engine.trained import Inputs
from fpcli.errors import DataError
from fpcli.export.raw_inputs import RawInputs
from fpcli.export.source import ExportSource
from fpcli.export.write import ExportChoice, write_models


@pytest.mark.parametrize("name", ["digits", "breast-cancer"])
def test_it_normalises_as_the_data_set_does(name: str) -> None:
    data = load_dataset(name, None, seed=0)
    raw = RawInputs(nn.Identity(), Inputs.of(data), len(data.input_shape), data.task)
    stored = data.test.images
    normalised = raw(stored.float())
    assert torch.equal(normalised, data.normalise(stored))
    torch.testing.assert_close(raw.invert(normalised), stored.float(), rtol=1e-4, atol=1e-4)


def test_no_file_normalises_in_a_way_that_nobody_knows(tmp_path: Path) -> None:
    source = ExportSource("a", replace(narrow("digits-cnn"), inputs=None), {})
    with pytest.raises(DataError, match="its normalisation is unknown"):
        write_models([source], ExportChoice(("pt2",), is_raw=True), tmp_path / "new")
    assert not (tmp_path / "new").exists()
