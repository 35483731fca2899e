from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from annotated_types import Ge
from typer.main import get_command

from fpcli.cli.build_command import build_command, read_options, restore_help
from fpcli.errors import UsageError
from fpcli.settings.flags import Flag
from fpcli.settings.keys import collect_flags

WAIT = Flag("--wait TIME", "How long", "Run", reads="seconds")
GOAL = Flag("--goal acc=X", "What for", before="--wait")


@dataclass(frozen=True)
class Made:
    """A made-up recipe."""

    wait_s: Annotated[float, Ge(0), WAIT] = 90.0
    hidden: int = 1
    goal: Annotated[str | None, GOAL] = None
    many: Annotated[tuple[str, ...], Flag("--one WORD", "Words; may be repeated")] = ()
    workers: Annotated[int, Flag("--workers auto|N", "How many", words={"auto": 0})] = 0


@dataclass(frozen=True)
class Typed:
    """Options that the parser checks."""

    count: Annotated[int, Ge(1), Flag("-n/--count N", "How often")] = 3


def command(function: Callable[..., None], **more: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(build_command(function, **more))
    made: Any = get_command(app)
    restore_help(made)
    return made


def test_fields_become_options_in_their_order_and_with_their_defaults() -> None:
    def run(
        ctx: typer.Context,
        name: Annotated[str, Flag("NAME", "Whose")],
        set_: Annotated[list[str] | None, Flag("--set KEY=VALUE", "Set keys")] = None,
        force: Annotated[bool, Flag("--force", "Replace it")] = False,
    ) -> None:
        """Do it."""
        given = read_options(ctx.params, collect_flags(Made))
        if "many" in given:  # a tuple, with older parsers
            given["many"] = list(given["many"])
        seen.append((name, set_, force, given))

    seen: list[Any] = []
    made = command(run, flags=collect_flags(Made))
    helps = {item.name: item.help for item in made.params}
    assert helps == {
        "name": "Whose.",
        "set_": "Set keys.",
        "goal": "What for (default: none).",
        "wait": "How long (default: 90s).",
        "one": "Words; may be repeated.",
        "workers": "How many (default: auto).",
        "force": "Replace it.",
    }
    words = ["a", "--wait", "2m", "--one", "x", "--one", "y", "--workers", "auto", "--force"]
    made.main([*words, "--goal", "acc=0.5"], standalone_mode=False)
    given = {"goal": "acc=0.5", "wait_s": 120.0, "many": ["x", "y"], "workers": 0}
    assert seen == [("a", None, True, given)]
    made.main(["a", "--wait", "none"], standalone_mode=False)
    assert seen[1:] == [("a", None, False, {"wait_s": "none"})]


def test_a_section_comes_as_a_whole_with_its_bounds() -> None:
    def run(ctx: typer.Context, *, typed: Typed) -> None:
        """Do it."""
        seen.append(typed)

    seen: list[Typed] = []
    made = command(run)
    made.main([], standalone_mode=False)
    made.main(["-n", "7"], standalone_mode=False)
    assert seen == [Typed(3), Typed(7)]
    with pytest.raises(Exception, match=r"greater than or equal to 1|x>=1"):
        made.main(["--count", "0"], standalone_mode=False)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [("wait_s", "soon", "--wait: `soon` is not a number")],
)
def test_words_that_an_option_cannot_read(key: str, text: str, message: str) -> None:
    options = {flag.parameter: None for flag in collect_flags(Made).values()}
    options |= {collect_flags(Made)[key].parameter: text}
    with pytest.raises(UsageError, match=message):
        read_options(options, collect_flags(Made))
