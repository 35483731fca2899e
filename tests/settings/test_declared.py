from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fpcli import plugins
from fpcli.errors import UsageError
from fpcli.models import MODELS
from fpcli.settings.declared import DECLARATIONS, arguments_of, describe
from fpcli.settings.fields import list_options

SHIPPED = [
    (kind, name)
    for kind in ("methods", "pruners")
    for name in plugins.load_reference(plugins.TABLES[kind])
]


def tell(method: Any) -> dict[str, Any]:
    """Return in plain words what a method declares."""
    told = {name: repr(getattr(method, name, None)) for name in DECLARATIONS - {"Options"}}
    return told | {
        "name": method.__name__,
        "about": inspect.getdoc(inspect.getmodule(method)),
        "options": [list(row) for row in list_options(method.Options)],
        "checks": hasattr(method.Options, "__post_init__"),
    }


def run_afresh(code: str) -> Any:
    """Return what a program prints as JSON in an interpreter that has nothing loaded yet."""
    lines = ["import json, sys", "from test_declared import *", "found = None", code]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, "print(json.dumps(found))"])],
        capture_output=True, text=True, cwd=Path(__file__).parent, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def parts() -> Any:
    """Return what every method of ours declares while torch is not loaded."""
    return run_afresh("""
found = {f"{kind}/{name}": tell(describe(kind, name)) for kind, name in SHIPPED}
assert "torch" not in sys.modules""")


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_part_of_a_file_declares_what_all_of_it_does(kind: str, name: str, parts: Any) -> None:
    assert parts[f"{kind}/{name}"] == tell(plugins.lookup(kind, name))


def test_options_are_checked_by_a_part_too() -> None:
    found = run_afresh("""
found = []
for name, wrong in (
    ("fedmp", {"ratio_min": 0.9}), ("heterofl", {"levels": "a1-a2"}), ("pace", {"anchor": "first"})
):
    try:
        describe("methods", name).Options(**wrong)
    except ValueError as error:
        found.append(str(error))
assert "torch" not in sys.modules""")
    assert found == [
        "ratio_min 0.9 is above ratio_max 0.8",
        "levels 'a1-a2' name a level twice",
        "anchor 'first': write fastest, or quantile:Q such as quantile:0.25",
    ]


def test_a_part_has_no_hooks_and_gives_way_to_the_whole() -> None:
    found = run_afresh("""
part = describe("methods", "fedmp")
again = describe("methods", "fedmp")
whole = plugins.lookup("methods", "fedmp")
found = [hasattr(part, "plan"), part is again, describe("methods", "fedmp") is whole]""")
    assert found == [False, True, True]


def test_what_is_not_ours_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs_whole.py").write_text("class Mine:\n    def plan(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert hasattr(describe("methods", "theirs_whole:Mine"), "plan")
    with pytest.raises(UsageError, match="unknown method `fedmpp`"):
        describe("methods", "fedmpp")


@pytest.mark.parametrize("name", MODELS)
def test_arguments_are_read_as_they_are(name: str) -> None:
    function = plugins.lookup("models", name)
    assert arguments_of(MODELS[name]) == {*inspect.signature(function).parameters}
