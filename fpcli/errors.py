"""Every error that a user can cause, with its code and the exit status it leads to.

::

    FpError                 a message that names the thing, the place and the remedy
    ├── UsageError          exit 2   wrong word, key or value on the command line
    ├── RecipeError         exit 3   wrong key or value in a recipe
    ├── DataError           exit 3   missing, corrupt or unsuitable data
    ├── LayoutError         exit 3   a network that cannot be traced, or a support that misfits it
    ├── CodeError           exit 3   code of the user's own that fails
    ├── WireError           exit 4   bytes that are not a job or a reply of this run
    ├── ClientError         exit 4   too few usable replies in a round
    ├── NeedError           exit 5   something is missing on this machine
    ├── ResumeError         exit 6   nothing valid to resume
    ├── DivergedError       exit 7   the model or its loss is no longer finite
    └── CheckError          exit 8   finished, but a requested check failed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fpcli.synonyms import find_nearest


class FpError(Exception):
    """An error that is reported in one line, followed by a hint, without a traceback.

    Args:
        message: what is wrong and where, in one line.
        hint: what to do about it, in one line; empty when the message says it all.
        code: the short name of the error (``F201``); the class has a default, and
            ``error_pages`` says what all of them mean.
        where: a file, option or tensor, for machine-readable output.
    """

    exit_status = 1
    code = "F100"

    def __init__(self, message: str, *, hint: str = "", code: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.where = where


class UsageError(FpError):
    """A wrong word, key or value on the command line."""

    exit_status = 2
    code = "F201"


class RecipeError(FpError):
    """A wrong key or value in a recipe."""

    exit_status = 3
    code = "F301"


class DataError(FpError):
    """Data that is missing, corrupt or does not fit the task."""

    exit_status = 3
    code = "F311"


class LayoutError(FpError):
    """A network that cannot be traced, or a support that does not fit the network."""

    exit_status = 3
    code = "F321"


class CodeError(FpError):
    """Code of the user's own, named on the command line, that fails."""

    exit_status = 3
    code = "F331"


class WireError(FpError):
    """Bytes that are not a job or a reply, or not one of this run."""

    exit_status = 4
    code = "F401"


class ClientError(FpError):
    """Too few clients gave a usable reply."""

    exit_status = 4
    code = "F420"


class NeedError(FpError):
    """Something the run needs is missing on this machine (extra, disk, device, server data)."""

    exit_status = 5
    code = "F501"


class ResumeError(FpError):
    """There is nothing valid to resume."""

    exit_status = 6
    code = "F601"


class DivergedError(FpError):
    """The model or its loss is no longer finite."""

    exit_status = 7
    code = "F701"


class CheckError(FpError):
    """The work finished, but a check that was asked for failed."""

    exit_status = 8
    code = "F801"


def first_line(error: Exception) -> str:
    """Return the first line of what an error of a library says, or its kind if it says nothing.

    >>> first_line(ValueError("a\\nb")), first_line(AssertionError())
    ('a', 'AssertionError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggest(
    word: str, names: Iterable[str], written: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return a hint of the form ``did you mean `x`?``, or an empty text when nothing is near.

    Args and what counts as near: see :func:`synonyms.find_nearest`.

    >>> suggest("fedmpp", ["fedavg", "fedmp"]), suggest("noniid", ["iid", "dirichlet"])
    ('did you mean `fedmp`?', 'did you mean `dirichlet`?')
    """
    meant = [f"`{name}`" for name in find_nearest(word, names, written)]
    return f"did you mean {' or '.join(meant)}?" if meant else ""
