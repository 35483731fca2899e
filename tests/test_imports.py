"""What a file may import, and what no file may call: read from the source, nothing is run."""

from __future__ import annotations

import ast
import functools
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from folders import rounds, write_fit, write_pruning, write_run

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fpcli"
FILES = sorted(PACKAGE.rglob("*.py"))


def read_floors() -> list[set[str]]:
    """Return the rows of the README's architecture, from the ground up: files and packages.

    The empty name above them is fpcli itself, which offers what others make.
    """
    _, chapter = (ROOT / "README.md").read_text("utf-8").split("## Architecture\n")
    rows = chapter.split("```text\n")[1].split("```")[0].splitlines()
    return [*(set(re.findall(r"\w+", row.split("  ")[0])) for row in rows), {""}]


FLOORS = read_floors()

ONLY_IN = {
    "torch_pruning": {"structure/trace.py"},
    # `load` writes recipes, `yaml_file` reads files safely, `fleet_file` looks at what it read.
    "yaml": {"recipe/load.py", "recipe/yaml_file.py", "recipe/fleet_file.py"},
    "rich": {"cli/show.py"},
    "wandb": {"train/trackers.py"},
    "onnxruntime": {"export/formats.py", "export/quantise.py"},
    "scipy": {"fleet/channel.py", "report/measures.py", "structure/stopwatch.py"},
    "sklearn": {
        "audit/class_mia.py",
        "audit/logistic.py",
        "audit/mia.py",
        "audit/probe.py",
        "data/bundled.py",
    },
    "matplotlib": {
        "report/bench_plot.py",
        "report/canvas.py",
        "report/charts.py",
        "report/client_plots.py",
        "report/filter_plot.py",
        "report/forgetting_plots.py",
        "report/mask_plot.py",
        "report/pace_plot.py",
        "report/paper_plot.py",
        "report/plots.py",
        "report/method_plots.py",
        "report/rounding_plot.py",
        "report/server_plots.py",
        "report/prune_plots.py",
        "report/sensitivity_plots.py",
        "report/sparsity_plot.py",
        "report/split_plot.py",
    },
}

NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "flwr", "ray"}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def name_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def imports(node: ast.AST, path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere; ``from a import b`` gives ``a.b``."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{place(path)}: a relative import"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def floor_of(part: str) -> int:
    (found,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return found


def part_of(dotted: str) -> str:
    """Return the part of fpcli that a name belongs to, such as `engine`."""
    words = dotted.split(".")
    is_part = len(words) > 1 and any(words[1] in parts for parts in FLOORS)
    return words[1] if is_part else ""


def test_all_files_are_seen() -> None:
    assert len(FILES) >= 240


def test_every_part_has_one_floor() -> None:
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    parts = [part for parts in FLOORS for part in parts]
    assert sorted(parts) == sorted(found - {"__init__"} | {""})


def test_a_file_name_tells_its_file() -> None:
    names = Counter(path.name for path in FILES if path.stem != "__init__")
    assert [name for name, number in names.items() if number > 1] == []


def public_names(path: Path) -> Iterator[str]:
    """Yield what is defined at the top of a file for others."""
    for node in tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_tells_its_file() -> None:
    """Only what every method has is called the same everywhere: its options and its state."""
    counts = Counter(name for path in FILES for name in public_names(path))
    assert {name for name, number in counts.items() if number > 1} == {"Options", "State"}


def test_functions_are_verbs() -> None:
    """None is called after what has been done to what it returns: `merge`, not `merged`."""
    words = {
        (path.name, node.name): node.name.strip("_").split("_")[0]
        for path in FILES
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
    }
    done = re.compile(
        r"(?!need|seed|feed|embed|speed)\w+ed|found|known|told|own|one|gone|said|kept|left"
    )
    assert [place for place, word in words.items() if done.fullmatch(word)] == []


def test_the_walk_sees_every_kind_of_import() -> None:
    source = """
import os.path
from fpcli.engine import server as s
if TYPE_CHECKING:
    from fpcli.cli import app
class A:
    import yaml
def f():
    if True:
        import pickle
"""
    found = set(imports(ast.parse(source), PACKAGE / "x.py"))
    assert found == {"os.path", "fpcli.engine.server", "fpcli.cli.app", "yaml", "pickle"}


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_imports_from_lower_floors_only(path: Path) -> None:
    own = part_of(name_of(path))
    for dotted in imports(tree(path), path):
        part = part_of(dotted)
        if dotted.split(".")[0] == "fpcli" and part != own:
            assert floor_of(part) < floor_of(own), f"{place(path)} imports {dotted}"


def find_circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return names of which each leads to the next, the last of them to the first; [] if none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def import_graph() -> dict[str, set[str]]:
    """Return module -> modules of fpcli that it imports somewhere, for type checkers included."""
    paths = {name_of(path): path for path in FILES}
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for dotted in imports(tree(path), path):
            if dotted.split(".")[0] == "fpcli":
                module = dotted if dotted in paths else dotted.rpartition(".")[0]
                graph[name].add(module)
    return graph


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "e"}, "c": {"d"}, "d": {"b"}}
    circle = find_circle(graph)
    assert set(circle) == {"b", "c", "d"} and circle[0] == circle[-1]
    assert all(after in graph[before] for before, after in itertools.pairwise(circle))
    assert find_circle({"a": {"a"}})
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}})


def test_no_imports_of_packages_lead_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, modules in import_graph().items():
        graph[part_of(name)] |= {part_of(module) for module in modules} - {part_of(name)}
    circle = find_circle(graph)
    assert not circle, " -> ".join(circle)


def test_no_imports_of_files_lead_in_a_circle() -> None:
    graph = import_graph()
    assert {module for modules in graph.values() for module in modules} <= graph.keys()
    circle = find_circle(graph)
    assert not circle, " -> ".join(circle)


@pytest.mark.parametrize("path", FILES, ids=place)
def test_third_parties_are_met_in_their_place_only(path: Path) -> None:
    for dotted in imports(tree(path), path):
        package = dotted.split(".")[0]
        assert package not in NEVER, f"{place(path)} imports {dotted}"
        if package in ONLY_IN:
            assert place(path) in ONLY_IN[package], f"{place(path)} imports {dotted}"
        if package in ("typer", "click"):
            assert place(path).startswith("cli/"), f"{place(path)} imports {dotted}"


USED_BY_TORCHVISION = {"scipy"}
"""What torchvision needs to read a data set of ours, and does not bring itself."""


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {line.split(">=")[0].replace("-", "_") for line in project["dependencies"]}
    declared = names - {"scikit_learn", "pyyaml", "pillow"} | {"sklearn", "yaml", "PIL"}
    used = {
        dotted.split(".")[0] for path in FILES for dotted in imports(tree(path), path)
    } - sys.stdlib_module_names
    extras = {"wandb", "onnxruntime"}
    lines = [line for found in project["optional-dependencies"].values() for line in found]
    assert extras <= {line.split(">=")[0] for line in lines}
    assert used - {"fpcli"} - extras | USED_BY_TORCHVISION == declared


def test_no_function_has_more_than_60_lines() -> None:
    long = {
        f"{place(path)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    }
    assert not long


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "input"}
FORBIDDEN_ATTRIBUTES = {
    ("os", "system"), ("os", "popen"), ("yaml", "load"), ("yaml", "full_load"),
    ("yaml", "unsafe_load"), ("hashlib", "md5"), ("hashlib", "sha1"), ("tempfile", "mktemp"),
}  # fmt: skip
FORBIDDEN_KEYWORDS = {("shell", True), ("allow_pickle", True), ("weights_only", False)}
NEEDED_KEYWORDS = {("torch", "load"): "weights_only", ("np", "load"): "allow_pickle"}


def problems(node: ast.AST) -> Iterator[str]:
    """Yield what a tree does that no file may do."""
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        function = call.func
        if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
            yield function.id
        said = {
            (word.arg, word.value.value)
            for word in call.keywords
            if word.arg and isinstance(word.value, ast.Constant)
        }
        yield from (f"{name}={value!r}" for name, value in said & FORBIDDEN_KEYWORDS)
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            dotted = (function.value.id, function.attr)
            if dotted in FORBIDDEN_ATTRIBUTES:
                yield ".".join(dotted)
            needed = NEEDED_KEYWORDS.get(dotted)
            if needed and needed not in {name for name, _ in said}:
                yield f"{'.'.join(dotted)} without {needed}"


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec('')", "os.system('ls')", "yaml.load(x)", "torch.load(x)", "np.load(x)",
        "run(x, shell=True)", "np.load(x, allow_pickle=True)", "torch.load(x, weights_only=False)",
        "hashlib.md5()", "__import__('os')",
    ],
)  # fmt: skip
def test_a_forbidden_call_is_found(source: str) -> None:
    assert list(problems(ast.parse(source)))


@pytest.mark.parametrize("source", ["model.eval()", "np.load(x, allow_pickle=False)"])
def test_a_harmless_call_is_not(source: str) -> None:
    assert list(problems(ast.parse(source))) == []


@pytest.mark.parametrize("path", FILES, ids=place)
def test_nothing_runs_what_it_has_read(path: Path) -> None:
    assert list(problems(tree(path))) == []


NOT_OF_METHODS = tuple(
    f"fpcli.engine.{name}"
    for name in ("client.", "exchange", "federation", "planning", "receive", "server.", "site")
)
"""What only the engine does: bring messages to clients, choose cohorts, build sites."""


@pytest.mark.parametrize(
    "path", sorted(set((PACKAGE / "methods").glob("*.py")) - {PACKAGE / "methods/__init__.py"}),
    ids=place,
)  # fmt: skip
def test_a_method_stands_alone(path: Path) -> None:
    """It may extend one other method, whose class it says it is."""
    bases = {
        base
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        for base in map(ast.unparse, node.bases)
    }
    extended = {
        dotted.rpartition(".")[0]
        for dotted in imports(tree(path), path)
        if dotted.startswith("fpcli.methods.") and dotted.rpartition(".")[2] in bases
    }
    assert len(extended) <= 1
    for dotted in imports(tree(path), path):
        is_own = dotted.rpartition(".")[0] in extended or dotted in extended
        assert is_own or not dotted.startswith("fpcli.methods"), dotted
        assert not dotted.startswith("fpcli.engine.executors"), dotted
        assert not dotted.startswith(("fpcli.fleet.clock", "fpcli.wire")), dotted
        assert not dotted.startswith(tuple(f"fpcli.engine.{name}" for name in NOT_OF_METHODS)), (
            dotted
        )
        assert dotted.split(".")[0] not in {"yaml", "rich", "typer", "matplotlib"}, dotted


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a file, with the source of what is called."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


MESSAGES = {"Answer", "Ask", "Job", "Reply", "Task", "Work"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").rglob("*.py")), ids=place)
def test_the_engine_asks_no_message_what_it_is(path: Path) -> None:
    for name, call in calls(path):
        classes = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
        assert name != "isinstance" or not classes & MESSAGES, ast.unparse(call)


def test_rounds_are_planned_in_one_place() -> None:
    """A dry run, an export of a client's model and the round itself ask one function."""
    hooks = ("method.plan", "method.select", "hooks.plan")
    callers = {place(path) for path in FILES for name, _ in calls(path) if name.endswith(hooks)}
    assert callers == {"engine/planning.py"}
    askers = {
        place(path)
        for path in FILES
        for name, _ in calls(path)
        if name in ("foresee", "plan_round")
    }
    assert askers == {
        "cli/result.py", "engine/planning.py", "engine/server.py", "export/source.py",
    }  # fmt: skip


def test_one_function_judges_top1() -> None:
    judges = [place(path) for path in FILES if ".argmax(1) ==" in path.read_text()]
    assert judges == ["tasks/classify.py"]


def test_executors_know_only_what_a_client_does() -> None:
    for path in (PACKAGE / "engine/executors").glob("*.py"):
        for dotted in imports(tree(path), path):
            assert not dotted.startswith(("fpcli.engine.server", "fpcli.engine.method")), dotted


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that are loaded after a statement in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "numpy", "sklearn", "matplotlib", "torch_pruning", "safetensors"}


def test_tables_of_names_load_nothing_heavy() -> None:
    """Reading every table, and one that is looked up by name, imports no torch."""
    loaded = modules_after(
        "from fpcli import plugins, errors, units, methods, models, data, fleet, scores, wire\n"
        "for kind in plugins.TABLES: assert plugins.list_names(kind)"
    )
    assert not loaded & HEAVY


def test_the_command_line_starts_without_torch() -> None:
    assert not modules_after("import fpcli.cli.app") & HEAVY


READERS = (
    "--help", "train --help", "--version", "compare RUNS", "compare RUNS --md", "compare MODELS",
    "recipe list", "recipe show fedmp/digits", "recipe show fedmp/digits --resolved",
    "recipe show fedmp/digits --json", "recipe check SHIPPED", "recipe copy fedmp/digits DEST",
    "recipe schema", "recipe schema --method fedmp", "recipe schema --editor", "data list",
    "methods", "methods --kind pruning", "methods fedmp", "methods filters", "explain",
    "explain F301", "--show-completion bash",
    "report RUNS -o PAGE",  # the last, since it may load what draws
)  # fmt: skip
"""Commands that only read text, with words in capitals that stand for others."""

RUN_ALL = """
import contextlib, io, json, sys
from fpcli.cli.app import main
known = set()
for line in sys.stdin:
    sys.argv = ["fp", *json.loads(line)]
    status = 0
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    loaded = {name.split(".")[0] for name in sys.modules}
    print(json.dumps([status, sorted(loaded - known)]))
    known |= loaded
"""


def test_what_only_reads_text_imports_no_torch(tmp_path: Path) -> None:
    """Run the commands one after the other as a user does, and look at what each loads."""
    for method in ("fedavg", "fedmp"):
        write_run(tmp_path / "runs" / method, rounds(0.5), method__name=method)
    write_fit(tmp_path / "models" / "fit", 0.9)
    write_pruning(tmp_path / "models" / "half", 0.5, 0.8)
    stand_for = {
        "RUNS": [str(tmp_path / "runs")],
        "MODELS": [str(tmp_path / "models")],
        "DEST": [str(tmp_path)],
        "PAGE": [str(tmp_path / "page.html")],
        "SHIPPED": [str(path) for path in sorted((ROOT / "recipes").rglob("*.yaml"))],
    }
    lines = [
        json.dumps([part for word in words.split() for part in stand_for.get(word, [word])])
        for words in READERS
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input="\n".join(lines), capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    found = dict(zip(READERS, map(json.loads, done.stdout.splitlines()), strict=True))
    assert {words: status for words, (status, _) in found.items() if status} == {}
    draws = {"matplotlib", "numpy"}
    loaded = {
        words: HEAVY & {*modules} - (draws if words.startswith("report") else set())
        for words, (_, modules) in found.items()
    }
    assert {words: names for words, names in loaded.items() if names} == {}
