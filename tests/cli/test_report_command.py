from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import rounds, write_run

from fpcli.report import markup


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(markup, "draw_chart", lambda *_, **__: "<svg></svg>")
    return write_run(tmp_path / "runs" / "a-s0", rounds(0.5, 0.8))


def test_one_run_keeps_its_page(fp: Callable, run: Path) -> None:
    assert fp("report", "a-s0") == (0, "wrote runs/a-s0/report.html\n", "")
    assert (run / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_several_runs(fp: Callable, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "b", rounds(0.5), rounds=2)
    done = fp("report", "runs", "--json", "--target", "0.8", "--at", "rounds=1")
    envelope = json.loads(done.out)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert envelope["data"] == {"page": "report.html", "bytes": len(text.encode())}
    assert "runs/b is unfinished: 1 of 2 rounds" in envelope["warnings"]
    assert "rounds to 80% val acc" in text and "test acc at round 1" in text


def test_nothing_is_overwritten(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    done = fp("report", "a-s0", "-o", "mine.html")
    assert done.status == 2 and "mine.html exists" in done.err and "--force" in done.err
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert fp("report", "a-s0", "-o", "mine.html", "--force").status == 0
    done = fp("report", "a-s0", "-o", "no/where.html")
    assert done.status == 2 and "there is no folder no" in done.err


def test_open_shows_it(fp: Callable, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    assert fp("report", "a-s0", "--open").status == 0
    assert shown == [(run / "report.html").resolve().as_uri()]


def test_wrong_runs_leave_nothing(fp: Callable, tmp_path: Path) -> None:
    assert fp("report", "runs/b", "-o", "page.html").status == 3
    assert not (tmp_path / "page.html").exists()
