from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import event, rounds, write_fit, write_pruning, write_run


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
    for title in ("rounds to 80% val", "down+up to 80% val", "clock to 80% val", "differs in"):
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
        "run", "method", "paths", "seeds", "accuracy", "best_accuracy", "clients_accuracy",
        "local_accuracy", "loss", "down_bytes", "up_bytes", "params", "macs", "file_bytes",
        "latency_1_ms", "latency_64_ms", "rounds", "bytes",
        "clock_s", "real_s", "at_1", "at_2", "interval", "differs",
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
    assert "rounds or epochs to 80% val" in done.out
    assert done.out.count("server.") == done.out.count("fit.") == 0
    assert fp("compare", "fit-digits-s0", "--by", "clock", "--md").status == 0
    assert fp("compare", "fit-digits-s0", "--fail-if", "fit.bytes > 0").status == 3


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
        (["runs", "--target", "loss=1"], 2, "unknown measure `loss`", "--target acc=0.98"),
        (["runs", "--target", "98"], 2, "`98` is no accuracy", "write `0.98` or `98%`"),
        (["runs", "--at", "clock"], 2, "not of the form", "--at clock=60s"),
        (["runs", "--at", "clok=60s"], 2, "not of the form", "did you mean `clock`?"),
        (["runs", "--at", "clock=60"], 2, "no unit; write `60 s` or `60 min`", "--at clock=60s"),
        (["runs", "--target", "no"], 2, "`no` is no accuracy", "write `0.5` or `50%`"),
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
