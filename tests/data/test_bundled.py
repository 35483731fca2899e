from __future__ import annotations

import pytest
import torch

from fpcli.data import bundled
from fpcli.data.datasets import load_dataset
from fpcli.errors import DataError


def test_breast_cancer() -> None:
    """212 malignant and 357 benign tumours; a fifth of each, 42 and 71, is for testing."""
    data = load_dataset("breast-cancer", None, seed=0)
    assert (data.input_shape, data.num_classes) == ((30,), 2)
    assert data.class_names == ("malignant", "benign")
    assert torch.bincount(data.test.labels).tolist() == [42, 71]
    assert len(data.train) + len(data.validation) == 569 - 113
    values = data.normalise(torch.cat([data.train.images, data.validation.images]))
    torch.testing.assert_close(values.mean(0), torch.zeros(30), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(30))


def test_diabetes() -> None:
    """Of 442 patients a fifth is for testing, and of the other 354 a tenth for validation."""
    data = load_dataset("diabetes", None, seed=0)
    assert (data.task.kind, data.task.num_outputs, data.input_shape) == ("regress", 1, (10,))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [319, 35, 88]
    labels = torch.cat([data.train.labels, data.validation.labels, data.test.labels])
    assert (labels.dtype, float(labels.min()), float(labels.max())) == (torch.float32, 25, 346)
    learned = torch.cat([data.train.labels, data.validation.labels]).double()
    task = vars(data.task)
    assert task["mean"] == pytest.approx(float(learned.mean()))
    assert task["std"] == pytest.approx(float(learned.std(correction=0)))
    assert (data.class_names, len(data.mean)) == ((), 10)
    other = load_dataset("diabetes", None, seed=1)
    assert other.task == data.task and other.test.labels.equal(data.test.labels)


@pytest.mark.parametrize("name", bundled.SHA256)
def test_other_samples_than_expected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundled.SHA256, name, "0" * 64)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"`{name}` of this scikit-learn is not what it should be"):
        load_dataset(name, None, seed=0)
