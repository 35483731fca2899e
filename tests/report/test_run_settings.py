from __future__ import annotations

from pathlib import Path
from typing import Any

from folders import rounds, write_fit, write_pruning, write_run

from fpcli.report.compare import compare_runs
from fpcli.report.run_settings import fill_defaults
from fpcli.report.runs import read_run


def without(path: Path, *keys: str) -> Path:
    """Take lines out of a recipe, as an earlier version would have left them out."""
    file = path / "recipe.yaml"
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.strip().partition(":")[0] not in keys]
    assert len(lines) - len(kept) == len(keys)
    file.write_text("".join(kept))
    return path


def differences(*paths: Path) -> list[dict[str, Any]]:
    return [dict(row.differs) for row in compare_runs([read_run(path) for path in paths]).rows]


def test_what_an_old_run_does_not_write_is_its_default(tmp_path: Path) -> None:
    old = without(
        write_run(tmp_path / "old", rounds(0.5)), "server_share", "withhold", "link_variation"
    )
    new = write_run(tmp_path / "new", rounds(0.5), local__lr=0.2)
    other = write_run(tmp_path / "other", rounds(0.5), task__server_share=0.5)
    assert differences(old, new) == [{"local.lr": 0.1}, {"local.lr": 0.2}]
    assert differences(new, old) == [{"local.lr": 0.2}, {"local.lr": 0.1}]
    assert differences(old, other) == [{"task.server_share": 0.0}, {"task.server_share": 0.5}]


def test_old_and_new_seeds_share_a_row(tmp_path: Path) -> None:
    old = without(write_run(tmp_path / "a-s0", rounds(0.5)), "server_samples")
    new = write_run(tmp_path / "a-s1", rounds(0.7), seed=1)
    (row,) = compare_runs([read_run(old), read_run(new)]).rows
    assert row.seeds == (0, 1)


def test_options_of_the_method_have_defaults_too(tmp_path: Path) -> None:
    old = without(write_run(tmp_path / "old", rounds(0.5), method__name="fedmp"), "ratio_max")
    new = write_run(tmp_path / "new", rounds(0.5), method__name="fedmp", local__lr=0.2)
    assert differences(old, new) == [{"local.lr": 0.1}, {"local.lr": 0.2}]


def test_runs_of_different_commands_share_the_task(tmp_path: Path) -> None:
    """No key of a section that one of them lacks is listed, whichever is the reference."""
    federated = write_run(tmp_path / "fed", rounds(0.5), method__name="fedmp", server__lr=0.5)
    fit = write_fit(tmp_path / "fit", 0.9, fit__lr=0.7)
    assert differences(federated, fit) == [{"command": "train"}, {"command": "fit"}]
    assert differences(fit, federated) == [{"command": "fit"}, {"command": "train"}]
    other = write_fit(tmp_path / "other", 0.9, task__validation_fraction=0.2)
    assert differences(federated, other) == [
        {"command": "train", "task.validation_fraction": 0.1},
        {"command": "fit", "task.validation_fraction": 0.2},
    ]


def test_rows_of_another_command_are_set_against_each_other(tmp_path: Path) -> None:
    fit = write_fit(tmp_path / "fit", 0.9)
    prunings = [
        write_pruning(tmp_path / f"p{ratio}", ratio, 0.8, method__score=score)
        for ratio, score in ((0.3, "l1"), (0.5, "l1"), (0.7, "random"))
    ]
    base, *others = differences(fit, *prunings)
    assert base == {"command": "fit"}
    assert [one["prune.ratio"] for one in others] == [0.3, 0.5, 0.7]
    assert [one["method.score"] for one in others] == ["l1", "l1", "random"]
    assert {*others[0]} == {"command", "prune.ratio", "method.score"}


def test_the_usual_augmentation_is_none_for_digits() -> None:
    """`auto`, as prunings have it, and what `fp fit` wrote for it are the same."""
    settings = {"prune.ratio": 0.5, "task.data": "digits", "task.augment": "auto"}
    assert fill_defaults(settings)["task.augment"] == "none"
    settings["task.data"] = "cifar10"
    assert fill_defaults(settings)["task.augment"] == "crop-flip"


def test_prunings_of_models_of_several_seeds_share_a_row(tmp_path: Path) -> None:
    paths = [
        write_pruning(tmp_path / f"s{seed}", 0.5, 0.8 + seed / 100, source=f"fit-s{seed}",
                      source_seed=seed)
        for seed in (0, 1, 2)
    ]  # fmt: skip
    (row,) = compare_runs([read_run(path) for path in paths]).rows
    assert row.seeds == (0, 1, 2)
    other = write_pruning(tmp_path / "other", 0.5, 0.8, source="long-s4", source_seed=4)
    assert differences(*paths, other) == [{"source": "fit"}, {"source": "long"}]
