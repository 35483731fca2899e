from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import event, ranking, regression, rounds, write_fit, write_pruning, write_run


@pytest.fixture(autouse=True)
def runs(tmp_path: Path) -> Path:
    """Runs in `runs/`, named as `fp train` does; fedmp sends less and is better."""
    folder = tmp_path / "runs"
    write_run(folder / "fedavg-digits-s0", rounds(0.5, 0.8))
    cheap = [event(1, 0.7, 0.6, total_down_bytes=1000), event(2, 0.9, 0.85, total_down_bytes=2000)]
    write_run(folder / "fedmp-digits-s0", cheap, method__name="fedmp")
    return folder


def test_the_table(fp: Callable) -> None:
    done = fp("compare", "runs/fedavg-digits-s0", "fedmp-digits-s0", "--target", "acc=0.8")
    assert done.status == 0
    head, _, first, second, blank, *notes = done.out.splitlines()
    for title in ("rounds to 80% val acc", "clock to 80% val acc", "differs in"):
        assert title in head
    assert first.split()[:4] == ["fedavg-digits-s0", "1", "80.00%", "80.00%"]
    assert first.endswith("(reference) method.name=fedavg")
    assert second.endswith("method.name=fedmp")
    assert blank == ""
    assert notes[0].startswith("one seed each")
    assert done.err == ""


def test_a_folder_of_runs_sorted(fp: Callable) -> None:
    done = fp("compare", "runs", "--by", "bytes", "--reference", "fedmp", "--csv")
    assert [line.split(",")[0] for line in done.out.splitlines()] == [
        "run", "fedmp-digits-s0", "fedavg-digits-s0",
    ]  # fmt: skip
    assert fp("compare", "runs", "--md").out.startswith("| run | seeds |")


def test_the_contract_of_json(fp: Callable, runs: Path) -> None:
    write_run(runs / "short", rounds(0.4), rounds=5)
    done = fp("compare", "runs", "--json", "--at", "clock=3s", "--at", "rounds=2")
    envelope = json.loads(done.out)
    assert (done.status, done.err, envelope["status"]) == (0, "", "ok")
    data = envelope["data"]
    assert list(data) == ["runs", "reference", "target", "budgets"]
    assert data["budgets"] == [{"clock_s": 3.0}, {"rounds": 2.0}]
    assert list(data["runs"][0]) == [
        "run", "method", "paths", "seeds", "accuracy", "best_accuracy", "loss", "down_bytes",
        "up_bytes", "params", "macs", "file_bytes", "latency_1_ms", "latency_64_ms", "rounds",
        "bytes", "clock_s", "real_s", "at_1", "at_2", "interval", "differs",
    ]  # fmt: skip
    assert data["runs"][1]["at_1"] == 0.6
    warnings = envelope["warnings"]
    assert any("short is unfinished: 1 of 5 rounds" in text for text in warnings)
    assert any("short ended before clock 3.0 s" in text for text in warnings)
    assert fp("compare", "runs").err.startswith("warning: runs/short is unfinished")


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("fedmp.bytes > fedavg.bytes", 0),
        ("fedmp.bytes < fedavg.bytes", 8),
        ("fedmp-digits-s0.acc < 85%", 0),
        ("fedavg.target_rounds > 100", 8),  # never reached: infinite
        ("fedavg.rounds > 100", 8),  # the price of the target, as in the table
    ],
)
def test_fail_if(fp: Callable, condition: str, status: int) -> None:
    done = fp("compare", "runs", "--target", "0.85", "--fail-if", condition)
    assert done.status == status
    assert done.out.startswith("run ")
    assert ("error[F801]: `" in done.err) == bool(status)


def test_a_fit_and_its_prunings_side_by_side(fp: Callable, terminal: Callable) -> None:
    write_fit(Path("runs/dense-s0"), 0.5, 0.9)
    for percent, score in ((30, 0.88), (50, 0.8), (70, 0.6)):
        write_pruning(
            Path(f"pruned/r{percent}"), percent / 100, score, source="dense-s0",
            latency=percent == 50,
        )  # fmt: skip
    done = fp("compare", "dense-s0", "pruned/r30", "pruned/r50", "pruned/r70", "--json")
    rows = json.loads(done.out)["data"]["runs"]
    keys = ("run", "method", "accuracy", "params", "macs", "latency_1_ms", "file_bytes")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("dense-s0", "fit", 0.9, 1000, 5000.0, 0.5, 4000),
        ("r30", "filters", 0.88, 700, 3500.0, None, 2800),
        ("r50", "filters", 0.8, 500, 2500.0, 0.25, 2000),
        ("r70", "filters", 0.6, 300, 1500.0, None, 1200),
    ]
    assert [row["differs"] for row in rows[1:]] == [
        {"command": "prune", "prune.ratio": ratio} for ratio in (0.3, 0.5, 0.7)
    ]
    table = fp("compare", "dense-s0", "pruned")
    assert table.status == 0 and table.err == ""
    head = table.out.splitlines()[0]
    assert "epochs" in head and "model file" in head and "latency of 64" in head
    assert "down+up" not in head and "clock" not in head
    condition = "r50.latency > 0.6 * dense-s0.latency or r70.file > 2kB"
    assert fp("compare", "dense-s0", "pruned", "--fail-if", condition).status == 0
    assert fp("compare", "pruned", "--fail-if", "r50.acc < 0.85 and r50.macs < 3000").status == 8
    stream = terminal(80)
    fp("compare", "dense-s0", "pruned")
    lines = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()
    assert all(len(line) <= 80 for line in lines)
    (row,) = [line for line in lines if line.startswith("r50")]
    for cell in ("80.00%", "500", "2,500", "2.0 kB"):
        assert cell in row


def test_rounds_and_epochs_have_one_column(fp: Callable) -> None:
    write_fit(Path("runs/fit-digits-s0"), 0.5, 0.9, 0.8)
    done = fp("compare", "runs", "--target", "0.8", "--at", "clock=3s", "--by", "rounds")
    assert "rounds or epochs to 80% val acc" in done.out
    assert done.out.count("server.") == done.out.count("fit.") == 0
    assert fp("compare", "fit-digits-s0", "--by", "clock", "--md").status == 0
    assert fp("compare", "fit-digits-s0", "--fail-if", "fit.bytes > 0").status == 3


@pytest.fixture
def numbers() -> Path:
    """Two runs that predict a number; that with the lower rate has the lower error."""
    for lr, errors in ((0.1, (50.0, 46.0)), (0.5, (60.0, 55.0))):
        write_run(Path(f"numbers/lr{lr}"), regression(*errors), local__lr=lr)
    return Path("numbers")


def test_an_error_is_better_where_it_is_lower(fp: Callable, numbers: Path) -> None:
    done = fp("compare", "numbers/lr0.5", "numbers/lr0.1", "--by", "mae", "--target", "mae=50")
    head, _, first, second = done.out.splitlines()[:4]
    assert "test mae last" in head and "rounds to 50 val mae" in head and "acc" not in head
    assert first.split()[:5] == ["lr0.1", "1", "45.0000", "45.0000", "1"]
    assert second.split()[:5] == ["lr0.5", "1", "54.0000", "54.0000", "-"]
    data = json.loads(fp("compare", "numbers", "--target", "mae=50", "--json").out)["data"]
    assert data["target"] == {"mae": 50.0}
    assert [row["best_mae"] for row in data["runs"]] == [45.0, 54.0]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("lr0.5.mae > 50", "lr0.5.mae = 54.0000"),
        ("lr0.5.best > lr0.1.best", "lr0.5.best = 54.0000, lr0.1.best = 45.0000"),
        ("lr0.1.at < 50 and lr0.1.r2 < 0.5", "lr0.1.at = 49.0000, lr0.1.r2 = 0.2500"),
        ("lr0.1.mae > 45", ""),
    ],
)
def test_conditions_about_errors(fp: Callable, numbers: Path, condition: str, words: str) -> None:
    done = fp("compare", "numbers", "--at", "rounds=1", "--fail-if", condition)
    assert done.status == (8 if words else 0)
    assert words in done.err


def test_runs_that_rank(fp: Callable) -> None:
    for name, gain in (("a", 0.1), ("b", 0.125)):
        write_run(Path(f"next/{name}"), ranking(gain / 2, gain), local__lr=gain)
    done = fp("compare", "next", "--by", "hr@10", "--target", "hr@10=20%,mrr=0.05")
    head, _, first, second = done.out.splitlines()[:4]
    assert "test ndcg@10 last" in head and "rounds to 20% val hr@10 and 0.05 val mrr" in head
    assert first.split()[:6] == ["b", "1", "0.1250", "0.1250", "25.00%", "2"]
    assert second.split()[4:6] == ["20.00%", "2"]
    condition = "a.hr@10 < 0.9 * b.hr@10"
    done = fp("compare", "next", "--fail-if", condition)
    assert done.status == 8
    assert f"`{condition}` holds (a.hr@10 = 20.00%, b.hr@10 = 25.00%)" in done.err
    assert fp("compare", "next", "--fail-if", "a.hr@10 < 0.7 * b.hr@10").status == 0


def test_tasks_are_never_mixed(fp: Callable, numbers: Path) -> None:
    """Each has columns of its own, and no cell in those of others."""
    done = fp("compare", "numbers", "runs", "--csv", "--by", "acc")
    head, first, *_, last = (line.split(",") for line in done.out.splitlines())
    assert (first[head.index("accuracy")], first[head.index("mae")]) == ("0.85", "")
    assert (last[head.index("accuracy")], last[head.index("mae")]) == ("", "54.0")


def test_a_condition_that_holds_says_by_which_values(fp: Callable) -> None:
    words = ("--fail-if", "fedmp.bytes < 1kB", "--fail-if", "fedmp.acc > fedavg.acc")
    envelope = json.loads(fp("compare", "runs", "--json", *words).out)
    assert envelope["status"] == "findings"
    assert envelope["error"]["message"] == (
        "`fedmp.acc > fedavg.acc` holds (fedmp.acc = 85.00%, fedavg.acc = 80.00%)"
    )


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["runs/nothing"], 3, "does not exist", "runs are the folders in"),
        (["runs/fedmp-digits-s1"], 3, "does not exist", "did you mean `fedmp-digits-s0`?"),
        (["runs", "--target", "loss=1"], 2, "unknown metric `loss`", "known: accuracy, mae"),
        (["runs", "--target", "98"], 2, "a metric and a number, got 98", "write `0.98` or `98%`"),
        (["runs", "--target", "mae=x"], 2, "a metric and a number, got mae=x", "`accuracy=0.9`"),
        (["runs", "--by", "mae"], 2, "none of these runs has `mae`", "judged by accuracy"),
        (["runs", "--fail-if", "fedmp.hr@10 > 1"], 3, "has no hr@10", "judged by accuracy"),
        (["runs", "--at", "clock"], 2, "not of the form", "--at clock=60s"),
        (["runs", "--at", "clok=60s"], 2, "not of the form", "did you mean `clock`?"),
        (["runs", "--at", "clock=60"], 2, "no unit; write `60 s` or `60 min`", "--at clock=60s"),
        (["runs", "--target", "no"], 2, "a metric and a number, got no", "write `0.5` or `50%`"),
        (["runs", "--at", "bytes=5parsecs"], 2, "unknown unit", "--at clock=60s"),
        (["runs", "--by", "byte"], 2, "unknown measure `byte`", "did you mean `bytes`?"),
        (["runs", "--md", "--csv"], 2, "exclude each other", "give one"),
        (["runs", "--reference", "fedpm"], 2, "names no run", "did you mean `fedmp`?"),
        (["runs", "--fail-if", "fedmp.accu > 1"], 2, "unknown measure `accu`", "did you mean `acc"),
        (["runs", "--fail-if", "fedmpp.acc > 1"], 2, "`fedmpp` names no run", "`fedmp`?"),
        (["runs", "--fail-if", "fedmp.clients_acc > 1"], 3, "has no clients_acc", "evaluated"),
        ([], 2, "missing argument", "--help"),
    ],
)
def test_wrong_words(fp: Callable, words: list[str], status: int, message: str, hint: str) -> None:
    done = fp("compare", *words)
    assert (done.status, done.out) == (status, "")
    first, _, last = done.err.splitlines()
    assert message in first
    assert hint in last
