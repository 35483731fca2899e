"""Opaque: modules that the tracer is to leave alone, and which of them would have to be.

An opaque module is one operation whose inside nobody sees. It is not known to treat each channel by
itself, so whatever channels meet it, on either side, are protected, and its own tensors, which no
group names, stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fpcli.errors import LayoutError, suggest

_LAYERS = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm)
_MOST_TRIALS = 8


class _Call(torch.autograd.Function):
    """One operation in the graph, whatever is computed."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], *inputs: Any) -> Any:
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError  # nobody trains through a traced copy


class _Opaque(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that neither its modules nor its parameters are found.
        self._inside = (inside,)

    def forward(self, *inputs: Any, **more: Any) -> Any:
        return _Call.apply(lambda *given: self._inside[0](*given, **more), *inputs)


def hide_modules(model: nn.Module, names: Iterable[str]) -> None:
    """Make modules of a network opaque, in place.

    Raises:
        LayoutError: it has no such module.
    """
    modules = dict(model.named_modules())
    for name in names:
        if not name or name not in modules:
            raise LayoutError(
                f"{type(model).__name__} has no module `{name}`", hint=suggest(name, modules)
            )
        parent, _, last = name.rpartition(".")
        setattr(modules[parent], last, _Opaque(modules[name]))


def match_modules(model: nn.Module, words: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that words name, patterns with ``*`` among them, the outermost only.

    >>> net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
    >>> match_modules(net, ["0*"]), match_modules(net, ["*.0", "2"])
    (('0',), ('0.0',))
    """
    names: list[str] = []
    for name, _ in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in names)
        if name and not is_inside and any(fnmatchcase(name, word) for word in words):
            names.append(name)
    return tuple(names)


def find_obstacle(model: nn.Module, is_solved: Callable[[tuple[str, ...]], bool]) -> list[str]:
    """Return words for the modules without which a network can be traced; none if none are found.

    All modules of one class are taken at once: those of others before those of torch, which the
    tracer knows, and small ones before large ones. Layers with channels of their own never are.

    Args:
        is_solved: modules -> is there something to prune once these are opaque?
    """
    by_class: dict[type, list[str]] = {}
    for name, module in model.named_modules():
        if name and not isinstance(module, _LAYERS):
            by_class.setdefault(type(module), []).append(name)
    modules = dict(model.named_modules())

    def rank(kind: type) -> tuple[bool, int]:
        size = sum(x.numel() for name in by_class[kind] for x in modules[name].parameters())
        return kind.__module__.startswith("torch.nn."), size

    for kind in sorted(by_class, key=rank)[:_MOST_TRIALS]:
        words = _shorten(by_class[kind])
        if is_solved(match_modules(model, words)):
            return words
    return []


def _shorten(names: Sequence[str]) -> list[str]:
    """Put one pattern in the place of several numbered modules.

    >>> _shorten(["stem", "stage1.0", "stage1.1", "stage2.0"])
    ['stem', 'stage1.*', 'stage2.0']
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"\b\d+$", "*", name), []).append(name)
    return [word if len(same) > 1 else same[0] for word, same in alike.items()]


def explain_obstacle(error: LayoutError, words: Sequence[str]) -> LayoutError:
    """Return the error with the options of `fp prune` that get round it."""
    if not words:
        return error
    flags = " ".join(f"--ignore '{word}'" if "*" in word else f"--ignore {word}" for word in words)
    return LayoutError(
        error.message,
        hint=f"`fp prune` with `{flags}` leaves that alone, and prunes what does not meet it",
        where=error.where,
    )
