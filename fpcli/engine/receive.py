"""Decide whether a reply may be merged: what is provably wrong is rejected by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fpcli.engine.types import LARGEST, Ask, Support, Work, is_finite
from fpcli.errors import LayoutError, WireError
from fpcli.fleet.devices import Point
from fpcli.structure.layout import Layout
from fpcli.structure.masks import narrow_support
from fpcli.wire.headers import Envelope
from fpcli.wire.message import Reply

DROPPED: Mapping[Point, tuple[str, str]] = {
    "before": ("F411", "before its job arrived"),
    "training": ("F412", "during training"),
    "after": ("F413", "after its upload"),
}
"""When a simulated client drops out -> code and words."""


class Rejected(Exception):  # noqa: N818 - it is no error of the program
    """A reply that is not merged.

    Args:
        code: one of ``error_pages.PAGES``.
        reason: in words, with the tensor's name.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def check_trained(
    reply: Reply,
    ask: Ask,
    layout: Layout,
    mask: Mapping[str, Tensor],
    *,
    num_examples: int,
    may_mask: bool,
    may_narrow: bool,
) -> None:
    """Check a training reply against what was asked.

    Args:
        layout: what travels.
        mask: the masks that were sent, in block coordinates.
        num_examples: training samples that the client is registered with.
        may_mask: True where the method lets clients bring masks.
        may_narrow: True where it lets them narrow what they hold, whole channels included.

    Raises:
        Rejected: with the first thing that is wrong.
    """
    shapes, work = ask.support.block_shapes(layout), reply.work
    if work.values.keys() != shapes.keys():
        odd = sorted(work.values.keys() ^ shapes.keys())[0]
        raise Rejected("F404", f"missing or unexpected tensor `{odd}`")
    for name, value in work.values.items():
        if tuple(value.shape) != shapes[name]:
            raise Rejected(
                "F403", f"`{name}` has shape {tuple(value.shape)}, planned {shapes[name]}"
            )
        if value.dtype != torch.float32:
            raise Rejected("F405", f"`{name}` has type {value.dtype}, not float32")
    check_finite(work)
    if not 0 < reply.num_examples <= num_examples:
        raise Rejected("F406", f"{reply.num_examples} samples; the client has {num_examples}")
    if work.num_steps < 0 or not abs(work.metrics.get("loss", math.nan)) <= LARGEST:
        raise Rejected("F406", "no finite training loss, or a negative number of steps")
    if work.mask is not None and not may_mask:
        raise Rejected("F407", "a mask of its own, which this method does not allow")
    for name, part in {**mask, **(work.mask or {})}.items():
        if name not in shapes or tuple(part.shape) != shapes[name]:
            raise Rejected("F407", f"a mask for `{name}` that fits no planned tensor")
        if name in mask and bool((part & ~mask[name]).any()):
            raise Rejected("F407", f"`{name}` is outside the planned support")
        if bool(work.values[name][~part].any()):
            raise Rejected("F407", f"`{name}` has a value where its mask has none")
    if work.stay and not may_narrow:
        raise Rejected("F407", "channels of its own choice, which this method does not allow")
    _check_stay(ask.support, layout, work.stay)


def _check_stay(support: Support, layout: Layout, stay: Mapping[str, Tensor]) -> None:
    """Refuse channels that are not among those a client was sent, or that cannot leave."""
    for name, stays in stay.items():
        group = layout.groups.get(name)
        if group is None:
            raise Rejected("F407", f"channels for `{name}`, which is no group")
        num_sent = len(support.keep.get(name, range(group.width)))
        if stays.dtype != torch.bool or list(stays.shape) != [num_sent]:
            raise Rejected("F407", f"channels for `{name}` that are not those it was sent")
    try:
        Support(narrow_support(layout, support, stay).keep).check(layout)
    except LayoutError as error:
        raise Rejected("F407", error.message) from error


def check_envelope(reply: Reply) -> None:
    """Refuse a reply in which the client reports an error.

    Raises:
        Rejected: F408.
    """
    if reply.error:
        raise Rejected("F408", reply.error)


def check_finite(work: Work) -> None:
    """Refuse tensors with NaN or infinity.

    Raises:
        Rejected: F402 with the tensor's name.
    """
    for name, value in (*work.values.items(), *work.stats.items()):
        if value.is_floating_point() and not is_finite(value):
            raise Rejected("F402", f"non-finite values in `{name}`")


def check_address(reply: Reply, envelope: Envelope, codec: str) -> None:
    """Refuse a reply to another job, or by another codec than the run's.

    Raises:
        WireError: run, round, client, operation or codec differ.
    """
    if reply.envelope.run != envelope.run:
        raise WireError("a reply of another run")
    got, expected = ((e.op, e.round, e.client) for e in (reply.envelope, envelope))
    if got != expected:
        raise WireError(f"a reply to {got} where {expected} was asked")
    if reply.codec != codec and not reply.error:
        raise WireError(f"a reply by codec `{reply.codec}`; this run uses `{codec}`")
