"""`fp methods`: what can be trained with, and each method's traits and options."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Annotated, Any

import typer

from fpcli import plugins
from fpcli.cli.session import Session, join_lines
from fpcli.cli.words import make_importable
from fpcli.engine.traits import Traits
from fpcli.errors import FpError, UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.declared import describe
from fpcli.settings.flags import Flag

PRUNING = "pruning"
KIND_BY_CUT = {"nothing": "dense", "channels": "structured", "weights": "masks"}
_KINDS = (*KIND_BY_CUT.values(), "personalised", "unlearning", PRUNING)

_Name = Annotated[
    str | None, Flag("[NAME]", "One method, with its traits and options", known="methods")
]
_Kind = Annotated[
    str | None,
    Flag(
        "--kind KIND",
        f"Only these: {', '.join(_KINDS)}",
        default=f"all but {PRUNING}",
        known=_KINDS,
    ),
]


def run_methods(
    ctx: typer.Context,
    name: _Name = None,
    kind: _Kind = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """List methods (`--kind pruning`: of `fp prune`), or show one."""
    if kind is not None and kind not in _KINDS:
        raise UsageError(
            f"--kind: unknown kind `{kind}`",
            hint=suggest(kind, _KINDS) or f"known: {', '.join(_KINDS)}",
            where="--kind",
        )
    if name is None:
        _list(ctx.obj, kind)
    else:
        _show(ctx.obj, name)


def _list(session: Session, kind: str | None) -> None:
    from fpcli.cli import show

    items = []
    table = "pruners" if kind == PRUNING else "methods"
    for name in plugins.list_names(table):
        try:
            items.append(_item(name, _describe(table, name)))
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
    session.finish({"items": items}, show.align(headers, rows, text=(2, 5), leave=(5, 4, 3)))
    session.warn()
    session.hint("`fp methods NAME` shows what a method does and its options")


def _show(session: Session, name: str) -> None:
    from fpcli.cli import show
    from fpcli.settings.fields import list_options

    make_importable([name])
    is_listed = name in plugins.list_names("pruners") and name not in plugins.list_names("methods")
    kind = "pruners" if is_listed else "methods"
    method = _describe(kind, name)
    item = _item(name, method)
    table = list_options(method.Options)
    item["options"] = [row._asdict() for row in table]
    rows = [(row.name, row.default, row.type, join_lines(row.doc)) for row in table]
    head = ("option", "default", "value", "meaning")
    options = show.align(head, rows, text=(2, 3)) if rows else "no options"
    is_pruner = item["kind"] == PRUNING
    words = item["traits"] if is_pruner else method.traits.to_words()
    facts = show.align(("", ""), [("paper", item["paper"]), *words.items()])
    session.finish({"items": [item]}, f"{show.prose(item['summary'])}\n\n{facts}\n\n{options}")
    more = " --set method.OPTION=VALUE" if table else ""
    verb, does = ("prune", "prunes") if is_pruner else ("train", "trains")
    page = f"; its page is recipes/{name}/README.md" if plugins.is_shipped(kind, name) else ""
    session.hint(f"`fp {verb} --method {name}{more}` {does} with it{page}")


def _describe(table: str, name: str) -> Any:
    """Return a method that is known to be one.

    Raises:
        UsageError: it is none; or as for :func:`describe`.
        NeedError: as for :func:`describe`.
    """
    declared = describe(table, name)
    if not plugins.is_shipped(table, name):
        from fpcli.engine.method import Method
        from fpcli.pruning.pruner import Pruner

        if not (isinstance(declared, type) and issubclass(declared, Method | Pruner)):
            raise UsageError(
                f"`{name}` is no method: it is no subclass of `fpcli.engine.method.Method`",
                hint="`fp methods` lists those that are known",
                where=name,
            )
    return declared


def _item(name: str, method: Any) -> dict[str, Any]:
    """Return what is told about a method, or about a pruner, which has no traits."""
    item: dict[str, Any] = {"name": name, "paper": method.source, "summary": _summary(method)}
    traits: Traits | None = getattr(method, "traits", None)
    if traits is None:
        return item | {
            "kind": PRUNING,
            "clients_differ": False,
            "runs": ["fp prune"],
            "traits": {"cuts": "channels" if method.is_structured else "weights"},
        }
    return item | {
        "kind": _kind(traits),
        "clients_differ": traits.sub_models == "own",
        "runs": ["pool", "inline"],
        "traits": asdict(traits),
    }


def _kind(traits: Traits) -> str:
    if traits.models == "personal":
        return "personalised"
    if traits.starts_pruned and traits.cuts == "channels":
        return "unlearning"
    return KIND_BY_CUT[traits.cuts]


def _summary(method: Any) -> str:
    """Return the first paragraph of the module's docstring, which speaks of the paper."""
    text = inspect.getdoc(inspect.getmodule(method)) or inspect.getdoc(method) or ""
    return join_lines(text.partition("\n\n")[0])
