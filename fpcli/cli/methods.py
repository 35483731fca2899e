"""`fp methods`: what can be trained with, and each method's options."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from fpcli.cli import options as o
from fpcli.cli.session import Session, one_line
from fpcli.cli.words import make_importable
from fpcli.errors import FpError, UsageError, nearest

PRUNING = "pruning"
KINDS = ("dense", "structured", "masks", "personalised", "unlearning", "control", PRUNING)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="One method, with its options.", autocompletion=o.names("methods")
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help=f"Only these: {', '.join(KINDS)} (default: all).",
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
            item["kind"],
            item["paper"],
            "yes" if item["clients_differ"] else "no",
            ", ".join(item["runs"]),
        )
        for item in items
    ]
    headers = ("method", "kind", "paper", "clients differ", "runs today")
    session.finish({"items": items}, show.table(headers, rows))
    session.warn()
    session.hint("`fp methods NAME` shows what a method does and its options")


def _show(session: Session, name: str) -> None:
    from fpcli.cli import show
    from fpcli.plugins import lookup, names
    from fpcli.recipe.schema import options_table

    make_importable([name])
    is_pruner = name in names("pruners") and name not in names("methods")
    method = lookup("pruners" if is_pruner else "methods", name)
    item = _item(name, method)
    table = options_table(method.Options)
    item["options"] = [row._asdict() for row in table]
    rows = [(row.name, row.default, row.type, one_line(row.doc)) for row in table]
    options = show.table(("option", "default", "value", "meaning"), rows) if rows else "no options"
    facts = show.table(
        ("", ""),
        (
            ("kind", item["kind"]),
            ("paper", item["paper"]),
            ("clients differ", "yes" if item["clients_differ"] else "no"),
        ),
    )
    session.finish({"items": [item]}, f"{item['summary']}\n\n{facts}\n\n{options}")
    more = " --set method.OPTION=VALUE" if table else ""
    does = (
        f"`fp prune --method {name}{more}` prunes"
        if is_pruner
        else (f"`fp train --method {name}{more}` trains")
    )
    session.hint(f"{does} with it; its page is recipes/{name}/README.md")


def _item(name: str, method: Any) -> dict[str, Any]:
    is_federated = hasattr(method, "clients_differ")
    return {
        "name": name,
        "kind": method.kind if is_federated else PRUNING,
        "paper": method.source,
        "clients_differ": is_federated and method.clients_differ,
        "runs": ["pool", "inline"] if is_federated else ["fp prune"],
        "summary": _summary(method),
    }


def _summary(method: Any) -> str:
    """Return the first paragraph of the module's docstring, which speaks of the paper."""
    text = inspect.getdoc(inspect.getmodule(method)) or inspect.getdoc(method) or ""
    return one_line(text.partition("\n\n")[0])
