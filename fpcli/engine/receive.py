"""Decide whether a reply may be merged: what is provably wrong is rejected by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fpcli.engine.types import LARGEST, Plan, Probe, is_finite
from fpcli.errors import WireError
from fpcli.fleet.devices import Point
from fpcli.structure.layout import Layout
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
        code: ``F401`` unreadable or not of this job, ``F402`` non-finite, ``F403`` shape, ``F404``
            names, ``F405`` type, ``F406`` count, ``F407`` outside the planned support, ``F408``
            the client reports an error, ``F409`` late, ``F410`` no reply.

    Those of simulated clients that drop out stand in ``DROPPED``.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def check_update(
    reply: Reply,
    plan: Plan,
    layout: Layout,
    mask: Mapping[str, Tensor],
    *,
    num_examples: int,
    may_choose_mask: bool,
) -> None:
    """Check a training reply against its plan.

    Args:
        mask: the plan's masks in block coordinates.
        num_examples: training samples that the client is registered with.
        may_choose_mask: True where the method lets clients narrow their own mask.

    Raises:
        Rejected: with the first thing that is wrong.
    """
    check_envelope(reply)
    shapes = plan.support.block_shapes(layout)
    if reply.tensors.keys() != shapes.keys():
        odd = sorted(reply.tensors.keys() ^ shapes.keys())[0]
        raise Rejected("F404", f"missing or unexpected tensor `{odd}`")
    for name, value in reply.tensors.items():
        if tuple(value.shape) != shapes[name]:
            raise Rejected(
                "F403", f"`{name}` has shape {tuple(value.shape)}, planned {shapes[name]}"
            )
        if value.dtype != torch.float32:
            raise Rejected("F405", f"`{name}` has type {value.dtype}, not float32")
    check_finite(reply)
    if not 0 < reply.num_examples <= num_examples:
        raise Rejected("F406", f"{reply.num_examples} samples; the client has {num_examples}")
    if reply.num_steps < 0 or not abs(reply.metrics.get("loss", math.nan)) <= LARGEST:
        raise Rejected("F406", "no finite training loss, or a negative number of steps")
    own = {**mask, **(reply.mask or {})}
    if reply.mask is not None and not may_choose_mask:
        raise Rejected("F407", "a mask of its own, which this method does not allow")
    for name, part in own.items():
        if name not in shapes or tuple(part.shape) != shapes[name]:
            raise Rejected("F407", f"a mask for `{name}` that fits no planned tensor")
        if name in mask and bool((part & ~mask[name]).any()):
            raise Rejected("F407", f"`{name}` is outside the planned support")
        if bool(reply.tensors[name][~part].any()):
            raise Rejected("F407", f"`{name}` has a value where its mask has none")


def check_envelope(reply: Reply) -> None:
    """Refuse a reply in which the client reports an error.

    Raises:
        Rejected: F408.
    """
    if reply.error:
        raise Rejected("F408", reply.error)


def check_finite(reply: Reply) -> None:
    """Refuse tensors with NaN or infinity.

    Raises:
        Rejected: F402 with the tensor's name.
    """
    for name, value in (*reply.tensors.items(), *reply.stats.items()):
        if value.is_floating_point() and not is_finite(value):
            raise Rejected("F402", f"non-finite values in `{name}`")


def check_address(
    reply: Reply, task: Plan | Probe, op: str, round: int, run: str, codec: str
) -> None:
    """Refuse a reply to another job, or by another codec than the run's.

    Raises:
        WireError: run, round, client, operation or codec differ.
    """
    if reply.run != run:
        raise WireError("a reply of another run")
    expected = (op, round, task.client)
    if (reply.op, reply.round, reply.client) != expected:
        raise WireError(
            f"a reply to {(reply.op, reply.round, reply.client)} where {expected} was asked"
        )
    if reply.codec != codec and not reply.error:
        raise WireError(f"a reply by codec `{reply.codec}`; this run uses `{codec}`")
