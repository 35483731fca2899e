from __future__ import annotations

import json
import os
import pickle
import random
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exports import every_way, narrow, whole
from safetensors.torch import load as load_tensors
from safetensors.torch import save, save_file
from torch import Tensor

from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, DataError
from fpcli.export.card import Card, Dtype
from fpcli.export.file import decode_model, encode_model
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.support import Support


def small(values: dict[str, Tensor], mask: dict[str, Tensor] | None = None) -> Trained:
    """Return a made-up model of a few tensors."""
    specs = {name: TensorSpec(tuple(x.shape), True) for name, x in values.items()}
    like = whole("digits-cnn")
    support = Support({}, mask or {})
    return replace(like, layout=Layout(specs, {}), support=support, values=values)


def card(trained: Trained, dtype: Dtype = "float32") -> Card:
    return Card.of(trained, {"run": "x"}, dtype)


def write(path: Path, trained: Trained, dtype: Dtype = "float32", is_dense: bool = False) -> Path:
    path.write_bytes(encode_model(trained, card(trained, dtype), is_dense=is_dense).data)
    return path


def block_of(trained: Trained) -> dict[str, Tensor]:
    return trained.support.gather(trained.layout, trained.values)


@pytest.mark.parametrize("is_dense", [False, True])
def test_reading_gives_every_tensor_bit_for_bit(tmp_path: Path, is_dense: bool) -> None:
    trained = every_way()
    path = write(tmp_path / "a.safetensors", trained, is_dense=is_dense)
    values, masks, about = decode_model(path)
    wanted = block_of(trained)
    assert values.keys() == wanted.keys()
    assert all(torch.equal(values[name], x) for name, x in wanted.items())
    assert about == card(trained)
    stored = load_tensors(path.read_bytes())
    if is_dense:
        assert not masks
        assert stored.keys() == wanted.keys()
    else:
        assert stored.keys() - wanted.keys() == {"conv2.weight#bitmap", "fc1.weight#index"}
        block = trained.support.block_mask(trained.layout)
        assert all(torch.equal(mask, block[name]) for name, mask in masks.items())


def test_the_smaller_of_bitmap_index_and_dense_is_taken() -> None:
    """64 values: 32 alive take 128 + 8 bytes by bitmap; 1 alive takes 4 + 4 by index instead of
    4 + 8; 63 alive would take 252 + 8 > 256 bytes and stay dense."""
    masks = {
        "half": torch.arange(64) % 2 == 0,
        "one": torch.arange(64) == 5,
        "most": torch.arange(64) != 5,
    }
    masks = {name: mask.view(8, 8) for name, mask in masks.items()}
    trained = small({name: torch.ones(8, 8) for name in masks}, masks)
    stored = encode_model(trained, card(trained))
    sizes = {name: x.nbytes for name, x in load_tensors(stored.data).items()}
    assert sizes == {"half": 128, "half#bitmap": 8, "one": 4, "one#index": 4, "most": 256}
    assert (stored.num_sparse, stored.max_error) == (2, 0.0)
    assert stored.weight_bytes == 400


def test_a_tensor_without_a_weight_is_stored_and_read(tmp_path: Path) -> None:
    """By an index of nothing."""
    trained = small({"b": torch.ones(40)}, {"b": torch.zeros(40, dtype=torch.bool)})
    path = write(tmp_path / "a.safetensors", trained)
    values, masks, _ = decode_model(path)
    assert values["b"].tolist() == [0.0] * 40
    assert not masks["b"].any()
    assert load_tensors(path.read_bytes())["b#index"].shape == (0,)


def test_int8_has_a_scale_per_row(tmp_path: Path) -> None:
    """Rows (127, -63.4) and (0, 2): scales 1 and 2/127, so -63.4 becomes -63 and the rest stays."""
    weight = torch.tensor([[127.0, -63.4], [0.0, 2.0]])
    trained = small({"w": weight, "b": torch.tensor([0.123, 4.0])})
    stored = encode_model(trained, card(trained, "int8"))
    parts = load_tensors(stored.data)
    assert parts["w"].tolist() == [[127, -63], [0, 127]]
    assert parts["w#scale"].tolist() == pytest.approx([1.0, 2 / 127])
    assert parts["b"].dtype == torch.float32
    assert stored.max_error == pytest.approx(0.4, abs=1e-5)
    path = tmp_path / "a.safetensors"
    path.write_bytes(stored.data)
    assert decode_model(path)[0]["w"].tolist() == [[127.0, -63.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    ("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 254)]
)
def test_smaller_dtypes_lose_no_more_than_their_rounding(
    tmp_path: Path, dtype: Dtype, error: float
) -> None:
    trained = every_way()
    stored = encode_model(trained, card(trained, dtype))
    largest = max(float(x.abs().max()) for x in block_of(trained).values())
    assert 0 < stored.max_error <= error * largest
    path = write(tmp_path / "a.safetensors", trained, dtype)
    values, masks, about = decode_model(path)
    assert about.dtype == dtype
    assert masks.keys() == {"conv2.weight", "fc1.weight"}
    worst = max(float((values[name] - x).abs().max()) for name, x in block_of(trained).items())
    assert worst == stored.max_error
    assert torch.equal(values["fc1.bias"], block_of(trained)["fc1.bias"])


def test_a_weight_beyond_float16_is_an_error_and_no_infinity() -> None:
    trained = small({"w": torch.full((2, 2), 1e5)})
    with pytest.raises(CheckError, match="too large for float16"):
        encode_model(trained, card(trained, "float16"))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return a file that differs in some bytes, or lost or got some."""
    place = rng.randrange(len(data))
    match rng.randrange(5):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 2:
            return data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:]
        case 3:
            return data[:place] + data[place + rng.randrange(1, 9) :]
        case _:
            other = rng.randrange(len(data))
            return data[:place] + data[other : other + 16] + data[place + 16 :]


def fuzz(tmp_path: Path, count: int) -> None:
    masks = {"half": torch.rand(7, 5) < 0.5, "few": torch.arange(70).view(7, 10) == 3}
    values = {"half": torch.randn(7, 5), "few": torch.randn(7, 10), "b": torch.randn(3)}
    trained = small(values, masks)
    path, rng = tmp_path / "a.safetensors", random.Random(0)
    for dtype in ("float32", "int8"):
        data = encode_model(trained, card(trained, dtype)).data
        path.write_bytes(data)
        wanted = decode_model(path)
        for number in range(count):
            path.write_bytes(damaged(data, rng))
            try:
                found = decode_model(path)
            except DataError:
                continue
            same = all(torch.equal(found[0][name], x) for name, x in wanted[0].items())
            assert same and found[2] == wanted[2], f"{dtype}, number {number}"


def test_damaged_files_are_refused_or_equal(tmp_path: Path) -> None:
    fuzz(tmp_path, 150)


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_equal(tmp_path: Path) -> None:
    fuzz(tmp_path, 20_000)


def with_header(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("canary"),))


def about(**changes: object) -> dict[str, str]:
    """Return metadata that are right but for the changes and the digest."""
    said = {"shapes": {"a": [1]}, "card": json.loads(card(narrow("digits-cnn")).to_json())}
    return {"fpcli": json.dumps(said | {"sha256": "0"} | changes)}


OVERLAP = {
    "__metadata__": about(),
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
}
HOSTILE = {
    "pickle": pickle.dumps(_Bomb()),
    "overlap": with_header(OVERLAP, bytes(12)),
    "beyond": with_header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, b"x"),
    "negative": with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
    "endless header": struct.pack("<Q", 2**63) + b"{}",
    "deep header": struct.pack("<Q", 10**6) + b"[" * 10**6,
    "empty": b"",
    "stray tensor": save({"a": torch.ones(1)}, about(shapes={})),
    "no tensor": save({}, about()),
    "vast": save(
        {"a": torch.ones(0), "a#index": torch.ones(0, dtype=torch.int32)},
        about(shapes={"a": [2000000, 2000000]}),
    ),
    "large": save(
        {"a": torch.ones(0), "a#index": torch.ones(0, dtype=torch.int32)},
        about(shapes={"a": [2**13, 2**13]}),
    ),
    "no shape": save({"a": torch.ones(1)}, about(shapes={"a": [-1]})),
    "no JSON": save({"a": torch.ones(1)}, {"fpcli": "{"}),
    "no object": save({"a": torch.ones(1)}, {"fpcli": "[1]"}),
    "no card": save({"a": torch.ones(1)}, about(card=None)),
    "deep JSON": save({"a": torch.ones(1)}, {"fpcli": "[" * 100_000}),
    "complex": save({"a": torch.ones(1, dtype=torch.complex64)}, about()),
    "wrong digest": save({"a": torch.ones(1)}, about()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[name])
    started = time.perf_counter()
    with pytest.raises(DataError):
        decode_model(path)
    assert time.perf_counter() - started < 5
    assert not (tmp_path / "canary").exists()


def test_a_header_of_100_mb_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 100 * 2**20))
    os.truncate(path, 101 * 2**20)
    with pytest.raises(DataError, match="impossibly long"):
        decode_model(path)


def test_other_files_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        decode_model(tmp_path / "none.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(DataError, match=r"none of `fp export`"):
        decode_model(tmp_path / "plain.safetensors")
    trained = narrow("digits-cnn")
    newer = encode_model(trained, replace(card(trained), format=3))
    (tmp_path / "newer.safetensors").write_bytes(newer.data)
    with pytest.raises(DataError, match="format 3"):
        decode_model(tmp_path / "newer.safetensors")
