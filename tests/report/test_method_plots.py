from __future__ import annotations

from pathlib import Path

import pytest
from histories import event, names, texts

from fpcli.report.plots import draw_run


def history(rounds: int = 4) -> list[dict]:
    return [event(number, (None, None, None)) for number in range(1, rounds + 1)]


def test_densities_of_layers(tmp_path: Path) -> None:
    events = history()
    for one in events:
        one["notes"] = {"density": {"conv1": 1 / one["round"], "fc": 0.5}}
        one["params"] = 1000 // one["round"]
    paths = draw_run(events, tmp_path)
    assert names(paths)[2:] == ["density.png", "density.svg"]
    for word in ("conv1", "fc", "parameters (first round = 1)"):
        assert word in texts(tmp_path / "density.svg")


def test_sparsity_in_the_place_of_densities(tmp_path: Path) -> None:
    events = history()
    for one in events:
        sparsity = 1 - 1 / one["round"]
        one["notes"] = {"target_sparsity": sparsity, "sparsity": sparsity, "density": {"fc": 0.5}}
    paths = draw_run(events, tmp_path)
    assert names(paths)[2:] == ["sparsity.png", "sparsity.svg"]
    text = texts(tmp_path / "sparsity.svg")
    for word in ("fc", "target", "all, 0.75 at last"):
        assert word in text
    assert "kept a weight" not in text
    for one in events[1:]:
        one["notes"]["votes"] = [0.5, 0.25, 0.25]
    draw_run(events, tmp_path)
    text = texts(tmp_path / "sparsity.svg")
    assert "share of the round's clients that kept a weight" in text


@pytest.mark.parametrize("remembers", [True, False])
def test_what_rounding_takes(remembers: bool, tmp_path: Path) -> None:
    """Only where something is rounded; clients are drawn where they remember."""
    events = history()
    for one in events:
        one["notes"] = {"rounding": 0.02 / one["round"]}
        for client in one["clients"] if remembers else ():
            client["notes"]["residual"] = 0.25
    assert names(draw_run(events, tmp_path))[2:] == ["rounding.png", "rounding.svg"]
    text = texts(tmp_path / "rounding.svg")
    assert "model sent, 0.005 at last" in text
    assert ("clients' memory, 0.25 at last" in text) == remembers
    for one in events:
        one["notes"]["rounding"] = 0.0
    assert len(draw_run(events, tmp_path)) == 2


def test_coverage_where_clients_hold_less_than_the_model(tmp_path: Path) -> None:
    events = history()
    events[1]["clients"][0] |= {"pruning_error": 0.1, "params": 400}
    events[1]["coverage"] = 2
    draw_run(events, tmp_path)
    assert "holders of the least covered parameter" in texts(tmp_path / "coverage.svg")


@pytest.mark.parametrize("deadline", [{}, {"level_deadline_s": 2.0}])
def test_levels_of_clients(deadline: dict[str, float], tmp_path: Path) -> None:
    """A level that appears late; the deadline is drawn where rounds note one."""
    events = history()
    for one in events:
        for place, client in enumerate(one["clients"]):
            client["notes"]["level"] = 1 if one["round"] < 3 else 1 + place % 2
            client |= {"compute_s": 1.0 + place, "down_s": 0.5, "up_s": 0.5}
        one["notes"] = deadline
    draw_run(events, tmp_path)
    text = texts(tmp_path / "levels.svg")
    for word in ("clients at each level", "level 1", "level 2", "simulated seconds"):
        assert word in text
    assert "level 3" not in text
    assert ("deadline" in text) == bool(deadline)


@pytest.mark.parametrize("clients", [3, 200])
def test_accuracies_of_clients_and_overlap(tmp_path: Path, clients: int) -> None:
    events = history()
    for one in events:
        values = {str(number): 0.5 + number / 1000 for number in range(clients)}
        one["personal"] = {"accuracy": values}
        one["notes"] = {"overlap": 0.9}
    draw_run(events, tmp_path)
    text = texts(tmp_path / "clients.svg")
    assert f"{0.5 + (clients - 1) / 2000:.2%} mean accuracy of the clients" in text
    assert "overlap of the clients" in text
    assert "after round 4" in text
    assert "local" not in text
    assert "in common" not in text


def test_local_accuracies_and_overlaps_by_labels(tmp_path: Path) -> None:
    """Only some rounds have pairs of clients with a label in common."""
    events = history()
    for one in events:
        one["personal"] = {
            "accuracy": {"0": 0.5, "3": 0.7}, "local_accuracy": {"0": 0.8, "3": 1.0},
        }  # fmt: skip
        one["notes"] = {"overlap": 0.8, "overlap_other_labels": 0.7}
    events[1]["notes"]["overlap_shared_labels"] = 0.9
    draw_run(events, tmp_path)
    text = texts(tmp_path / "clients.svg")
    assert "60.00% mean accuracy of the clients, 90.00% local (other logits 0)" in text
    for label in ("all pairs", "a label in common", "no label in common"):
        assert label in text


def test_errors_of_clients_start_with_the_lowest(tmp_path: Path) -> None:
    events = history()
    for one in events:
        one["validation"] = one["test"] = {"mae": 44.0, "r2": 0.5, "loss": 1.0}
        one["personal"] = {"mae": {"0": 50.0, "3": 40.0, "7": None}}
    events[-1]["personal"]["mae"].pop("7")
    draw_run(events, tmp_path)
    text = texts(tmp_path / "clients.svg")
    assert "45.0000 mean MAE of the clients" in text
    assert "MAE on own samples" in text and "%" not in text
    assert "3 0 client, best first" in " ".join(text.split())


def test_accuracy_on_withheld_classes(tmp_path: Path) -> None:
    events = history()
    for one in events:
        one["withheld"] = {"accuracy": 0.5 / one["round"], "loss": 1.0}
    paths = draw_run(events, tmp_path)
    assert names(paths)[2:] == ["forgetting.png", "forgetting.svg"]
    for text in ("withheld classes", "other classes"):
        assert text in texts(tmp_path / "forgetting.svg")


def test_filters_before_and_after(tmp_path: Path) -> None:
    events = history()
    for one in events:
        one["notes"] = {"spectra": {"blocks.0.filter.weight": [0.5 / one["round"], 0.1, 0.0]}}
    events[0]["notes"]["spectra_before"] = {"blocks.0.filter.weight": [0.2, 0.2, 0.2]}
    assert "filters.png" in names(draw_run(events, tmp_path))
    for word in ("blocks.0.filter.weight", "before round 1", "after round 4", "mean |W|"):
        assert word in texts(tmp_path / "filters.svg")


def test_importance_of_the_last_mask_with_a_line_for_the_first(tmp_path: Path) -> None:
    events = history()
    for one, kept in zip(events[1:3], (0.75, 0.625), strict=True):
        one["notes"] = {"importance": {"fc1": {"kept": [kept], "removed": [1 - kept, 0.0]}}}
    assert "importance.png" in names(draw_run(events, tmp_path))
    for word in ("fc1 (1 of 3 kept)", "kept", "removed", "first mask, round 2", "after round 3"):
        assert word in texts(tmp_path / "importance.svg")


def test_masks_of_the_last_ranking(tmp_path: Path) -> None:
    """Of the 6 half-columns of a two are left, and all 4 of b."""
    events = history()
    for number, bits in ((0, "fc"), (2, "90")):
        layers = {"a": {"shape": [4, 3], "kept": bits}, "b": {"shape": [2, 2], "kept": "f0"}}
        events[number]["notes"] = {"kept_units": {"pattern": "half-column", "layers": layers}}
    assert "masks.png" in names(draw_run(events, tmp_path))
    words = texts(tmp_path / "masks.svg")
    for word in ("a: 33% kept (dark)", "b: 100% kept (dark)", "output", "input (of 3)"):
        assert word in words
    assert "half-column units after round 3" in words
