"""Code of the user's own that fails: the error shows its line and none of ours."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fpcli.cli.app import main

CODE = """
import numpy as np
import torch
from torch import nn

from fpcli.engine.method import Method, Traits


def two_arguments_less(): return 1
def no_module(shape, classes): return 5
def bug_of_factory(shape, classes): return nn.Linear(shape[5], classes)
def too_few_outputs(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.fc = nn.Linear(64, classes)


class BugOfForward(Net):
    def forward(self, x):
        return self.helper(x)

    def helper(self, x):
        return self.fd(x.flatten(1))


class BadShape(Net):
    def forward(self, x): return self.fc(x)


class MissingName(Net):
    def forward(self, x): return functional.relu(self.fc(x.flatten(1)))


class BugInTraining(Net):
    def forward(self, x):
        if self.training and len(x) > 3:
            raise KeyError("oops")
        return self.fc(x.flatten(1))


def data_with_arguments(place): return {}
def bug_of_data(): return {"train_images": np.zeros(3)[7]}
def list_of_data(): return [1]


def score_of_one(layout): return {}
def bug_of_score(layout, values): return values["none"]
def number_of_score(layout, values): return 5
def empty_score(layout, values): return {}


class Own(Method):
    source = "none"
    traits = Traits()


class BugOfPlan(Own):
    def plan(self, ctx, state): return [ctx.nothing for client in ctx.cohort]


class PlanOfOne(Own):
    def plan(self, ctx): return []


class NoPlan(Own):
    def plan(self, ctx, state): pass


class BugOfBegin(Own):
    def begin(self, ctx, state): return state.nothing


class BugOfAggregate(Own):
    def aggregate(self, ctx, state, answers): return {}["q"]


class NoAggregate(Own):
    def aggregate(self, ctx, state, answers): pass


class BugOfLoss(Own):
    def loss(self, *arguments): return torch.nothing(1)


class TrainOfOne(Own):
    def train(self, cx): pass


class NoTrain(Own):
    def train(self, cx, model): return 3


class WrongOurs(Own):
    def aggregate(self, ctx, state, answers): return state.support.gather()
"""
MODELS = {
    "two_arguments_less": (3, "is a function of other arguments: TypeError: ", "def two_arg"),
    "bug_of_factory": (3, "IndexError: tuple index out of range", "return nn.Linear(shape[5]"),
    "no_module": (3, "it is a int, not a torch.nn.Module", ""),
    "too_few_outputs": (3, "returns [1, 3] for one sample, wanted [1, 10]", ""),
    "BugOfForward": (3, "fails on 1x8x8 images and 10 classes: Attribute", "return self.fd("),
    "BadShape": (3, "mat1 and mat2 shapes cannot be multiplied", "return self.fc(x)"),
    "MissingName": (3, "NameError: name 'functional' is not defined", "functional.relu"),
    "nothing": (2, "module `owncode` has no `nothing`", ""),
}
DATA = {
    "data_with_arguments": (3, "takes arguments: TypeError: ", "def data_with_arguments(place)"),
    "bug_of_data": (3, "failed: IndexError: index 7 is out of bounds", "np.zeros(3)[7]"),
    "list_of_data": (3, "returned list", ""),
}
SCORES = {
    "score_of_one": (3, "does not take what it is called with: TypeError", "def score_of_one(lay"),
    "bug_of_score": (3, "your code failed: KeyError: 'none'", 'return values["none"]'),
    "number_of_score": (3, "score `owncode:number_of_score` returned int", ""),
    "empty_score": (3, "returned none, or another number of values, for `", ""),
}
METHODS = {
    "BugOfBegin": (3, "has no attribute 'nothing'", "return state.nothing"),
    "BugOfPlan": (3, "has no attribute 'nothing'", "return [ctx.nothing"),
    "PlanOfOne": (3, "does not take what it is called with: TypeError", "def plan(self, ctx):"),
    "NoPlan": (3, "`plan` of the method returned NoneType, wanted list", ""),
    "BugOfAggregate": (3, "your code failed: KeyError: 'q'", 'return {}["q"]'),
    "NoAggregate": (3, "`aggregate` of the method returned NoneType, wanted ServerState", ""),
    "BugOfLoss": (4, "client 1: failed: AttributeError: ", "return torch.nothing(1)"),
    "TrainOfOne": (4, "client 1: failed: TypeError: ", "def train(self, cx):"),
    "NoTrain": (4, "`train` of the method returned int, wanted Work", ""),
    "WrongOurs": (3, "your code failed: TypeError: ", "return state.support.gather()"),
}
QUICK = ("--rounds", "1", "--clients", "2", "--round-retries", "0", "--executor", "inline")


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lay the code where the command is called, and forget it afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "owncode.py").write_text(CODE)
    yield
    sys.modules.pop("owncode", None)
    importlib.invalidate_caches()


def check(done: tuple[int, str, str], status: int, problem: str, source: str) -> None:
    """Check that the error is one line, and shows a line of the user's where there is one."""
    assert (done[0], done[1]) == (status, ""), done[2]
    assert "Traceback" not in done[2] and "internal error" not in done[2]
    error = next(line for line in done[2].splitlines() if line.startswith("error["))
    assert problem in error
    lines = [number for number, line in enumerate(CODE.split("\n"), 1) if source and source in line]
    assert (f", in owncode.py:{lines[0]}: `" in error) if source else ("owncode.py:" not in error)
    assert source in error


@pytest.mark.parametrize("name", MODELS)
def test_models(fp: Callable, name: str) -> None:
    check(fp("train", "--model", f"owncode:{name}", "--dry-run"), *MODELS[name])


@pytest.mark.parametrize("name", DATA)
def test_data(fp: Callable, name: str) -> None:
    words = ("--data", f"owncode:{name}", "--model", "lenet5", "--dry-run")
    check(fp("train", *words), *DATA[name])


@pytest.mark.parametrize("name", SCORES)
def test_scores(fp: Callable, name: str) -> None:
    words = ("digits-cnn", "--data", "digits", "--ratio", "0.5", "--dry-run")
    check(fp("prune", *words, "--score", f"owncode:{name}"), *SCORES[name])


@pytest.mark.parametrize("name", METHODS)
def test_methods(fp: Callable, name: str) -> None:
    check(fp("train", "--method", f"owncode:{name}", *QUICK), *METHODS[name])


def test_a_bug_that_only_training_shows(fp: Callable) -> None:
    expected = ("KeyError: 'oops'", 'raise KeyError("oops")')
    words = ("--model", "owncode:BugInTraining")
    check(fp("train", *words, *QUICK), 4, *expected)
    check(fp("fit", *words, "--epochs", "1"), 3, *expected)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("x = 1\ny = (\n", "SyntaxError: '(' was never closed", "broken.py:2: `y = (`"),
        ("\nx = nothing\n", "NameError: name 'nothing' is", "broken.py:2: `x = nothing`"),
        ("import nowhere\n", "No module named 'nowhere'", "broken.py:1: `import nowhere`"),
    ],
)
def test_a_file_that_cannot_be_imported(
    fp: Callable, tmp_path: Path, text: str, problem: str, line: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    done = fp("train", "--model", "broken:net", "--dry-run")
    assert (done.status, done.out) == (2, "")
    assert problem in done.err and line in done.err and "Traceback" not in done.err


def test_workers_show_the_line_too(fp: Callable) -> None:
    words = ("train", "--method", "owncode:BugOfLoss", *QUICK[:-1], "pool", "--workers", "2")
    check(fp(*words), *METHODS["BugOfLoss"])


def test_debug_shows_it_all(
    fp: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = fp("train", "--method", "owncode:BugOfPlan", *QUICK, "--debug")
    assert "Traceback" in done.err and "in plan_round" in done.err
    # Clients, in whatever process, learn it from the environment, which the console script sets.
    monkeypatch.setenv("FP_DEBUG", "")
    words = ["train", "--method", "owncode:BugOfLoss", *QUICK, "--debug"]
    monkeypatch.setattr(sys, "argv", ["fp", *words])
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        signal.signal(signal.SIGTERM, terminate)
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (4, "")
    assert "Traceback" in err and "in perform" in err and "return torch.nothing(1)" in err
    monkeypatch.setenv("FP_DEBUG", "")
    assert "in perform" not in fp(*words[:-1]).err
