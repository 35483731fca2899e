from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fpcli.cli.session import Session
from fpcli.cli.watch import RunWatcher, client_parts, refusal_lines
from fpcli.engine.federation import ClientRecord, Evaluation, Refusal, RoundRecord, Totals
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import Cost
from fpcli.tasks.learning_task import Score

CLIENT = ClientRecord(
    client=4, num_examples=9, num_steps=2, loss=0.5, params=1200, macs=10.0, pruning_error=0.0,
    down_bytes=1500,
    up_bytes=700, compute_s=1.0, down_s=0.5, up_s=0.5, real_s=0.1, notes={"ratio": 0.25},
)  # fmt: skip
RECORD = RoundRecord(
    round=3, cohort=(1, 4, 5, 7), clients=(CLIENT,), refusals=(), attempts=1, loss=0.5,
    clock_s=2.0, down_bytes=1500, up_bytes=700, real_s=0.1, cost=Cost(2000, 20.0, 8000),
    coverage=1, notes={},
    totals=Totals(clock_s=65.0, down_bytes=2_000_000, up_bytes=1_000_000, real_s=3.0),
    evaluation=Evaluation(Score(0.3, {"accuracy": 0.9}, 10), Score(0.3, {"accuracy": 0.875}, 10)),
)  # fmt: skip
REFUSALS = (
    Refusal(1, "F402", "non-finite values in `conv2.weight`"),
    Refusal(7, "F409", "12.0 s; the deadline is 10 s"),
    Refusal(5, "F409", "11.0 s; the deadline is 10 s"),
    Refusal(4, "F409", "`classes`: 11.0 s; the deadline is 10 s", "classes"),
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_one_warning_per_kind_of_refusal() -> None:
    assert refusal_lines(replace(RECORD, refusals=REFUSALS)) == [
        "round 3: client 1 rejected (F402 non-finite values in `conv2.weight`); 1 of 4 used",
        "round 3: clients 5, 7 dropped (F409 12.0 s; the deadline is 10 s); 1 of 4 used",
        "round 3: client 4 dropped (F409 `classes`: 11.0 s; the deadline is 10 s)",
    ]


def test_a_round_in_one_line(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("train")
    watcher = RunWatcher(session, folder)
    watcher.round(replace(RECORD, refusals=REFUSALS[:1]))
    out, err = capsys.readouterr()
    line, warning = err.splitlines()
    for part in ("test acc 87.5%", "loss 0.5000", "ratio 0.25 to 0.25", "down 2.0 MB up 1.0 MB"):
        assert part in line
    assert "clock 1 min 05 s" in line
    assert warning.startswith("warning: round 3: client 1 rejected")
    assert session.warnings == [warning.removeprefix("warning: ")]
    assert folder.log.read_text("utf-8") == err
    assert out == ""


def test_a_warning_of_the_method(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("train")
    RunWatcher(session, folder, is_quiet=True).round(replace(RECORD, notes={"warning": "too few"}))
    assert session.warnings == ["round 3: too few"]
    assert capsys.readouterr().err == "warning: round 3: too few\n"


def test_a_round_without_evaluation(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    RunWatcher(Session("train"), folder).round(replace(RECORD, evaluation=None, clients=()))
    err = capsys.readouterr().err
    assert "acc" not in err
    assert "ratio" not in err


def test_quiet_shows_warnings_only(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = RunWatcher(Session("train"), folder, is_quiet=True)
    watcher.round(replace(RECORD, refusals=REFUSALS[:1]))
    assert capsys.readouterr().err.startswith("warning: round 3")
    assert len(folder.log.read_text("utf-8").splitlines()) == 2


def test_verbose_shows_clients(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    RunWatcher(Session("train"), folder, is_verbose=True).round(RECORD)
    assert "\n  client 4 · loss 0.5000" in capsys.readouterr().err
    assert "clock 2.0 s" in client_parts(CLIENT)


def test_lines_of_json(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    RunWatcher(Session("train", is_lines=True), folder).round(RECORD)
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["round"], event["clients"][0]["client"]) == ("round", 3, 4)


def test_messages_are_one_line(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("train")
    RunWatcher(session, folder).message("warning: a\nb \x1b[31m")
    assert capsys.readouterr().err == "warning: a b [31m\n"
    assert session.warnings == ["a b [31m"]
