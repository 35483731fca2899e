"""`fp methods`: what can be trained with, and each method's traits and options."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fpcli.cli import options as o
from fpcli.cli.session import Session, one_line
from fpcli.cli.words import make_importable
from fpcli.errors import FpError, UsageError, nearest

if TYPE_CHECKING:
    from fpcli.engine.method import Traits

PRUNING = "pruning"
KIND_BY_CUT = {"nothing": "dense", "channels": "structured", "weights": "masks"}
KINDS = (*KIND_BY_CUT.values(), "personalised", "unlearning", PRUNING)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="One method, with its traits and options.",
        autocompletion=o.names("methods"),
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help=f"Only these: {', '.join(KINDS)} (default: all but {PRUNING}).",
        autocompletion=o.words(*KINDS),
    ),
]


def methods(
    ctx: typer.Context,
    name: Name = None,
    kind: Kind = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List the federated methods (`--kind pruning`: those of `fp prune`), or show one."""
    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"--kind: unknown kind `{kind}`",
            hint=nearest(kind, KINDS) or f"known: {', '.join(KINDS)}",
            where="--kind",
        )
    if name is None:
        _list(ctx.obj, kind)
    else:
        _show(ctx.obj, name)


def _list(session: Session, kind: str | None) -> None:
    from fpcli.cli import show
    from fpcli.plugins import lookup, names

    items = []
    table = "pruners" if kind == PRUNING else "methods"
    for name in names(table):
        try:
            items.append(_item(name, lookup(table, name)))
        except FpError as error:  # of another package
            session.warnings.append(f"method `{name}`: {error.message}")
    items = [item for item in items if kind in (None, item["kind"])]
    rows = [
        (
            item["name"],
            item["traits"]["cuts"],
            item["paper"],
            "yes" if item["clients_differ"] else "no",
            item["traits"].get("models", "one"),
            ", ".join(item["runs"]),
        )
        for item in items
    ]
    headers = ("method", "cuts", "paper", "sub-models differ", "models", "runs")
    session.finish({"items": items}, show.table(headers, rows))
    session.warn()
    session.hint("`fp methods NAME` shows what a method does and its options")


def _show(session: Session, name: str) -> None:
    from fpcli.cli import show
    from fpcli.plugins import lookup, names
    from fpcli.recipe.schema import options_table

    make_importable([name])
    is_listed = name in names("pruners") and name not in names("methods")
    method = lookup("pruners" if is_listed else "methods", name)
    item = _item(name, method)
    table = options_table(method.Options)
    item["options"] = [row._asdict() for row in table]
    rows = [(row.name, row.default, row.type, one_line(row.doc)) for row in table]
    options = show.table(("option", "default", "value", "meaning"), rows) if rows else "no options"
    is_pruner = item["kind"] == PRUNING
    words = item["traits"] if is_pruner else method.traits.to_words()
    facts = show.table(("", ""), [("paper", item["paper"]), *words.items()])
    session.finish({"items": [item]}, f"{item['summary']}\n\n{facts}\n\n{options}")
    more = " --set method.OPTION=VALUE" if table else ""
    verb, does = ("prune", "prunes") if is_pruner else ("train", "trains")
    page = f"; its page is recipes/{name}/README.md" if _is_ours(method) else ""
    session.hint(f"`fp {verb} --method {name}{more}` {does} with it{page}")


def _item(name: str, found: Any) -> dict[str, Any]:
    """Return what is told about a method.

    Raises:
        UsageError: it is none.
    """
    from fpcli.engine.method import Method
    from fpcli.pruning.method import Pruner

    if not (isinstance(found, type) and issubclass(found, Method | Pruner)):
        raise UsageError(
            f"`{name}` is no method: it is no subclass of `fpcli.engine.method.Method`",
            hint="`fp methods` lists those that are known",
            where=name,
        )
    item = {"name": name, "paper": found.source, "summary": _summary(found)}
    if issubclass(found, Pruner):
        cuts = "channels" if found.is_structured else "weights"
        return item | {
            "kind": PRUNING,
            "clients_differ": False,
            "runs": ["fp prune"],
            "traits": {"cuts": cuts},
        }
    return item | {
        "kind": _kind(found.traits),
        "clients_differ": found.traits.sub_models == "own",
        "runs": ["pool", "inline"],
        "traits": asdict(found.traits),
    }


def _kind(traits: Traits) -> str:
    if traits.models == "personal":
        return "personalised"
    if traits.starts_pruned and traits.cuts == "channels":
        return "unlearning"
    return KIND_BY_CUT[traits.cuts]


def _is_ours(method: type) -> bool:
    return method.__module__.startswith("fpcli.")


def _summary(method: Any) -> str:
    """Return the first paragraph of the module's docstring, which speaks of the paper."""
    text = inspect.getdoc(inspect.getmodule(method)) or inspect.getdoc(method) or ""
    return one_line(text.partition("\n\n")[0])
