"""Flags: how a field of a recipe, or another parameter of a command, is given as an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

TASK, METHOD, TRAINING, FLEET, RUN, OUTPUT = (
    "Task", "Method", "Training", "Fleet", "Run", "Output",
)  # fmt: skip
AMOUNT, RETRAINING = "How much", "Retraining"


@dataclass(frozen=True)
class Flag:
    """An option of the command line, as the metadata of an annotation.

    Attributes:
        usage: its names with slashes between, and what stands for its value: ``-c/--recipe FILE``;
            a switch has no value, and an argument no name.
        help: what it does, without the last full stop; ``{names}`` are those of ``known``. Empty
            means the first sentence of the text literal under the field.
        panel: of the help; none means what the field's class has as ``panel``, if anything.
        default: how the default reads in the help, which says nothing about an empty one; None
            reads the value.
        known: what completes it: words (those of a ``Literal`` need no saying), a kind of
            ``plugins.TABLES``, or ``recipes``, ``runs``, ``settings`` or ``sources`` (of models).
        reads: what it understands beside the field's own values.
        words: other words for values, such as ``auto`` for 0.
        before: the option that it stands ahead of, where that is not the order of the fields.
        envvar: variable that it is read from where it is not given.
        is_list: it may be repeated.
    """

    usage: str
    help: str = ""
    panel: str | None = None
    default: str | None = None
    known: str | tuple[str, ...] = ()
    reads: Literal["seconds"] | None = None
    words: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    before: str = ""
    envvar: str | None = None
    is_list: bool = False

    @property
    def names(self) -> list[str]:
        """All its names, the longest last; an argument has none."""
        return self.usage.split()[0].split("/") if self.usage.startswith("-") else []

    @property
    def metavar(self) -> str:
        """What stands for its value."""
        return self.usage.partition(" ")[2] if self.names else self.usage

    @property
    def name(self) -> str:
        """The longest of its names."""
        return self.names[-1]

    @property
    def parameter(self) -> str:
        """Its name among a call's parameters: `data_dir` of `--data-dir`."""
        return self.name.lstrip("-").replace("-", "_")


def describe_default(flag: Flag, value: Any) -> str:
    """Return how a default reads in the help.

    >>> describe_default(Flag("--wait TIME", "How long", reads="seconds"), 600.0)
    '10m'
    """
    if flag.default is not None:
        return flag.default
    for word, meant in flag.words.items():
        if meant == value:
            return word
    if value is None or value in ("", {}):
        return "none"
    if isinstance(value, bool | tuple):
        return ""
    if flag.reads == "seconds":
        return f"{value:g}s" if value % 60 else f"{value / 60:g}m"
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_flag(hint: Any) -> tuple[Any, Flag | None]:
    """Return a type without the option that its annotation brings, and that option."""
    base, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    flag = None
    for item in metadata:
        if isinstance(item, Flag):
            flag = item
        else:
            base = Annotated[base, item]
    return base, flag
