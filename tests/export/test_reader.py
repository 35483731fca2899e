from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from exports import every_way
from safetensors.torch import load_file

from fpcli.export import reader
from fpcli.export.card import Card
from fpcli.export.file import decode_model, encode_model

CODE = """
import sys
sys.modules["fpcli"] = None
from pathlib import Path
from reader import read_tensors
from safetensors.torch import save_file
for path in Path.cwd().glob("*.exported"):
    save_file(read_tensors(str(path)), path.with_suffix(".read"))
assert not any(name.startswith("fpcli.") for name in sys.modules)
"""


def test_the_documented_reader_has_at_most_15_lines() -> None:
    lines = Path(reader.__file__).read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip() and '"""' not in line]) <= 15


def test_without_fpcli_every_tensor_comes_back_in_its_true_shape(tmp_path: Path) -> None:
    """Dense, bitmap and index, each in every dtype, and all dense."""
    trained = every_way()
    for dtype in ("float32", "float16", "bfloat16", "int8"):
        data = encode_model(trained, Card.of(trained, {}, dtype)).data
        (tmp_path / f"{dtype}.exported").write_bytes(data)
    dense = encode_model(trained, Card.of(trained, {}), is_dense=True)
    (tmp_path / "dense.exported").write_bytes(dense.data)
    (tmp_path / "reader.py").write_bytes(Path(reader.__file__).read_bytes())
    # The script's own folder is where Python looks first; -E and -s take away ours.
    (tmp_path / "main.py").write_text(CODE)
    command = [sys.executable, "-E", "-s", "-W", "error", "main.py"]
    subprocess.run(command, cwd=tmp_path, check=True)
    for path in tmp_path.glob("*.exported"):
        wanted = decode_model(path)[0]
        found = load_file(path.with_suffix(".read"))
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(found[name], value), f"{path.name}: {name}"
    assert len(list(tmp_path.glob("*.read"))) == 5
