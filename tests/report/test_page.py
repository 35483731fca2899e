from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
from folders import client, event, ranking, regression, rounds, write_fit, write_pruning, write_run

from fpcli.report import markup
from fpcli.report import page as module
from fpcli.report.compare import compare_runs
from fpcli.report.page import make_page
from fpcli.report.runs import read_run

HOSTILE = "<script>alert(1)</script>'\"&-s0"
VOID = {"meta", "path", "rect", "use", "br"}


class Tags(html.parser.HTMLParser):
    """Checks that what is opened is closed, and collects tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page about three runs, one of them with a name that wants to be markup."""
    tmp_path = tmp_path_factory.mktemp("runs")
    bad = {"client": 1, "code": "F402", "reason": "<b>bad</b>"}
    clients = [client(0, notes={"ratio": 0.5}, pruning_error=0.1), client(1, notes={"ratio": 0.2})]
    history = [event(1, 0.4, 0.5, clients=clients, rejected=[bad], notes={"density": {"<i>": 0.5}})]
    for seed in (0, 1):
        write_run(tmp_path / f"plain-s{seed}", rounds(0.5, 0.9), seed=seed)
    name = HOSTILE.replace("/", "_")
    path = write_run(tmp_path / name, history, method__name="fedmp", task__data_dir="</pre><u>")
    (path / "command.txt").write_text("fp train --name '</pre><b>'\n")
    (path / "environment.json").write_text(
        json.dumps({"python": "<3>", "packages": {"torch": "2"}})
    )
    return make_page(compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]))


def test_it_is_one_file_without_scripts_and_network(text: str) -> None:
    tags = Tags(text)
    assert tags.open == []
    assert not tags.tags & {"script", "link", "img", "iframe", "object", "form", "b>bad", "i", "u"}
    assert all(link.startswith("#") for link in tags.links)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_what_it_tells(text: str) -> None:
    for words in (
        "2 settings compared", "3 runs, 5 rounds", "Test accuracy by simulated time",
        "Settings that differ", "method.name", "Pruning ratio per client", "Density per layer",
        "1 replies of clients were not used", "1 rejected (F402 &lt;b&gt;bad&lt;/b&gt;)",
        "&lt;script&gt;", "&lt;/pre&gt;", "packages.torch", "All settings", "2 clients took part",
    ):  # fmt: skip
        assert words in text, words


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out, which take most of the time."""
    monkeypatch.setattr(markup, "draw_chart", lambda *_, **__: "<svg></svg>")


def test_a_single_run_has_its_numbers_at_the_top(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", rounds(0.5, 0.9375)))
    text = make_page(compare_runs([run]))
    assert '<div class="tile"><b>93.75%</b>' in text
    assert "<title>one</title>" in text
    assert "Settings that differ" not in text
    assert text == make_page(compare_runs([run]))


@pytest.mark.usefixtures("_undrawn")
def test_tasks_have_their_own_numbers_and_charts(tmp_path: Path) -> None:
    number = read_run(write_run(tmp_path / "number", regression(60.0, 44.0, 50.0)))
    following = read_run(write_run(tmp_path / "next", ranking(0.1, 0.2), task__data="csv:a.csv"))
    text = make_page(compare_runs([number]))
    for words in ("<b>49.0000</b><span>test MAE, last", "<b>43.0000</b><span>at best validation"):
        assert words in text, words
    assert "accuracy" not in text.partition("<h2>The run")[0]
    assert "<b>40.00%</b><span>test HR@10, last" in make_page(compare_runs([following]))
    both = make_page(compare_runs([number, following]))
    for words in ("<b>MAE by round, digits</b>", "<b>NDCG@10 by traffic, csv:a.csv</b>"):
        assert words in both, words


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("history", [[], [event(1, None)]])
def test_a_run_that_has_hardly_begun(tmp_path: Path, history: list) -> None:
    text = make_page(compare_runs([read_run(write_run(tmp_path / "one", history, rounds=9))]))
    assert Tags(text).open == []
    assert "1 of 9 rounds" in text or "has no round yet" in text


@pytest.mark.usefixtures("_undrawn")
def test_it_never_grows_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [client(number) for number in range(300)]
    run = read_run(write_run(tmp_path / "one", [event(1, 0.5, 0.5, clients=clients)]))
    assert "200 more clients are not shown" in make_page(compare_runs([run]))
    whole = len(make_page(compare_runs([run])))
    monkeypatch.setattr(module, "LIMIT_BYTES", whole - 1)
    assert "280 more clients are not shown" in make_page(compare_runs([run]))
    monkeypatch.setattr(module, "LIMIT_BYTES", 1)
    assert "1 more runs are not shown" in make_page(compare_runs([run]))


@pytest.mark.usefixtures("_undrawn")
def test_more_rows_than_lines_can_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_STYLES", 2)
    for size in (1, 2, 3):
        write_run(tmp_path / f"r{size}", rounds(0.5), local__batch_size=size)
    text = make_page(compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]))
    assert "only the first 2 rows are drawn" in text
    assert '<td class="name">r3</td>' in text


@pytest.mark.usefixtures("_undrawn")
def test_data_sets_have_charts_of_their_own(tmp_path: Path) -> None:
    for name, data in (("a", "digits"), ("b", "breast-cancer"), ("c", "digits")):
        write_run(tmp_path / name, rounds(0.5, 0.6), task__data=data, local__batch_size=ord(name))
    text = make_page(compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]))
    digits, cancer = text.index("<h2>Curves, digits</h2>"), text.index("<h2>Curves, breast-cancer")
    assert text.count("<b>Test accuracy by round, digits</b>") == 1
    assert text.count("<b>Accuracy by round, breast-cancer</b>") == 1
    first, second = text[digits:cancer], text[cancer:]
    assert "</svg>a</li>" in first and "</svg>c</li>" in first and "</svg>b</li>" not in first
    assert "</svg>a</li>" not in second
    assert "<h2>Curves</h2>" in make_page(
        compare_runs([read_run(tmp_path / "a"), read_run(tmp_path / "c")])
    )


def test_plain_training_and_its_prunings(tmp_path: Path) -> None:
    write_fit(tmp_path / "fit-s0", 0.5, 0.9)
    write_pruning(tmp_path / "half", 0.5, 0.8, latency=True)
    text = make_page(compare_runs([read_run(path) for path in sorted(tmp_path.iterdir())]))
    assert Tags(text).open == []
    for words in (
        "2 runs, 3 epochs", "<b>Accuracy by epoch</b>", "<h2>What pruning leaves</h2>",
        "<b>Test accuracy by multiply-adds</b>", "<b>Test accuracy by parameters</b>",
        "</svg>filters</li>", "</svg>fit-s0</li>", "multiply-adds (thousands)",
    ):  # fmt: skip
        assert words in text, words
    assert "Clients and layers" not in text and "clients took part" not in text
    single = make_page(compare_runs([read_run(tmp_path / "half")]))
    for tile in ("<b>80.00%</b>", "<b>500</b>", "<b>0.25 ms</b>", "<b>2.0 kB</b>"):
        assert tile in single, tile


@pytest.mark.usefixtures("_undrawn")
def test_no_absolute_path_is_told(tmp_path: Path) -> None:
    """Not of the run, of its data, of its start, in its command, or in a warning."""
    home = tmp_path / "home"
    path = write_run(
        home / "a", rounds(0.5), rounds=9, task__data_dir=str(home / "data"),
        task__start=str(home / "origin"),
    )  # fmt: skip
    write_run(home / "b", rounds(0.5), task__data_dir="C:\\Users\\me\\data")
    (path / "command.txt").write_text(f"fp train --data-dir={home}/data --runs '{home}'\n")
    (path / "environment.json").write_text(json.dumps({"thread_settings": {"x": f"{home}/x"}}))
    text = make_page(compare_runs([read_run(home / "a"), read_run(home / "b")]))
    assert str(tmp_path) not in text and "Users" not in text
    for words in ("…/a", "…/data", "…/origin", "…/a is unfinished", "--data-dir=…/data"):
        assert words in text, words


def test_what_is_folded_is_open_on_paper(text: str) -> None:
    _, paper = text.split("@media print {")
    assert "details::details-content { content-visibility: visible; block-size: auto; }" in paper
    assert "prefers-color-scheme: dark" not in paper
    assert text.count("@media screen and (prefers-color-scheme: dark)") == 2
    assert text.count("prefers-color-scheme: dark") == 2  # never on paper
