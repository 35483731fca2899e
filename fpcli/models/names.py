"""Names of networks with what may follow them: ``NAME[-gn][@WIDTH]``."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from fpcli import plugins
from fpcli.errors import UsageError
from fpcli.models import MODELS
from fpcli.settings.declared import arguments_of

GROUP_NORM = "-gn"
WIDEST = 10.0
_NAME = re.compile(rf"(?P<base>[^@]*?)(?P<norm>{GROUP_NORM})?(?:@(?P<width>.*))?")


@dataclass(frozen=True)
class ModelName:
    """A name, taken apart.

    Attributes:
        base: the name proper.
        has_group_norm: whether group norm takes the place of batch norm.
        width: factor of all widths; None where none was said.
    """

    base: str
    has_group_norm: bool = False
    width: float | None = None


def parse_model_name(name: str) -> ModelName:
    """Take a name apart; whether such a network exists is not asked.

    Raises:
        UsageError: what follows ``@`` is no number above 0 and up to 10.

    >>> parse_model_name("vgg16-gn@0.5")
    ModelName(base='vgg16', has_group_norm=True, width=0.5)
    >>> parse_model_name("resnet20")
    ModelName(base='resnet20', has_group_norm=False, width=None)
    """
    match = _NAME.fullmatch(name)
    assert match is not None, "every text matches"
    base, norm, text = match.group("base", "norm", "width")
    if text is None:
        return ModelName(base, norm is not None)
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0 < width <= WIDEST:
        raise UsageError(
            f"model `{name}`: width `{text}` is not a number above 0 and up to {WIDEST:g}",
            hint=f"write for example `{base}{_suffix(norm, text)}@0.5`",
        )
    return ModelName(base, norm is not None, width)


def find_model_name(name: str) -> ModelName:
    """Take the name of a registered network apart.

    Raises:
        UsageError: no network is registered under that name, it has no other widths, it is of
            another package and cannot be imported, or as in :func:`parse_model_name`.
    """
    wanted = parse_model_name(name)
    table = plugins.list_names("models")
    if wanted.base not in table:
        front = wanted.base.rpartition("-")[0]
        names = [*table, front + GROUP_NORM] if front in table else [*table]
        theirs = {other: plugins.TORCHVISION + other for other in list_torchvision()}
        written = {other: text for other, text in theirs.items() if other not in table}
        raise UsageError(
            f"unknown model `{name}`",
            hint=plugins.suggest_name("models", name, [*names, *theirs], written),
        )
    if wanted.width is not None and not _has_width(wanted.base):
        raise no_width(name)
    return wanted


def list_torchvision() -> list[str]:
    """Return the names of torchvision's networks for classification."""
    from torchvision import models  # takes a second

    # Only the top module: networks for detection would fetch weights for their backbone.
    return models.list_models(module=models)


def no_width(name: str) -> UsageError:
    """Return the error for a width of a network that has but one."""
    able = [other for other in MODELS if _has_width(other)]
    return UsageError(
        f"model `{name}`: this network has one width only",
        hint=f"those with others: {', '.join(able)}",
    )


def _has_width(base: str) -> bool:
    if plugins.is_shipped("models", base):
        return "width" in arguments_of(plugins.find_reference("models", base))
    return "width" in inspect.signature(plugins.lookup("models", base)).parameters


def complete(incomplete: str) -> list[str]:
    """Return the names that begin like this, with group norm only behind a whole one.

    >>> complete("vgg16"), complete("vgg16-")
    (['vgg16', 'vgg16-gn'], ['vgg16-gn'])
    """
    table = plugins.list_names("models")
    names = [*table, *(name + GROUP_NORM for name in table if incomplete.startswith(name))]
    return [name for name in names if name.startswith(incomplete)]


def _suffix(norm: str | None, text: str) -> str:
    """Return the suffix that was meant, also if it stands in the wrong place."""
    return GROUP_NORM if norm or text.endswith(GROUP_NORM) else ""
