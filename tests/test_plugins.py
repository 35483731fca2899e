"""What a name means: a user's own code, something registered, or a path; and who decides that."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fpcli
from fpcli.errors import NeedError, UsageError
from fpcli.plugins import (
    OF_USERS,
    TABLES,
    find_reference,
    is_code,
    list_names,
    load_reference,
    lookup,
    split_path,
)

PACKAGE = Path(fpcli.__file__).parent


@pytest.mark.parametrize(
    "name", ["a:b", "pkg.mod:f", "_own:_make", "nets.py:small", "étoile:créer", "torchvision.x:f"]
)
def test_module_and_attribute_are_code(name: str) -> None:
    assert is_code(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ":", "a", "a:", ":b", "a:b:c", "a::b", "a.:b", ".a:b", "a..b:c", "a:b.c",  # parts
        "a: b", " a:b", "a:b ", "a:b\n", "a b:c", "a:b()", "a-b:c", "1a:b", "a:1b",  # letters
        "./x.py:f", "../a:b", "a/b:c", "C:\\x", "C:/x", "~:x/y", "file.py:f,size=3",  # paths
        "csv:x.csv", "csv:x", "npz:x", "folder:x", "folder:x,size=32", "torchvision:resnet18",
        "https://a.b/c", "http:x/y", "resnet20-gn@0.5", "vgg16", "a:b@0.5",
        "quantile:0.5", "0.1:0.9:0.1", "conv1=0.5", "a1-b1-c1", "rows.csv:12",
    ],
)  # fmt: skip
def test_nothing_else_is_code(name: str) -> None:
    assert not is_code(name)


def test_a_path_is_taken_apart() -> None:
    assert split_path("npz:C:/x.npz") == ("npz", "C:/x.npz")
    assert split_path("csv:") == ("csv", "")
    for name in ("digits", "mine:make", "torchvision:resnet18", "Folder:x", "zip:x"):
        assert split_path(name) == ("", name)


@pytest.mark.parametrize("kind", TABLES)
def test_code_is_looked_up_only_where_users_may_name_it(kind: str) -> None:
    if kind in OF_USERS:
        assert find_reference(kind, "os:getcwd") == "os:getcwd"
        assert lookup(kind, "pathlib:Path") is Path
    else:
        with pytest.raises(UsageError, match=r"unknown \w+ `os:getcwd`"):
            lookup(kind, "os:getcwd")
    for name in ("./os.py:getcwd", "os:path:join", "csv:reader", "torchvision:models"):
        with pytest.raises(UsageError, match=r"unknown [\w ]+ `"):
            find_reference(kind, name)
    assert all(is_code(target) for target in list_names(kind).values())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose modules can be imported, for this test only."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        ("from fpcli.errors import FpError, Bygone", "`Bygone` of `fpcli.errors`"),
        ("from fpcli.engine import bygone", "`bygone` of `fpcli.engine`"),
        ("from fpcli.bygone import Thing", "`fpcli.bygone`"),
        ("import fpcli.bygone.thing", "`fpcli.bygone`"),
        ("from fpcli import errors\nclass Mine(errors.Bygone): ...", "`Bygone` of `fpcli.errors`"),
        ("import helper_of_mine", "`Bygone` of `fpcli.structure.support`"),
        ("def __getattr__(name): import fpcli.bygone", "`fpcli.bygone`"),
    ],
)
def test_code_for_another_version_says_what_it_misses(write: Path, source: str, lost: str) -> None:
    (write / "mine_of_then.py").write_text(source)
    (write / "helper_of_mine.py").write_text("from fpcli.structure.support import Bygone")
    with pytest.raises(NeedError) as caught:
        lookup("methods", "mine_of_then:Mine")
    error = caught.value
    start = f"`mine_of_then` was written for another version of fpcli: {lost}"
    assert error.message.startswith(start)
    assert error.message.endswith(f" is not in {fpcli.__version__}")
    assert "CHANGELOG.md" in error.hint and "README.md (Adding a method)" in error.hint
    assert (error.exit_status, error.where) == (5, "mine_of_then:Mine")
    assert "\n" not in error.message + error.hint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("from os import bygone", "ImportError: cannot import name 'bygone' from 'os'"),
        ("import os; os.bygone", "AttributeError: module 'os' has no attribute 'bygone'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("def f(: ...", "SyntaxError: "),
    ],
)
def test_code_that_fails_otherwise_says_how(write: Path, source: str, message: str) -> None:
    (write / "mine_of_now.py").write_text(source)
    with pytest.raises(UsageError, match="cannot import `mine_of_now` of `mine_of_now:") as caught:
        load_reference("mine_of_now:Mine")
    assert f": {message}" in caught.value.message and "\n" not in caught.value.message
    assert "mend that line" in caught.value.hint


def test_what_was_named_wrongly(write: Path) -> None:
    (write / "plain_nets.py").write_text("nothing = None")
    with pytest.raises(UsageError, match=r"cannot import `fpcli\.bygone` of `fpcli\.bygone:Thing`"):
        load_reference("fpcli.bygone:Thing")
    for name in ("small", "nothing"):
        with pytest.raises(UsageError, match=f"module `plain_nets` has no `{name}`"):
            load_reference(f"plain_nets:{name}")
    with pytest.raises(UsageError, match=r"cannot import `plain_nets\.py`") as caught:
        load_reference("plain_nets.py:small")
    assert caught.value.hint.startswith("write `plain_nets:small`")


TAKES_APART = {
    "partition", "rpartition", "split", "rsplit", "find", "rfind", "index", "rindex", "count",
    "startswith", "endswith", "removeprefix", "removesuffix",
}  # fmt: skip
PATTERNS = {"compile", "match", "fullmatch", "search", "split", "sub", "findall", "finditer"}

OTHER_QUESTIONS = {
    ("plugins.py", "is_code"): "the one place",
    ("plugins.py", "split_path"): "what kind of path; says nothing of code",
    ("plugins.py", "load_reference"): "takes apart what is code or stands in a table",
    ("plugins.py", "_rewrite_code"): "what is no code, but may have been meant so",
    ("cli/words.py", "split_overrides"): "`--set KEY:VALUE`, to hint at the equals sign",
    ("cli/sensitivity_command.py", "parse_ratios"): "a grid of ratios, FIRST:LAST:STEP",
    ("cli/show.py", "line"): "a line for the screen that begins with `warning:`",
    ("methods/__init__.py", ""): "the line of a class",
    ("methods/federated_pruning.py", ""): "a share, random:F",
    ("methods/federated_pruning.py", "choose_unit_masks"): "a share, random:F",
    ("engine/balance.py", "quantile"): "an anchor, quantile:Q",
    ("report/markup.py", ""): "where a path may begin in a text",
    ("recipe/header.py", ""): "a line of a recipe's header, `# paper: ...`",
    ("recipe/header.py", "_add"): "a place, FILE:LINE",
    ("recipe/yaml_file.py", "is_null"): "a tag of YAML's",
    ("structure/mask_units.py", ""): "a shape, block:ROWSxCOLUMNS",
    ("settings/declared.py", "_take_apart"): "takes apart what stands in a table",
}
"""Where else a colon is looked for: file and function -> what is asked there."""


def _has_colon(node: ast.AST) -> bool:
    """Tell whether texts within literals hold a colon; in a sentence it is punctuation."""
    texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return any(isinstance(text, str) and ":" in text and " " not in text for text in texts)


def _has_colon_of_pattern(node: ast.AST) -> bool:
    texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return any(isinstance(x, str) and ":" in x.replace("(?:", "") for x in texts)


def _asks_for_a_colon(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        literal = (ast.Constant, ast.JoinedStr, ast.Tuple, ast.List, ast.Set)
        sides = (side for side in (node.left, *node.comparators) if isinstance(side, literal))
        return any(map(_has_colon, sides))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if isinstance(node.func.value, ast.Name) and node.func.value.id == "re":
        return node.func.attr in PATTERNS and any(map(_has_colon_of_pattern, node.args[:1]))
    return node.func.attr in TAKES_APART and any(map(_has_colon, node.args))


def rivals(node: ast.AST, function: str = "") -> Iterator[str]:
    """Yield the name of every function that looks for a colon in a text, "" outside of any."""
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if _asks_for_a_colon(node):
        yield function
    for child in ast.iter_child_nodes(node):
        yield from rivals(child, function)


@pytest.mark.parametrize(
    "source",
    [
        '":" in name', '":" not in name', 'name[1] == ":"', 'f"{kind}:" in words',
        'name.startswith("torchvision:")', 'name.startswith(("npz:", "csv:"))',
        'name.partition(":")', 'name.split(":", 1)', 'name.count(":") == 1', 'name.find(":") > 0',
        'name.removeprefix(f"{kind}:")', 'CODE = re.compile(r"[a-z.]+:[a-z]+")',
        're.fullmatch(rf"(?:{word}):.*", name)', 're.split("[@:]|-gn", name)',
    ],
)  # fmt: skip
def test_a_rival_is_found(source: str) -> None:
    assert list(rivals(ast.parse(f"def decide(name):\n    {source}"))) == ["decide"]


@pytest.mark.parametrize(
    "source",
    [
        'f"{module}:{attribute}"', 'text.startswith("note: ")', 'text == "who: me"', '{"a:b": 1}',
        'name.partition("=")', 're.compile("(?:a|b)")', 'lookup("fpcli.methods:METHODS")',
        'data[:7] == b"recipe:"', "is_code(name)", 'json.dumps(x, separators=(",", ":"))',
    ],
)  # fmt: skip
def test_what_is_no_rival_is_not(source: str) -> None:
    assert list(rivals(ast.parse(source))) == []


def test_one_function_decides_what_is_code() -> None:
    """Whoever else looks for a colon asks another question, which stands in the table above."""
    found = {
        (path.relative_to(PACKAGE).as_posix(), function)
        for path in PACKAGE.rglob("*.py")
        for function in rivals(ast.parse(path.read_text("utf-8")))
    }
    assert found - OTHER_QUESTIONS.keys() == set(), "call fpcli.plugins.is_code or split_path"
    assert OTHER_QUESTIONS.keys() - found == set(), "is asked no more"
