from __future__ import annotations

from pathlib import Path

import pytest
from folders import ranking, regression, rounds, write_run

from fpcli.errors import UsageError
from fpcli.report.compare import compare_runs, list_shown
from fpcli.report.measures import Budget
from fpcli.report.runs import Run, read_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two seeds of fedavg and of fedmp, and one run with another learning rate."""
    found = [
        write_run(tmp_path / f"fedavg-s{seed}", rounds(0.5, 0.9 - seed / 10), seed=seed)
        for seed in (0, 1)
    ]
    found += [
        write_run(tmp_path / f"fedmp-s{seed}", rounds(0.4, 0.6, 0.7), method__name="fedmp",
                  seed=seed, executor__workers=seed, method__ratio_max=0.5)
        for seed in (0, 1)
    ]  # fmt: skip
    found.append(write_run(tmp_path / "slow", rounds(0.2, 0.3), local__lr=0.01))
    return [read_run(path) for path in found]


def test_rows_are_runs_that_differ_in_their_seed(runs: list[Run]) -> None:
    found = compare_runs(runs)
    assert [row.label for row in found.rows] == ["fedavg", "fedmp", "slow"]
    assert [row.seeds for row in found.rows] == [(0, 1), (0, 1), (0,)]
    assert found.rows[0].values["accuracy"].mean == pytest.approx(0.85)
    assert found.reference == "fedavg"
    assert "rows have different seeds (0, 1 in 2; 0 in 1)" in found.warnings


def test_only_differences_are_listed(runs: list[Run]) -> None:
    """Of another method's options those that are no default, nothing about workers or names."""
    base, fedmp, slow = compare_runs(runs).rows
    assert base.differs == {"method.name": "fedavg", "rounds": 2, "local.lr": 0.1}
    assert fedmp.differs == {"method.name": "fedmp", "method.ratio_max": 0.5, "rounds": 3}
    assert slow.differs == {"local.lr": 0.01}


def test_settings_with_keys_that_are_numbers_and_words(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = write_run(tmp_path / name, rounds(0.5), seed=int(name == "b"))
        text = (path / "recipe.yaml").read_text()
        (path / "recipe.yaml").write_text(
            text.replace("devices: []", "devices: [{1: x, share: 2}]")
        )
    (row,) = compare_runs([read_run(tmp_path / name) for name in ("a", "b")]).rows
    assert row.seeds == (0, 1)


def test_options_of_one_method_are_compared_with_each_other(tmp_path: Path) -> None:
    for name, ratio in (("a", 0.5), ("b", 0.7)):
        write_run(tmp_path / name, rounds(0.5), method__name="uniform", method__ratio=ratio)
    first, second = compare_runs([read_run(tmp_path / "a"), read_run(tmp_path / "b")]).rows
    assert (first.differs, second.differs) == ({"method.ratio": 0.5}, {"method.ratio": 0.7})


def test_a_repeated_seed_opens_another_row(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / folder / f"x-s{seed}", rounds(0.5), seed=seed)
        for folder in ("old", "new") for seed in (0, 1)
    ]  # fmt: skip
    found = compare_runs([read_run(path) for path in paths])
    assert [row.label for row in found.rows] == ["old/x", "new/x"]
    assert [row.seeds for row in found.rows] == [(0, 1), (0, 1)]


def test_labels_are_never_the_same(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f / "in" / "x", rounds(0.5)) for f in ("old", "new")]
    for seed, name in enumerate(("p", "q")):
        paths.append(write_run(tmp_path / name, rounds(0.5), seed=seed, rounds=9))
    labels = [row.label for row in compare_runs([read_run(path) for path in paths]).rows]
    assert labels == ["in/x#1", "in/x#2", "p and 1 more"]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("accuracy", ["fedavg", "fedmp", "slow"]),
        ("rounds", ["fedavg", "slow", "fedmp"]),
        ("bytes", ["fedavg", "slow", "fedmp"]),
    ],
)
def test_sorting(runs: list[Run], by: str, order: list[str]) -> None:
    found = compare_runs(runs, by=by)
    assert [row.label for row in found.rows] == order
    assert found.reference == "fedavg"


def test_with_a_target_its_price_sorts_and_the_unreached_come_last(runs: list[Run]) -> None:
    found = compare_runs(runs, by="rounds", target={"accuracy": 0.6})
    assert [row.label for row in found.rows] == ["fedavg", "fedmp", "slow"]
    assert found.rows[-1].values["target_rounds"] == (None, None, 0)
    partly = compare_runs(runs, target={"accuracy": 0.85}).rows[0].values["target_rounds"]
    assert partly == (None, None, 1)  # one of two seeds: no mean of the lucky one


def test_the_lowest_error_comes_first(tmp_path: Path) -> None:
    for lr, errors in ((0.1, (50.0, 46.0)), (0.2, (44.0,)), (0.3, (60.0, 48.0))):
        write_run(tmp_path / f"lr{lr}", regression(*errors), local__lr=lr)
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    for word in ("mae", "best", "best_mae"):
        rows = compare_runs(runs, by=word).rows
        assert [row.label for row in rows] == ["lr0.2", "lr0.1", "lr0.3"]
    with pytest.raises(UsageError, match="none of these runs has `acc`") as caught:
        compare_runs(runs, by="acc")
    assert caught.value.hint == "they are judged by mae, r2"


def test_other_tasks_have_no_value_for_each_others_metrics(tmp_path: Path) -> None:
    """They come last where rows are sorted by one of them."""
    write_run(tmp_path / "class", rounds(0.5, 0.9))
    write_run(tmp_path / "next", ranking(0.1, 0.2), task__data="csv:a.csv")
    write_run(tmp_path / "number", regression(50.0, 46.0), task__data="csv:b.csv")
    found = compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())], by="hr@10")
    first, second, third = found.rows
    assert [row.label for row in found.rows] == ["next", "class", "number"]
    assert [row.primary for row in found.rows] == ["ndcg@10", "accuracy", "mae"]
    assert [*first.values] == [*second.values] == [*third.values]
    assert third.values["hr@10"] == second.values["mae"] == (None, None, 0)
    assert (first.values["hr@10"].mean, third.values["best_mae"].mean) == (0.4, 45.0)
    assert list_shown(found.rows) == ["ndcg@10", "hr@10", "accuracy", "mae"]


def test_a_reference_by_any_name(runs: list[Run]) -> None:
    for name in ("fedmp", "fedmp-s1"):
        found = compare_runs(runs, reference=name)
        assert found.reference == "fedmp"
        assert found.rows[0].differs["method.name"] == "fedavg"
    with pytest.raises(UsageError, match="names no run") as caught:
        compare_runs(runs, reference="fedmpp")
    assert caught.value.hint == "did you mean `fedmp`?"
    with pytest.raises(UsageError, match="several rows") as caught:
        compare_runs([runs[0], runs[-1]], reference="fedavg")
    assert caught.value.hint == "choose one: fedavg-s0, slow"


def test_names_find_rows_and_single_runs(runs: list[Run]) -> None:
    found = compare_runs(runs)
    assert [row.label for row in found.named("fedavg")] == ["fedavg"]
    (single,) = found.named("fedavg-s1")
    assert single.values["accuracy"] == (pytest.approx(0.8), None, 1)
    assert found.named("nothing") == []
    assert {"fedavg", "fedavg-s0", "fedmp", "slow"} <= set(found.names())


def test_warnings_of_runs(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", rounds(0.5, 0.6), rounds=9)
    (text, other) = compare_runs([read_run(path)], budgets=[Budget("clock_s", 60.0)]).warnings
    assert text.endswith("a is unfinished: 2 of 9 rounds")
    assert other.endswith("a ended before clock 1 min 00 s; its last value stands")
