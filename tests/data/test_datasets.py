from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.errors import DataError, NeedError, RecipeError, UsageError


def arrays(images: str = "uint8", height: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for part, count in (("train", 60), ("test", 12)):
        pixels = rng.integers(0, 200, (count, height, 5, 2))
        pixels[..., 1] = 7
        made[f"{part}_images"] = pixels.astype(images)
        made[f"{part}_labels"] = np.arange(count) % 3
    return made


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write the user's module `ownimages`, forgotten afterwards."""

    def write(text: str) -> None:
        (tmp_path / "ownimages.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("ownimages", None)


def test_classes_of_some_samples() -> None:
    data = load_dataset("digits", None, seed=0)
    part = torch.isin(data.train.labels, torch.tensor([2, 7])).nonzero().flatten()
    assert data.classes_of(part).nonzero().flatten().tolist() == [2, 7]
    assert data.classes_of(part[:0]).tolist() == [False] * 10


def save(path: Path, **changes: Any) -> str:
    np.savez(path, **(arrays() | changes))
    return f"npz:{path}"


def same(a: Dataset, b: Dataset) -> bool:
    return all(
        getattr(a, part).images.equal(getattr(b, part).images)
        for part in ("train", "validation", "test")
    )


def test_digits() -> None:
    data = load_dataset("digits", None, seed=0)
    assert (data.input_shape, data.num_classes, data.name) == ((1, 8, 8), 10, "digits")
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sum(sizes) == 1797
    assert sizes == [1295, 143, 359]
    assert data.train.images.dtype == torch.uint8
    assert int(data.train.images.max()) == 16
    for split in (data.train, data.validation, data.test):
        shares = torch.bincount(split.labels).float() / len(split)
        assert shares.sub(0.1).abs().max() < 0.02


def test_digits_test_split_is_fixed_and_validation_seeded() -> None:
    first, again, other = (load_dataset("digits", None, seed=seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert first.test.images.equal(other.test.images)
    assert not first.validation.images.equal(other.validation.images)
    assert (first.mean, first.std) == (other.mean, other.std)


def test_normalised_training_images_have_mean_0_and_variance_1() -> None:
    data = load_dataset("digits", None, seed=0)
    values = data.normalise(data.train.images)
    assert values.dtype == torch.float32
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.var().item() == pytest.approx(1, abs=0.01)
    expected = (data.train.images.float() / 16 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(values, expected)


def test_moments_of_a_table_are_per_feature(tmp_path: Path) -> None:
    """Feature 0 is 0, 2, 4 ..., 118: mean 59, variance 4 * (60 ** 2 - 1) / 12; feature 1 is 5."""
    rows = np.stack([np.arange(60) * 2.0, np.full(60, 5.0)], axis=1)
    labels = np.arange(60) % 3
    name = save(
        tmp_path / "x.npz",
        train_images=rows,
        test_images=rows,
        test_labels=labels,
        train_owners=np.arange(60) // 20,
    )
    data = load_dataset(name, None, seed=0)
    assert (data.input_shape, data.class_names) == ((2,), ("0", "1", "2"))
    assert data.mean == pytest.approx((59.0, 5.0))
    assert data.std == pytest.approx(((4 * 3599 / 12) ** 0.5, 1.0))
    assert data.normalise(data.test.images)[0].tolist() == pytest.approx([-59 / data.std[0], 0])
    assert data.owner_names == ("0", "1", "2")
    assert data.train.owners is not None
    assert data.train.owners.equal((data.train.images[:, 0] // 40).long())
    data.share()
    assert data.train.owners.is_shared()


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"class_names": ["a", "b"]}, "class_names must be 3 different names, got 2"),
        ({"class_names": ["a", "b", "c", "d"]}, "class_names must be 3"),
        ({"class_names": ["a", "b", "a"]}, "class_names must be 3"),
        ({"train_owners": np.arange(60) // 20, "owner_names": ["x"]}, "owner_names must be 3"),
        ({"class_names": ["a", "b", "c"], "train_owners": [0] * 60, "owner_names": "xy"}, ""),
    ],
)
def test_names(monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], wanted: str) -> None:
    monkeypatch.setattr("fpcli.plugins.lookup", lambda kind, name: lambda data_dir: arrays() | more)
    if wanted:
        with pytest.raises(DataError, match=wanted):
            load_dataset("theirs", None, seed=0)
    else:
        data = load_dataset("theirs", None, seed=0)
        assert (data.class_names, data.owner_names) == (("a", "b", "c"), ("x", "y"))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_moments_are_per_channel_and_a_constant_channel_becomes_0(
    tmp_path: Path, dtype: str
) -> None:
    given = arrays(dtype)
    data = load_dataset(save(tmp_path / "x.npz", **given), None, seed=0)
    scale = 1 / 255 if dtype == "uint8" else 1.0
    first = given["train_images"][..., 0].astype(np.float64) * scale
    assert data.mean == pytest.approx((first.mean(), 7 * scale))
    assert data.std == pytest.approx((first.std(), 1.0))
    values = data.normalise(data.train.images)
    assert values.isfinite().all()
    assert values[:, 1].abs().max() < 1e-5
    assert data.train.images.untyped_storage().data_ptr() != values.untyped_storage().data_ptr()


def test_normalise_leaves_float_images_alone(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "x.npz", **arrays("float32")), None, seed=0)
    before = data.test.images.clone()
    data.normalise(data.test.images)
    assert data.test.images.equal(before)


def test_validation_is_a_fraction_of_each_class(tmp_path: Path) -> None:
    name = save(tmp_path / "x.npz")
    data = load_dataset(name, None, validation_fraction=0.2, seed=0)
    assert torch.bincount(data.validation.labels).tolist() == [4, 4, 4]
    assert torch.bincount(data.train.labels).tolist() == [16, 16, 16]
    tiny = load_dataset(name, None, validation_fraction=0.001, seed=0)
    assert torch.bincount(tiny.validation.labels).tolist() == [1, 1, 1]


def test_validation_of_the_file_is_used(tmp_path: Path) -> None:
    given = arrays()
    extra = {"val_images": given["test_images"], "val_labels": given["test_labels"]}
    data = load_dataset(save(tmp_path / "x.npz", **extra), None, seed=0)
    assert data.validation.images.equal(data.test.images)
    assert len(data.train) == 60


def test_one_image_per_class_leaves_no_validation(tmp_path: Path) -> None:
    given = {"train_images": np.zeros((3, 6, 5, 2), np.uint8), "train_labels": np.arange(3)}
    with pytest.raises(DataError, match="validation split"):
        load_dataset(save(tmp_path / "x.npz", **given), None, seed=0)


def test_bad_file_is_named_with_its_key(tmp_path: Path) -> None:
    name = save(tmp_path / "x.npz", train_labels=np.zeros(60, bool))
    with pytest.raises(DataError, match=r"x\.npz: train_labels has type bool"):
        load_dataset(name, None, seed=0)


def test_unknown_name_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown data set `digit`") as caught:
        load_dataset("digit", None, seed=0)
    assert "digits" in caught.value.hint


def test_function_runs_only_when_allowed(module: Callable[[str], None], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays())
    module(
        "import numpy\nfrom pathlib import Path\n"
        "def make():\n"
        "    return dict(numpy.load(Path(__file__).with_name('x.npz')))\n"
    )
    with pytest.raises(RecipeError, match="would run code") as caught:
        load_dataset("ownimages:make", None, seed=0)
    assert "--data ownimages:make" in caught.value.hint
    assert "ownimages" not in sys.modules
    data = load_dataset("ownimages:make", None, seed=0, allow_code=True)
    assert same(data, load_dataset(f"npz:{tmp_path / 'x.npz'}", None, seed=0))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def make(): raise KeyError('k')", "failed: KeyError"),
        ("def make(): return 3", "returned int"),
        ("def make(): return {}", "no array `train_images`"),
        ("make = 3", "failed: TypeError"),
    ],
)
def test_faulty_function(module: Callable[[str], None], body: str, message: str) -> None:
    module(body)
    with pytest.raises(DataError, match=message):
        load_dataset("ownimages:make", None, seed=0, allow_code=True)


@pytest.mark.parametrize(
    ("body", "message"), [("", "has no `make`"), ("1 / 0", "ZeroDivisionError: division by zero")]
)
def test_missing_function(module: Callable[[str], None], body: str, message: str) -> None:
    module(body)
    with pytest.raises(UsageError, match=message):
        load_dataset("ownimages:make", None, seed=0, allow_code=True)


@pytest.mark.parametrize("constants", [{"mean": (0.5,), "std": (1.0,)}, {"std": (1.0, 0.0)}])
def test_constants_must_suit_the_channels(
    monkeypatch: pytest.MonkeyPatch, constants: dict[str, Any]
) -> None:
    given = arrays() | {"mean": (0.5, 0.5)} | constants
    monkeypatch.setattr("fpcli.plugins.lookup", lambda kind, name: lambda data_dir: given)
    with pytest.raises(DataError, match="do not suit 2 channels"):
        load_dataset("theirs", None, seed=0)


def test_share_keeps_values(tmp_path: Path) -> None:
    name = save(tmp_path / "x.npz")
    shared, plain = load_dataset(name, None, seed=0), load_dataset(name, None, seed=0)
    shared.share()
    assert shared.train.images.is_shared()
    assert shared.test.labels.is_shared()
    assert same(shared, plain)


def test_too_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory")

    data = load_dataset(save(tmp_path / "x.npz"), None, seed=0)
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(NeedError, match="unable to allocate") as caught:
        data.share()
    assert "inline" in caught.value.hint
