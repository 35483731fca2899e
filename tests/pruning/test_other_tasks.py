"""Models that predict numbers or rank items are pruned, swept and reported as classifiers are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prunings import context
from tasked import learned
from torch import nn

from fpcli import plugins
from fpcli.cli.prune_result import hint_at_collapse
from fpcli.cli.sensitivity_result import sweep_text
from fpcli.engine.evaluate import evaluate
from fpcli.pruning import sweep
from fpcli.pruning.prune import prune_in_steps
from fpcli.pruning.pruner import PruneTarget
from fpcli.pruning.sensitivity import read_rates, result
from fpcli.pruning.settle import settle_masks
from fpcli.pruning.sweep import BASELINE, SweepConfig, choose_images, judge_cuts, list_cuts
from fpcli.report.prune_plots import draw_pruning
from fpcli.report.sensitivity_plots import draw_sensitivity
from fpcli.settings.metrics import find_metric
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.tasks.regress import Regress

METRICS = {"regress": "mae", "rank": "ndcg@10"}


@pytest.mark.parametrize("kind", METRICS)
def test_what_is_pruned_is_judged_by_its_own_metrics(kind: str, tmp_path: Path) -> None:
    trained, dataset = learned(kind)
    history: list[dict] = []
    px = context(dataset, epochs=1, log=lambda **event: history.append(event))
    pruned = prune_in_steps(
        plugins.lookup("pruners", "filters")(), px, trained, PruneTarget("ratio", 0.3)
    )
    whole = evaluate(trained.module(), dataset.test, dataset)
    assert pruned.before.test == whole
    assert pruned.after.cost.params < pruned.before.cost.params
    assert pruned.difference <= 1e-5
    assert (history[0]["metric"], history[0]["test"]) == (METRICS[kind], whole.to_event())
    pictures = draw_pruning(pruned.widths, history, tmp_path)
    assert f"{METRICS[kind]}.png" in {path.name for path in pictures}


@pytest.mark.parametrize("kind", METRICS)
def test_a_sweep_finds_the_metric_of_the_whole_data_whatever_its_parts(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained, dataset = learned(kind)
    config = SweepConfig(("taylor", "random"), (0.0, 0.25, 0.5), is_test=True)
    monkeypatch.setattr(sweep, "_RECORDED_BYTES", 1)
    monkeypatch.setattr(sweep, "BATCH_SIZE", 16)
    cuts = list_cuts(trained, dataset, config)
    tallies = dict(judge_cuts(trained, dataset, config, cuts, {}))
    name = METRICS[kind]
    whole = evaluate(trained.module(), choose_images(dataset, config), dataset)
    assert tallies[BASELINE].seen == whole.num_examples
    assert tallies[BASELINE].metric == pytest.approx(whole.metrics[name], rel=1e-5)
    assert tallies[BASELINE].loss == pytest.approx(whole.loss, rel=1e-5)
    cut = min(cuts, key=lambda cut: len(cut.keep))
    small = trained.cut(sweep.Support({cut.group: cut.keep})).module()
    judged = evaluate(small, choose_images(dataset, config), dataset)
    assert tallies[cut.key].metric == pytest.approx(judged.metrics[name], rel=1e-4)

    found = json.loads(json.dumps(result(trained, config, tallies, max_drop=50, seconds=1.0)))
    assert (found["metric"], found[f"baseline_{name}"]) == (name, tallies[BASELINE].metric)
    text = sweep_text(found, tmp_path / "sens.json", [])
    assert "largest ratio with a loss of at most 50%" in " ".join(text.split())
    assert f"{name} {whole.metrics[name]:.4f} on {whole.num_examples} samples" in text
    (tmp_path / "sens.json").write_text(json.dumps(found), "utf-8")
    rates = read_rates(tmp_path / "sens.json", 50, trained.layout)
    assert rates == {group["name"]: group["max_ratio"] for group in found["groups"]}
    names = {path.name for path in draw_sensitivity(found, tmp_path / "sens")}
    assert {"sens-norms.png", f"sens-{name}.png"} <= names


def test_a_smaller_error_is_the_better_one(tmp_path: Path) -> None:
    trained, _ = learned("regress")
    groups = [
        {"name": name, "initial_width": group.width, "mae": [40.0, 41.9, 42.1]}
        for name, group in trained.layout.prunable.items()
    ]
    content = {"format": 1, "kind": "sensitivity", "metric": "mae", "baseline_mae": 40.0}
    path = tmp_path / "sens.json"
    path.write_text(json.dumps(content | {"ratios": [0.1, 0.5, 0.9], "groups": groups}), "utf-8")
    assert set(read_rates(path, 5.0, trained.layout).values()) == {0.5}
    assert set(read_rates(path, 0.0, trained.layout).values()) == {0.1}


def test_only_a_metric_that_broke_down_is_spoken_of() -> None:
    report = {"metric": "mae", "before": {"mae": 40.0}, "after": {"mae": 43.9}}
    assert hint_at_collapse(report, "run", is_trained=False) == ""
    hint = hint_at_collapse(report | {"after": {"mae": 44.1}}, "run", is_trained=False)
    assert hint.startswith("mae went from 40.0000 to 44.1000, and nothing was retrained")
    better = report | {"after": {"mae": 4.0}}
    assert hint_at_collapse(better, "run", is_trained=False) == ""


def test_masks_settle_once_the_loss_falls_where_there_are_no_classes() -> None:
    """One weight, y = 2x: with a rate of 0 nothing is learned, and every weight stays."""
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    batch, task = (x, 2 * x[:, 0]), Regress()
    masks = {}
    for lr in (0.0, 0.05):
        model = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(0.1)
        masks[lr], trained = settle_masks(
            model,
            [batch],
            task.loss,
            lr=lr,
            task=task,
            layout=Layout({"weight": TensorSpec((1, 2), True, 1.0)}, {}),
            passes=3,
            interval=1,
            weight_s={"weight": 1.0},
            constant_s=1.0,
            share=0.5,
        )
        assert len(trained) == 3
    assert masks[0.0]["weight"].tolist() == [[True, True]]
    assert masks[0.05]["weight"].tolist() == [[True, False]]


def test_limits_of_metrics() -> None:
    assert find_metric("r2").find_limit(-0.5, 10) == pytest.approx(-0.55)
    assert find_metric("hr@10").find_limit(0.5, 10) == pytest.approx(0.4)
    assert find_metric("mae").format_change(0.0, 2.0) == "+2.0000"


def test_retrained_cuts_are_judged_too() -> None:
    trained, dataset = learned("rank")
    small = replace(dataset, train=dataset.train.take(torch.arange(32)))
    retraining = context(small, epochs=1).retraining
    config = SweepConfig(("l1",), (0.5,), retraining=retraining)
    cuts = list_cuts(trained, small, config)
    runs = [dict(judge_cuts(trained, small, config, cuts, {})) for _ in range(2)]
    assert runs[0] == runs[1]
    found = result(trained, config, runs[0], max_drop=1, seconds=1.0)
    assert len(found["groups"][0]["retrained_ndcg@10"]) == 1
