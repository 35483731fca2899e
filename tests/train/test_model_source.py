from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prunings import named as named_net

from fpcli.engine.trained import DataKey
from fpcli.errors import DataError, UsageError
from fpcli.settings.recipes import PruneRecipe
from fpcli.settings.tasks import FitTask
from fpcli.store.model_folder import build_untrained
from fpcli.tasks.classify import Classify
from fpcli.tasks.rank import Rank
from fpcli.tasks.regress import Regress
from fpcli.train.model_source import build_named, find_folder, load_data_of, read_training_rate


def test_the_training_rate_is_read_from_what_lies_beside_the_model(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert read_training_rate(None) == read_training_rate(tmp_path) == 0.1
    for text, rate in (
        ("fit: {lr: 0.3}", 0.3),
        ("local: {lr: 0.02}", 0.02),
        ("retrain: {lr: 0.004}", 0.04),  # an earlier result: a tenth of what came before it
        ("local: {lr: often}", 0.1),
        ("rounds: 3", 0.1),
    ):
        recipe.write_text(text)
        assert read_training_rate(tmp_path) == pytest.approx(rate)


def test_a_word_is_a_folder_a_run_or_a_model(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine" / "final").mkdir(parents=True)
    runs = tmp_path / "runs"
    assert find_folder(str(tmp_path), runs) == tmp_path
    assert find_folder("mine", runs) == runs / "mine"
    for model in ("lenet5", "vgg16-gn@0.5", "torchvision:resnet18", "mine.nets:small"):
        assert find_folder(model, runs) is None
    with pytest.raises(UsageError, match="neither a folder nor a model") as caught:
        find_folder("minn", runs)
    assert "`mine`" in caught.value.hint
    (tmp_path / "net.pt2").write_bytes(b"")
    with pytest.raises(UsageError, match=r"net\.pt2` is a file, not a folder") as caught:
        find_folder(str(tmp_path / "net.pt2"), runs)
    assert "(.safetensors, .pt2, .onnx) are for `fp bench`" in caught.value.hint


def test_code_for_data_runs_only_if_it_is_named() -> None:
    net = named_net("digits-cnn", (1, 8, 8))
    with pytest.raises(UsageError, match="code of yours"):
        load_data_of(replace(net, data=DataKey("os:getcwd", 0.1, 0)), None, None)
    net = replace(net, data=None)
    with pytest.raises(UsageError, match="does not say what data it is for"):
        load_data_of(net, None, None)
    assert load_data_of(net, "digits", None).name == "digits"


def test_only_a_plan_does_without_data() -> None:
    recipe = PruneRecipe(task=FitTask(data="mnist", model="lenet5"), seed=3)
    net, dataset = build_named(recipe, None, is_planned=True)
    assert (net.input_shape, net.task, dataset) == ((1, 28, 28), Classify(10), None)
    assert net.data is not None and net.data.seed == 3
    with pytest.raises(DataError, match="needs a folder"):
        build_named(recipe, None)
    with pytest.raises(DataError, match="nowhere"):
        build_named(PruneRecipe(task=FitTask("npz:nowhere.npz", "lenet5")), None, is_planned=True)


def test_a_model_is_judged_as_it_was_trained() -> None:
    """In the units of its own targets, and among as many sampled items."""
    numbers = Regress(mean=100.0, std=5.0, loss_name="l1")
    net = build_untrained("mlp-reg", (10,), numbers, data=DataKey("diabetes", 0.1, 0))
    assert load_data_of(net, None, None).task == numbers
    items = Rank(100, num_sampled=7)
    net = build_untrained("fmlp@0.125", (50,), items, data=DataKey("markov", 0.1, 0))
    dataset = load_data_of(net, None, None)
    assert dataset.task == items
    assert dataset.validation.negatives is not None
    assert dataset.validation.negatives.shape == (300, 7)
