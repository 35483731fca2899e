"""What a newcomer types wrong, and that each answer says what to type instead."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NETS = """
from torch import nn


def small(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""

MISTAKES = {
    # Case, punctuation, and names of other programs.
    "train --method FedMP": (2, "did you mean `fedmp`?"),
    "train --method fedmpp": (2, "did you mean `fedmp`?"),
    "train --method fed-avg": (2, "did you mean `fedavg`?"),
    "train --method FedPrune": (2, "--method: unknown method `FedPrune`"),
    "methods FedMP": (2, "did you mean `fedmp`?"),
    "prune lenet5 --data mnist --score L1 --ratio 0.5 --dry-run": (2, "did you mean `l1`?"),
    "prune lenet5 --data mnist --score magnitude --ratio 0.5 --dry-run": (2, "did you mean `l1`?"),
    "prune gdp --data digits": (2, "did you mean `--method gdp`?"),
    "train --model LeNet5": (2, "did you mean `lenet5`?"),
    "train --model lenet": (2, "did you mean `lenet5`?"),
    "train --model ResNet-20": (2, "did you mean `resnet20`?"),
    "train --model resnet18": (2, "did you mean `torchvision:resnet18`?"),
    "train --model mobilenet_v2": (2, "did you mean `torchvision:mobilenet_v2`?"),
    "train --model torchvision:resnet-18": (2, "did you mean `torchvision:resnet18`?"),
    "train --model cnn": (2, "did you mean `fedavg-cnn`?"),
    "train --model mlp": (2, "did you mean `mnist-mlp` or `tabular-mlp`?"),
    "train --data MNIST": (2, "did you mean `mnist`?"),
    "train --data cifar-10": (2, "did you mean `cifar10`?"),
    "train --data fmnist": (2, "did you mean `fashion-mnist`?"),
    "train --data imagenet": (2, "known: digits, breast-cancer, diabetes, mnist"),
    "data show cifar": (2, "did you mean `cifar10`?"),
    "train --fleet phone": (2, "did you mean `phones`?"),
    "train --codec fp16": (2, "did you mean `float16`?"),
    "train --executor processes": (2, "did you mean `pool`?"),
    "train --set server.optimizer=FedAdam": (2, "did you mean `adam`?"),
    "export --to pytorch": (2, "did you mean `pt2` or `safetensors`?"),
    "export --to pt": (2, "did you mean `pt2`?"),
    "export --to ONNX": (2, "did you mean `onnx`?"),
    "train --device gpu": (5, "did you mean `cuda`?"),
    "fit --device GPU": (5, "did you mean `cuda`?"),
    # Partitions, of which one is the opposite of what looks alike.
    "train --partition non-iid": (2, "did you mean `dirichlet`?"),
    "train --partition noniid": (2, "did you mean `dirichlet`?"),
    "train --partition Non_IID": (2, "did you mean `dirichlet`?"),
    "train --partition IID": (2, "did you mean `iid`?"),
    "train --partition pathological": (2, "did you mean `shards`?"),
    "data split digits --by non-iid": (2, "did you mean `dirichlet`?"),
    # Own code and own data.
    "train --model mynets.py:small": (2, "write `mynets:small`"),
    "train --model ./mynets.py:small": (2, "did you mean `mynets:small`?"),
    "train --model mynets.small": (2, "did you mean `mynets:small`?"),
    "train --model mynets.py": (2, "did you mean `mynets:FUNCTION`?"),
    "train --model mynets": (2, "did you mean `mynets:FUNCTION`?"),
    "train --model mynets:smal": (2, "did you mean `mynets:small`?"),
    "train --method mynets.py:Small": (2, "write `mynets:Small`"),
    "train --data ./imgs": (2, "did you mean `folder:./imgs`?"),
    "train --data imgs": (2, "did you mean `folder:imgs`?"),
    "train --data x.npz": (2, "did you mean `npz:x.npz`?"),
    "train --data t.csv": (2, "did you mean `csv:t.csv`?"),
    "data show T.CSV": (2, "did you mean `csv:T.CSV`?"),
    # Options.
    "train --n-clients 5": (2, "did you mean `--clients`?"),
    "train --num-clients 5": (2, "did you mean `--clients`?"),
    "train --learning-rate 0.1": (2, "did you mean `--lr`?"),
    "fit --learning_rate 0.1": (2, "did you mean `--lr`?"),
    "train --batch_size 5": (2, "did you mean `--batch-size`?"),
    "train --bs 5": (2, "did you mean `--batch-size`?"),
    "train --comm-rounds 5": (2, "did you mean `--rounds`?"),
    "train --local-epochs 5": (2, "did you mean `--epochs`?"),
    "train --dataset mnist": (2, "did you mean `--data`?"),
    "train --algorithm fedmp": (2, "did you mean `--method`?"),
    "train --config x.yaml": (2, "did you mean `--recipe`?"),
    "train --gpu": (2, "did you mean `--device cuda`?"),
    "train --non-iid": (2, "did you mean `--partition dirichlet`?"),
    "train --overwrite": (2, "did you mean `--force`?"),
    "prune lenet5 --data mnist --sparsity 0.5": (2, "did you mean `--ratio`?"),
    "prune lenet5 --data mnist --flops 0.5": (2, "did you mean `--macs`?"),
    "train --zzz": (2, "`fp train --help` lists the options"),
    # Words without their option.
    "train fedmp": (2, "did you mean `fp train --method fedmp`?"),
    "train FedMP": (2, "did you mean `fp train --method fedmp`?"),
    "train fedmp/digits": (2, "did you mean `fp train -c fedmp/digits`?"),
    "train mine.yaml": (2, "did you mean `fp train -c mine.yaml`?"),
    "train rounds=5": (2, "did you mean `fp train --set rounds=5`?"),
    "fit digits": (2, "did you mean `fp fit --data digits`?"),
    "fit lenet5": (2, "did you mean `fp fit --model lenet5`?"),
    # Numbers.
    "train --target acuracy=0.9": (2, "did you mean `accuracy`?"),
    "train --target acc=90": (2, "write `0.9` or `90%`"),
    "prune lenet5 --data mnist --ratio 50": (2, "write `0.5` or `50%`"),
    "prune lenet5 --data mnist --macs 0.5x": (2, "write `0.5` or `50%`"),
    "prune lenet5 --data mnist --ratio 0,5": (2, "write `0.5`"),
    "train --deadline 60": (2, "write `60 s` or `60 min`"),
    "train --rounds ten": (2, "must be a whole number >= 1, got ten"),
    # Keys.
    "train --set learning_rate=0.1": (2, "did you mean `local.lr`?"),
    "train --set local.batchsize=5": (2, "did you mean `local.batch_size`?"),
    "train --set n_clients=5": (2, "did you mean `task.clients`?"),
    "train --set rounds:5": (2, "write `--set rounds=5`"),
    "train --method fedprox --set method.m=0.1": (2, "`fp methods NAME` lists the options"),
    # Commands.
    "trian": (2, "did you mean `train`?"),
    "run": (2, "did you mean `train`?"),
    "benchmark": (2, "did you mean `bench`?"),
    "models": (2, "did you mean `train --help`?"),
    "version": (2, "did you mean `--version`?"),
    "data ls": (2, "did you mean `list`?"),
    "data download mnist": (2, "did you mean `fetch`?"),
    "resume": (2, "for example `fp resume runs/NAME`"),
    "resume runs/none": (6, "runs/none does not exist"),
}


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lay a file of code and a folder where the command is called."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mynets.py").write_text(NETS)
    (tmp_path / "imgs").mkdir()
    yield
    sys.modules.pop("mynets", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line_and_the_remedy(fp: Callable, words: str) -> None:
    done = fp(*words.split())
    status, remedy = MISTAKES[words]
    assert (done.status, done.out) == (status, ""), done.err
    assert remedy in done.err
    lines = [line for line in done.err.splitlines() if line]
    assert [line.partition(":")[0].partition("[")[0] for line in lines][:2] in (
        ["error"],
        ["error", "hint"],
    )
    assert not [*Path().glob("runs/*")]


@pytest.mark.parametrize(
    "words",
    [
        "train --target acc=90%",
        "train --lr 1e-3",
        "train --set task.validation_fraction=10%",
        "train --preset tiny --method prunefl",
    ],
)
def test_what_reads_like_a_mistake_and_is_none(fp: Callable, words: str) -> None:
    assert fp(*words.split(), "--dry-run").status == 0


def test_help_is_a_command_too(fp: Callable) -> None:
    assert fp("help") == fp("--help")
    assert fp("help", "train") == fp("train", "--help")
    assert fp("help", "data", "split") == fp("data", "split", "--help")
    assert "did you mean `train`?" in fp("help", "trian").err
