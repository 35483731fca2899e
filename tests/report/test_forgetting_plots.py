from __future__ import annotations

from pathlib import Path

import pytest
import torch
from histories import event, names, texts

from fpcli.errors import NeedError
from fpcli.methods.unlearn import Scored
from fpcli.report import forgetting_plots
from fpcli.report.forgetting_plots import draw_forgetting


def scored(
    widths: dict[str, int], pruned: dict[str, list[int]], classes: int, target: int
) -> Scored:
    generator = torch.Generator().manual_seed(0)
    activations = {x: torch.rand(classes, n, generator=generator) for x, n in widths.items()}
    return Scored(
        target,
        activations,
        {layer: a[target] / a.sum(0) for layer, a in activations.items()},
        {layer: torch.tensor(pruned.get(layer, []), dtype=torch.int64) for layer in widths},
    )


def history(rounds: int = 2) -> list[dict]:
    return [
        event(number, (None,)) | {"withheld": {"accuracy": 0.5 / number, "loss": 1.0}}
        for number in range(1, rounds + 1)
    ]


def drawn(folder: Path, *classes: Scored, num_classes: int = 3) -> list[Path]:
    return draw_forgetting(
        classes,
        {"fine-tuned": history(), "retrained": history(4)},
        folder,
        starts={"fine-tuned": (0.4, 0.6)},
        class_names=[f"kind {number}" for number in range(num_classes)],
    )


def test_every_class_has_its_map_and_all_share_the_curves(tmp_path: Path) -> None:
    widths = {"conv1": 6, "conv2": 10}
    one, other = (scored(widths, {"conv1": [2]}, 3, target) for target in (0, 2))
    paths = drawn(tmp_path, one, other)
    assert names(paths) == [
        f"{stem}.{kind}"
        for stem in ("channels-0", "channels-2", "forgetting")
        for kind in ("png", "svg")
    ]
    shown = texts(tmp_path / "channels-2.svg")
    for text in (
        "class kind 2: 1 of 16 channels pruned",
        "conv1: 1 of 6 pruned",
        "conv2: 0 of 10",
        "kind 1",
    ):
        assert text in shown
    for text in ("withheld classes", "other classes", "fine-tuned", "retrained"):
        assert text in texts(tmp_path / "forgetting.svg")
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in drawn(tmp_path, other)] == before[2:]


@pytest.mark.parametrize(("ratio", "count"), [(0.3, 2), (None, 2), (0.3, 1)])
def test_the_shares_that_were_tried(tmp_path: Path, ratio: float | None, count: int) -> None:
    stages = {"original": 0.9, "pruned": 0.5, "finetuned": 0.7}
    trials = [
        {"ratio": share, "forget_accuracy": stages, "retain_accuracy": stages}
        for share in (0.3, 0.15)[:count]
    ]
    search = {"ratio": ratio, "max_ratio": 0.5, "trials": trials}
    paths = draw_forgetting(
        (), {"tuned": history()}, tmp_path, starts={}, class_names=["a"], search=search
    )
    assert ("search.svg" in names(paths)) == (count == 2)
    if count == 2:
        shown = texts(tmp_path / "search.svg")
        for text in ("forgotten class, before", "other classes, fine-tuned"):
            assert text in shown
        assert ("smallest that forgets" in shown) == (ratio is not None)


def test_of_many_channels_those_that_went_are_shown_whatever_they_score(tmp_path: Path) -> None:
    one = scored({"conv1": 300}, {}, 3, 0)
    lowest = one.scores["conv1"].argsort()[:45].sort().values
    one = Scored(0, one.activations, one.scores, {"conv1": lowest})
    drawn(tmp_path, one)
    assert "conv1: 45 of 300 pruned, 40 shown" in texts(tmp_path / "channels-0.svg")
    orange = (tmp_path / "channels-0.svg").read_text("utf-8").count("fill: #e69f00")
    assert orange == 40 + 1  # and the bar of the layer


def test_many_classes_and_layers_are_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_plots, "_MOST_LAYERS", 3)
    widths = {f"conv{number}": 4 for number in range(5)}
    drawn(tmp_path, scored(widths, {"conv4": [0, 1], "conv0": [3]}, 100, 33), num_classes=100)
    shown = texts(tmp_path / "channels-33.svg")
    for text in (
        "kind 33",
        "others, median",
        "the 3 layers that lost most",
        "conv0: 1 of 4",
        "conv4: 2 of 4",
    ):
        assert text in shown
    assert "kind 34" not in shown
    assert "conv1: 0 of 4" in shown
    assert "conv2: 0 of 4" not in shown


def test_silent_channels_are_drawn_without_a_warning(tmp_path: Path) -> None:
    silent = {"conv1": torch.zeros(3, 4)}
    drawn(tmp_path, Scored(0, silent, {"conv1": torch.zeros(4)}, {"conv1": torch.tensor([0])}))
    assert "class kind 0: 1 of 4 channels pruned" in texts(tmp_path / "channels-0.svg")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        drawn(tmp_path / "none", scored({"conv1": 4}, {"conv1": [0]}, 3, 0))
