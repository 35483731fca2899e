from __future__ import annotations

from pathlib import Path

from folders import client, event, regression, write_run

from fpcli.report.clients import list_clients, list_refusals
from fpcli.report.runs import Run, read_run


def run(tmp_path: Path, **more: object) -> Run:
    history = [event(number, 0.5, 0.5) | more for number in (1, 2)]
    return read_run(write_run(tmp_path / "a", history))


def test_sums_and_means_of_every_client(tmp_path: Path) -> None:
    clients = [client(0, notes={"ratio": 0.25}), client(3)]
    (html,) = list_clients(
        run(tmp_path, clients=clients, personal={"3": 0.5}, local={"3": 0.75}), 9
    )
    assert "<summary>2 clients took part" in html
    assert "own accuracy" in html and "local accuracy" in html
    cells = [row.split("</td>") for row in html.split("<tr>")[2:]]
    texts = [[cell.rpartition(">")[2] for cell in row[:-1]] for row in cells]
    expected = ["0", "100", "2", "1,000", "4.0 kB", "2.0 kB", "2.0 s", "2.0 s", "0.250", "-", "-"]
    assert texts[0] == expected
    assert texts[1][-3:] == ["-", "50.00%", "75.00%"]


def test_errors_of_clients(tmp_path: Path) -> None:
    history = regression(60.0)
    history[0]["personal"] = {"mae": {"0": 50.5, "1": None}, "r2": {"0": 0.5, "1": None}}
    (html,) = list_clients(read_run(write_run(tmp_path / "a", history)), 9)
    assert "own MAE" in html and "50.5000" in html
    assert "accuracy" not in html and "local" not in html


def test_many_clients_are_cut_short(tmp_path: Path) -> None:
    clients = [client(number) for number in range(5)]
    (html,) = list_clients(run(tmp_path, clients=clients), 3)
    assert "2 more clients are not shown" in html
    assert list(list_clients(run(tmp_path / "b", clients=clients), 0)) == []
    assert list(list_clients(run(tmp_path / "c", clients=[]), 3)) == []


def test_replies_that_were_not_used(tmp_path: Path) -> None:
    late = [{"client": n, "code": "F409", "reason": "too late"} for n in (4, 7)]
    wrong = [{"client": 2, "code": "F402", "reason": "non-finite values"}]
    one = run(tmp_path, dropped=late)
    assert list_refusals(one) == ["4 dropped (F409 too late): clients 4, 7, rounds 1 to 2"]
    path = write_run(tmp_path / "b", [event(5, 0.5, 0.5, rejected=wrong)])
    assert list_refusals(read_run(path)) == [
        "1 rejected (F402 non-finite values): client 2, round 5"
    ]
