"""Commands from flags: a function and a recipe's fields in, a command of typer out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial, update_wrapper, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Le

from fpcli import plugins
from fpcli.cli.completion import find_completer
from fpcli.errors import UsageError
from fpcli.settings.fields import is_share
from fpcli.settings.flags import Flag, describe_default, split_flag
from fpcli.settings.keys import Leaf, in_order, list_leaves
from fpcli.units import parse_seconds


def build_command(
    function: Callable[..., None], flags: Mapping[str, Flag] | None = None
) -> Callable[..., None]:
    """Return a function whose signature typer reads a command from.

    Args:
        function: what runs; its first parameter gets the context, the others are options that are
            no settings, each with a ``Flag`` in its annotation; one whose type is a section, a
            frozen class of such fields, stands for an option per field.
        flags: key -> option of every setting; they come behind ``--set``, as the words that were
            said, which the recipe's loader checks, so that an option and a recipe's key accept the
            same and fail with the same message. The function finds them in ``ctx.params``.
    """
    hints = get_type_hints(function, include_extras=True)
    context, *others = signature(function).parameters.values()
    options: dict[str, Leaf] = {}
    for item in others:
        if is_dataclass(hint := hints[item.name]):
            options |= list_leaves(hint)  # type: ignore[arg-type]
        else:
            plain, flag = split_flag(hint)
            options[item.name] = Leaf(plain, item.default, flag)
    parameters = [context.replace(annotation=hints[context.name])]
    flagged = {name: leaf.flag for name, leaf in options.items() if leaf.flag}
    assert flagged.keys() == options.keys(), "an option has no Flag"
    for name, flag in in_order(flagged).items():
        parameters.append(_parameter(name, options[name].hint, options[name].default, flag))
        if name == "set_":
            parameters += [
                _parameter(
                    option.parameter,
                    list[str] | None if option.is_list else str | None,
                    None,
                    option,
                )
                for option in (flags or {}).values()
            ]

    @wraps(function)
    def command(**given: Any) -> None:
        values = {
            item.name: hints[item.name](
                **{option.name: given[option.name] for option in fields(hints[item.name])}
            )
            if is_dataclass(hints[item.name])
            else given[item.name]
            for item in others
        }
        function(given[context.name], **values)

    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _parameter(name: str, hint: Any, default: Any, flag: Flag) -> Parameter:
    # Older parsers ask a reader for its name.
    read_share = update_wrapper(partial(_read_share, hint, flag), _read_share)
    reader = read_share if is_share(hint) else None
    hint, bounds = _without_bounds(hint)
    make: Any = typer.Option if flag.names else typer.Argument
    info = make(
        ... if default is Parameter.empty else default,
        *flag.names,
        metavar=flag.metavar,
        help=_help(flag, default),
        rich_help_panel=flag.panel,
        show_default=False,
        show_envvar=False,
        envvar=flag.envvar,
        autocompletion=find_completer(flag),
        path_type=Path,  # older versions leave words in `ctx.params`
        **({"parser": reader} if reader else bounds),
    )
    return Parameter(name, Parameter.KEYWORD_ONLY, default=info, annotation=hint)


def restore_help(command: Any) -> None:
    """Give the arguments of a command, and of those in it, the texts that they were made with.

    Between them, versions of typer and click that fit by their numbers (0.20 and 8.5) lose those.
    """
    for inner in getattr(command, "commands", {}).values():
        restore_help(inner)
    for item in command.params:
        if item.param_type_name == "argument" and not item.help:
            item.help = signature(command.callback).parameters[item.name].default.help


def _read_share(hint: Any, flag: Flag, text: str) -> Any:
    """Return a share as a recipe's key of this type would read it."""
    from fpcli.recipe.resolve import Setting, check_value

    return check_value(flag.parameter, Leaf(hint, None), Setting(text, flag.name, is_in_file=False))


def _without_bounds(hint: Any) -> tuple[Any, dict[str, float]]:
    """Return a type of one number as the parser knows it, and its bounds."""
    inner = next((part for part in get_args(hint) if get_origin(part) is Annotated), hint)
    if get_origin(inner) is not Annotated:
        return hint, {}
    base, *metadata = get_args(inner)
    bounds: list[tuple[str, Any]]
    bounds = [("min", item.ge) for item in metadata if isinstance(item, Ge)]
    bounds += [("max", item.le) for item in metadata if isinstance(item, Le)]
    return (base if inner is hint else base | None), dict(bounds)


def _help(flag: Flag, default: Any) -> str:
    text = flag.help
    if "{names}" in text:
        text = text.replace(
            "{names}", ", ".join(plugins.load_reference(plugins.TABLES[str(flag.known)]))
        )
    has_default = default not in (None, Parameter.empty)
    usual = describe_default(flag, default) if has_default else flag.default
    return f"{text} (default: {usual})." if usual else f"{text.removesuffix('.')}."


def read_options(options: Mapping[str, Any], flags: Mapping[str, Flag]) -> dict[str, Any]:
    """Return dotted key -> value of every setting that the options of a call give.

    Raises:
        UsageError: a value cannot be read as its option says.
    """
    given = {}
    for key, flag in flags.items():
        value = options[flag.parameter]
        if value not in (None, [], ()):
            given[key] = _read(flag, value)
    return given


def _read(flag: Flag, value: Any) -> Any:
    if flag.reads == "seconds" and value not in ("none", "null"):
        try:
            return parse_seconds(value)
        except ValueError as error:
            raise UsageError(
                f"{flag.name}: {error}", hint=f"`{flag.name} 60s`", where=flag.name
            ) from error
    return flag.words.get(value, value) if flag.words else value
