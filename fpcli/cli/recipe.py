"""`fp recipe`: the shipped recipes, and what may stand in one of your own."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fpcli.cli import options as o
from fpcli.cli.session import Session, emit
from fpcli.errors import FpError, RecipeError, UsageError, nearest

app = typer.Typer(help="List, show, copy and check recipes; list their keys.")


def _shipped_names(incomplete: str) -> list[str]:
    from fpcli.recipe.load import shipped_names

    return [name for name in shipped_names() if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A shipped recipe, or a file.", autocompletion=_shipped_names
    ),
]
MethodOnly = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Only recipes of this method (default: all).",
        autocompletion=o.names("methods"),
    ),
]
Resolved = Annotated[
    bool, typer.Option("--resolved", metavar="", help="Print every key with its value.")
]
Destination = Annotated[
    Path | None,
    typer.Argument(metavar="DEST", help="File or folder (default: METHOD-NAME.yaml here)."),
]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace a file that exists.")]
Files = Annotated[
    list[str], typer.Argument(metavar="FILE", help="Recipes of yours, or shipped ones.")
]
Prefix = Annotated[
    str | None,
    typer.Argument(metavar="PREFIX", help="Only these keys: `local`, `task.partition`, ..."),
]
OptionsOf = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="With the options of this method (default: none).",
        autocompletion=o.names("methods"),
    ),
]
Editor = Annotated[
    bool,
    typer.Option(
        "--editor", metavar="", help="Print a JSON schema that editors complete and check by."
    ),
]


@app.command("list")
def list_(
    ctx: typer.Context, method: MethodOnly = None, json: o.Json = False, debug: o.Debug = False
) -> None:
    """List the shipped recipes and what to expect of them."""
    from fpcli.cli import show
    from fpcli.plugins import names
    from fpcli.recipe.load import shipped_names

    known = names("methods") | names("pruners")
    if method is not None and method not in known:
        hint = nearest(method, known) or "`fp methods` lists all"
        raise UsageError(f"unknown method `{method}`", hint=hint, where="--method")
    items = [_item(name, path) for name, path in shipped_names().items()]
    items = [item for item in items if method in (None, item["method"])]
    rows = [
        (
            item["name"],
            item["command"],
            item["paper"],
            _expectation(item),
            "?" if item["minutes"] is None else f"{item['minutes']:g}",
            item["machine"],
        )
        for item in items
    ]
    headers = ("recipe", "command", "paper", "expected", "minutes", "machine")
    session: Session = ctx.obj
    session.finish({"items": items}, show.table(headers, rows, right=(4,)))
    session.hint("`fp recipe show NAME` shows one, `fp COMMAND -c NAME` runs it")


def _item(name: str, path: Path) -> dict[str, Any]:
    from fpcli.recipe.header import read_header
    from fpcli.recipe.load import load_any
    from fpcli.recipe.schema import FitRecipe

    command, recipe = load_any(path)
    kind = "smoke" if name.startswith("smoke/") else "recipe"
    method = None if isinstance(recipe, FitRecipe) else recipe.method.name
    task = {"method": method, "data": recipe.task.data, "model": recipe.task.model}
    return {"name": name, "kind": kind, "command": command, **task, **asdict(read_header(path))}


def _expectation(item: Mapping[str, Any]) -> str:
    if item["expected"] is None:
        return "not measured"
    of = {
        "best_accuracy": " (best)",
        "clients_accuracy": " (clients)",
        "local_accuracy": " (local)",
    }.get(item["measure"], "")
    return f"{item['expected']:.1%} ± {100 * item['tolerance']:.1f}{of}"


@app.command()
def show(
    ctx: typer.Context,
    name: Name,
    resolved: Resolved = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Print a recipe as it is written."""
    from fpcli.recipe.load import find_recipe, flatten, load_any, to_yaml

    path = find_recipe(name)
    _, recipe = load_any(path)
    text = to_yaml(recipe) if resolved else path.read_text("utf-8")
    data = {"name": name, "path": str(path), "text": text, "recipe": flatten(recipe)}
    ctx.obj.finish(data, text.rstrip("\n"))


@app.command()
def copy(
    ctx: typer.Context,
    name: Name,
    dest: Destination = None,
    force: Force = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Copy a recipe to change it."""
    from fpcli.files import write_atomic
    from fpcli.recipe.load import command_of, find_recipe

    source = find_recipe(name)
    usual = f"{source.parent.name}-{source.name}"
    path = dest / usual if dest is not None and dest.is_dir() else dest or Path(usual)
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists", hint="`--force` replaces it, or name another file", where="DEST"
        )
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint="make it first", where="DEST")
    write_atomic(path, source.read_bytes())
    ctx.obj.finish({"path": str(path), "source": str(source)}, f"wrote {path}")
    command = command_of(source)
    ctx.obj.hint(f"`fp recipe check {path}` finds mistakes, `fp {command} -c {path}` runs it")


@app.command()
def check(ctx: typer.Context, file: Files, json: o.Json = False, debug: o.Debug = False) -> None:
    """Check recipes without running them; exit 3 if one is wrong."""
    from fpcli.cli import show as screen

    items, errors = [], []
    for name in file:
        try:
            items.append({"file": name, "ok": True, **_checked(name)})
        except FpError as error:
            errors.append(error)
            about = {"message": error.message, "hint": error.hint, "where": error.where}
            items.append({"file": name, "ok": False, **about})
    rows = [
        (item["file"], "ok", item["summary"])
        if item["ok"]
        else (item["file"], "wrong", " ".join([item["message"], item["hint"]]).strip())
        for item in items
    ]
    failed: FpError | None = errors[0] if errors else None
    if len(errors) > 1:
        message = f"{len(errors)} of {len(items)} recipes are wrong"
        failed = RecipeError(message, hint="the lines above say where")
    ctx.obj.finish({"items": items}, screen.table(("", "", ""), rows), failed)


def _checked(name: str) -> dict[str, Any]:
    from fpcli.recipe.load import find_recipe, load_any
    from fpcli.recipe.schema import FitRecipe, Recipe

    command, recipe = load_any(find_recipe(name))
    words = [f"fp {command}", f"{recipe.task.data}, {recipe.task.model}"]
    if not isinstance(recipe, FitRecipe):
        words[1:1] = [recipe.method.name]
    if isinstance(recipe, Recipe):
        words.append(f"{recipe.task.clients} clients, {recipe.rounds} rounds")
    return {"summary": ", ".join(words)}


@app.command()
def schema(
    ctx: typer.Context,
    prefix: Prefix = None,
    method: OptionsOf = None,
    editor: Editor = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List the keys of a recipe with types, defaults and meanings."""
    from fpcli.cli import show as screen
    from fpcli.recipe.editor import json_schema, key_table

    if editor:
        emit(json_module.dumps(json_schema(), indent=2))
        return
    keys = key_table(method)
    found = [row for row in keys if prefix is None or f"{row.name}.".startswith(f"{prefix}.")]
    if not found:
        known = {".".join(row.name.split(".")[:end]) for row in keys for end in (1, 2, 3)}
        raise UsageError(
            f"no key is called or starts with `{prefix}`",
            hint=nearest(prefix or "", sorted(known)) or "`fp recipe schema` lists all keys",
            where="PREFIX",
        )
    rows = [(row.name, row.default, row.type, row.doc) for row in found]
    table = screen.table(("key", "default", "value", "meaning"), rows)
    ctx.obj.finish({"keys": [row._asdict() for row in found]}, table)
    if method is None:
        ctx.obj.hint("`--method NAME` adds the options of a method")
