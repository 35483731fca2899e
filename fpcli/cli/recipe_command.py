"""`fp recipe`: the shipped recipes, and what may stand in one of your own."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fpcli.cli.build_command import build_command
from fpcli.cli.session import Session, emit
from fpcli.errors import FpError, RecipeError, UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.flags import Flag
from fpcli.settings.metrics import find_measured

_Name = Annotated[str, Flag("NAME", "A shipped recipe, or a file", known="recipes")]
MethodOnly = Annotated[
    str | None, Flag("--method NAME", "Only recipes of this method", default="all", known="methods")
]
Resolved = Annotated[bool, Flag("--resolved", "Print every key with its value")]
Destination = Annotated[
    Path | None, Flag("DEST", "File or folder", default="METHOD-NAME.yaml here")
]
Files = Annotated[list[str], Flag("FILE", "Recipes of yours, or shipped ones", known="recipes")]
_Prefix = Annotated[str | None, Flag("PREFIX", "Only these keys: `local`, `task.partition`, ...")]
OptionsOf = Annotated[
    str | None,
    Flag("--method NAME", "With the options of this method", default="none", known="methods"),
]
Editor = Annotated[bool, Flag("--editor", "Print a JSON schema that editors complete and check by")]


def list_recipes(
    ctx: typer.Context,
    method: MethodOnly = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """List the shipped recipes and what to expect of them."""
    from fpcli.cli import show
    from fpcli.plugins import list_names
    from fpcli.recipe.load import name_shipped
    from fpcli.settings.keys import list_leaves
    from fpcli.settings.recipes import RECIPE_KINDS

    names = list_names("methods") | list_names("pruners")
    if method is not None and method not in names:
        hint = suggest(method, names) or "`fp methods` lists all"
        raise UsageError(f"unknown method `{method}`", hint=hint, where="--method")
    usual = {
        command: {key: leaf.default for key, leaf in list_leaves(cls).items()}
        for command, cls in RECIPE_KINDS.items()
    }
    items = [_item(name, path, usual) for name, path in name_shipped().items()]
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
    session.finish(
        {"items": items}, show.align(headers, rows, right=(4,), text=(2, 5), leave=(5, 1, 4))
    )
    session.hint("`fp recipe show NAME` shows one, `fp COMMAND -c NAME` runs it")


def _item(name: str, path: Path, usual: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from fpcli.models import DEFAULT_MODEL
    from fpcli.recipe.header import read_header
    from fpcli.recipe.load import choose_command, read_settings

    # As written: checking all of them takes longer than the list.
    settings = {key: setting.value for key, setting in read_settings(path).items()}
    command = choose_command(settings)
    values = {**usual[command], **settings}
    kind = "smoke" if name.startswith("smoke/") else "recipe"
    data = values["task.data"]
    model = values["task.model"] or DEFAULT_MODEL.get(data, "")
    task = {"method": values.get("method.name"), "data": data, "model": model}
    return {"name": name, "kind": kind, "command": command, **task, **asdict(read_header(path))}


def _expectation(item: Mapping[str, Any]) -> str:
    if item["expected"] is None:
        return "not measured"
    metric = find_measured(item["measure"])
    prefix = item["measure"].removesuffix(metric.name).removesuffix("_") if metric else ""
    value, half = item["expected"], item["tolerance"]
    if metric and metric.is_share:
        text = f"{value:.1%} ± {100 * half:.1f}"
    else:
        text = f"{value:g} ± {half:g}"
    name = "" if item["measure"].endswith("accuracy") or not metric else f"{metric.name} "
    return name + text + (f" ({prefix})" if prefix else "")


def show_recipe(
    ctx: typer.Context,
    name: _Name,
    resolved: Resolved = False,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Print a recipe as it is written."""
    from fpcli.recipe.load import find_recipe, flatten, load_any, to_yaml

    path = find_recipe(name)
    data: dict[str, Any] = {"name": name, "path": str(path), "text": path.read_text("utf-8")}
    if resolved or ctx.obj.is_json:
        _, recipe = load_any(path)
        data["recipe"] = flatten(recipe)
        if resolved:
            data["text"] = to_yaml(recipe)
    ctx.obj.finish(data, data["text"].rstrip("\n"))


def copy_recipe(
    ctx: typer.Context,
    name: _Name,
    dest: Destination = None,
    force: o.ReplaceFile = False,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Copy a recipe to change it."""
    from fpcli.files import write_atomic
    from fpcli.recipe.load import find_command, find_recipe

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
    command = find_command(source)
    ctx.obj.hint(f"`fp recipe check {path}` finds mistakes, `fp {command} -c {path}` runs it")


def check_recipes(
    ctx: typer.Context, file: Files, json: o.JsonOutput = False, debug: o.Debug = False
) -> None:
    """Check recipes without running them; exit 3 if one is wrong."""
    from fpcli.cli import show as screen

    items, errors = [], []
    for name in file:
        try:
            items.append({"file": name, "ok": True, **_check(name)})
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
    ctx.obj.finish({"items": items}, screen.align(("", "", ""), rows), failed)


def _check(name: str) -> dict[str, Any]:
    from fpcli.recipe.load import find_recipe, load_any
    from fpcli.settings.recipes import FitRecipe, Recipe

    command, recipe = load_any(find_recipe(name))
    words = [f"fp {command}", f"{recipe.task.data}, {recipe.task.model}"]
    if not isinstance(recipe, FitRecipe):
        words[1:1] = [recipe.method.name]
    if isinstance(recipe, Recipe):
        words.append(f"{recipe.task.clients} clients, {recipe.rounds} rounds")
    return {"summary": ", ".join(words)}


def show_schema(
    ctx: typer.Context,
    prefix: _Prefix = None,
    method: OptionsOf = None,
    editor: Editor = False,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """List the keys of a recipe with types, defaults and meanings."""
    from fpcli.cli import show as screen
    from fpcli.recipe.editor import list_keys, make_json_schema
    from fpcli.settings.declared import describe

    if editor:
        emit(json_module.dumps(make_json_schema(), indent=2))
        return
    keys = list_keys(options=describe("methods", method).Options if method else None)
    chosen = [row for row in keys if prefix is None or f"{row.name}.".startswith(f"{prefix}.")]
    if not chosen:
        prefixes = {".".join(row.name.split(".")[:end]) for row in keys for end in (1, 2, 3)}
        raise UsageError(
            f"no key is called or starts with `{prefix}`",
            hint=suggest(prefix or "", sorted(prefixes)) or "`fp recipe schema` lists all keys",
            where="PREFIX",
        )
    rows = [(row.name, row.default, row.type, row.doc) for row in chosen]
    table = screen.align(("key", "default", "value", "meaning"), rows, text=(2, 3))
    ctx.obj.finish({"keys": [row._asdict() for row in chosen]}, table)
    if method is None:
        ctx.obj.hint("`--method NAME` adds the options of a method")


recipe_app = typer.Typer(help="List, show, copy and check recipes; list their keys.")
for name, command in (
    ("list", list_recipes), ("show", show_recipe), ("copy", copy_recipe),
    ("check", check_recipes), ("schema", show_schema),
):  # fmt: skip
    recipe_app.command(name)(build_command(command))
