"""From what users did, in the order of time, to sequences of items and the item that comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.arrays import Indices, group_by_label
from fpcli.data.npz import MAX_BYTES
from fpcli.data.split import SPLIT_PARTS, Split
from fpcli.errors import DataError
from fpcli.rng import derive

USUAL_LENGTH = 50
"""Items of a sequence, unless another number is said: that of FMLP-Rec and SASRec."""


def filter_core(users: Indices, items: Indices, core: int) -> Indices:
    """Return sorted indices of the interactions that remain when users and items with fewer than
    ``core`` of them leave, again and again until none does.

    Args:
        users: number of each interaction's user, ``[n]``.
        items: likewise of its item.

    >>> users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    >>> filter_core(users, items, 2).tolist()
    [0, 1, 2, 3]
    """
    kept = np.arange(len(users))
    while True:
        counts = (np.bincount(x[kept])[x[kept]] for x in (users, items))
        is_core = np.logical_and(*(count >= core for count in counts))
        if is_core.all():
            return kept
        kept = kept[is_core]


def leave_one_out(
    source: str, users: Indices, items: Indices, num_items: int, length: int = USUAL_LENGTH
) -> dict[str, Any]:
    """Return the arrays of a data set that is to be ranked.

    A user's last item is for testing, the last but one for validation; every prefix of the others
    predicts the item that follows it. A sequence has the newest ``length`` items before the one to
    be predicted. Users with fewer than three interactions are trained on only.

    Args:
        source: named in errors.
        users: 0..U-1, ``[n]``, ascending: one user's interactions are together, the newest last.
        items: ids 1..num_items, ``[n]``.

    Raises:
        DataError: no user has four interactions, or the sequences need too much memory.

    Source: FMLP-Rec (arXiv 2202.13556), whose code takes prefixes of the last ``length``
    training items only; short users as in SASRec (Kang and McAuley, ICDM 2018).

    >>> made = leave_one_out("x", np.zeros(5, int), np.array([3, 1, 4, 1, 5]), 5, length=2)
    >>> made["train_images"].tolist(), made["train_labels"].tolist()
    ([[0, 3], [3, 1]], [0, 3])
    >>> made["val_images"].tolist(), made["val_labels"].tolist()
    ([[1, 4]], [0])
    >>> made["test_images"].tolist(), made["test_labels"].tolist()
    ([[4, 1]], [4])
    """
    sizes = np.bincount(users)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)  # of the user's interactions
    after = first + sizes[users] - 1 - np.arange(len(users))  # so many follow
    is_judged = sizes[users] >= 3
    is_last, is_before = is_judged & (after == 0), is_judged & (after == 1)
    is_begun = np.arange(len(users)) > first
    rows = dict(
        zip(SPLIT_PARTS, (is_begun & ~is_last & ~is_before, is_before, is_last), strict=True)
    )
    if not (rows["train"].any() and is_last.any()):
        raise DataError(
            f"{source}: no user has the 4 interactions that training, validation and test need",
            hint="give longer histories",
            where=source,
        )
    if 2 * length * len(users) > MAX_BYTES:
        raise DataError(
            f"{source}: {len(users):,} sequences of {length} items need more than "
            f"{MAX_BYTES // 2**30} GiB",
            hint="take a smaller length, or leave users out",
            where=source,
        )
    compact = items.astype(np.int16 if num_items < 2**15 else np.int32)
    arrays: dict[str, Any] = {"task": "rank", "num_items": num_items}
    for part, is_there in rows.items():
        places = np.flatnonzero(is_there)
        arrays |= {
            f"{part}_images": _look_back(compact, places, first[places], length),
            f"{part}_labels": items[places] - 1,
            f"{part}_owners": users[places],
        }
    return arrays


def _look_back(items: NDArray[Any], places: Indices, first: Indices, length: int) -> NDArray[Any]:
    """Return the items before each place, ``[places, length]``, but none before its ``first``."""
    windows = np.zeros((len(places), length), items.dtype)
    for back in range(1, length + 1):
        before = places - back
        windows[:, -back] = np.where(before >= first, items[before.clip(0)], 0)
    return windows


def add_negatives(
    source: str, splits: Mapping[str, Split], num_items: int, number: int
) -> dict[str, Split]:
    """Return splits whose validation and test samples have negatives.

    These are drawn once per user, from a fixed seed and without replacement, from the items that
    the user meets nowhere, be it in training, validation or test.

    Args:
        source: named in errors.
        splits: all parts, owners included.
        number: of negatives of a sample, 1 or more.

    Raises:
        DataError: validation or test samples have no owners, or a user has met too many items.

    Source: FMLP-Rec's evaluation (arXiv 2202.13556, section 4.1), with 99 of them.
    """
    owners = {part: _require_owners(source, part, split) for part, split in splits.items()}
    rows = {
        part: {int(owner[m[0]]): m for m in group_by_label(owner)} for part, owner in owners.items()
    }
    judged = sorted({*rows["val"], *rows["test"]})
    drawn = {user: _draw_unmet(source, splits, rows, user, num_items, number) for user in judged}
    return {
        part: split
        if part == "train"
        else replace(split, negatives=torch.stack([drawn[user] for user in owners[part].tolist()]))
        for part, split in splits.items()
    }


def _require_owners(source: str, part: str, split: Split) -> Indices:
    if split.owners is None:
        raise DataError(
            f"{source}: no array `{part}_owners`, by which sampled negatives are told",
            hint="bring it, or leave task.sampled_negatives out",
            where=source,
        )
    return split.owners.numpy()


def _draw_unmet(
    source: str,
    splits: Mapping[str, Split],
    rows: Mapping[str, Mapping[int, Indices]],
    user: int,
    num_items: int,
    number: int,
) -> Tensor:
    """Return columns of items that a user never meets, int64 ``[number]``."""
    is_met = np.zeros(num_items + 1, np.bool_)
    for part, split in splits.items():
        if user in rows[part]:
            chosen = torch.from_numpy(rows[part][user])
            is_met[split.images[chosen].numpy()] = True
            is_met[split.labels[chosen].numpy() + 1] = True
    unmet = np.flatnonzero(~is_met[1:])
    if len(unmet) < number:
        raise DataError(
            f"{source}: user {user} has met {num_items - len(unmet):,} of {num_items:,} items, so "
            f"that {number:,} others cannot be sampled",
            hint=f"set task.sampled_negatives to {len(unmet)} or less",
            where="task.sampled_negatives",
        )
    rng = np.random.default_rng(derive(0, "negatives", client=user))
    return torch.from_numpy(rng.choice(unmet, number, replace=False))
