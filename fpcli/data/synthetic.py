"""Sequences that are made from a fixed seed, and say so: what can be learned of them is known."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpcli.data.arrays import Indices
from fpcli.data.next_item import leave_one_out
from fpcli.rng import derive

NOISE = 0.2
"""Share of items that are drawn from all alike."""

_MARKOV_ITEMS, _MARKOV_USERS = 100, 300
_MARKOV_SHORTEST, _MARKOV_LONGEST = 20, 40

_ITEMS, _TOPICS, _USERS = 500, 20, 2000
_SHORTEST, _LONGEST = 10, 60
_NEXT_TOPICS = (0.6, 0.3, 0.1)
_PERIODS = (3, 8)


def markov(data_dir: Path | None) -> dict[str, Any]:
    """Return the histories of 300 users with 100 items, 20 to 40 each, of a Markov chain.

    The next item depends on the newest one alone, as `make_transitions` says; so the best that any
    model can do is known: see `find_optimum`.
    """
    rng = np.random.default_rng(derive(0, "markov"))
    ends = make_transitions().cumsum(1)
    path = rng.integers(_MARKOV_ITEMS, size=(_MARKOV_LONGEST, _MARKOV_USERS))
    for before, after in pairwise(path):
        after[:] = _draw(ends[before], rng)
    lengths = _spread(_MARKOV_SHORTEST, _MARKOV_LONGEST, _MARKOV_USERS)
    return _arrays("markov", path.T + 1, lengths, _MARKOV_ITEMS) | {
        "notes": ("synthetic: a Markov chain with 20 % noise, made from a fixed seed",)
    }


def make_transitions() -> NDArray[np.float64]:
    """Return the chain of `markov`: the chance of every next item, ``[items, items]`` by the newest
    one; rows sum to 1.

    An item has 2 to 5 likely successors other than itself, of which each is half as likely as the
    one before it, 80 % together; the other 20 % are spread over all items alike.
    """
    rng = np.random.default_rng(derive(0, "markov/transitions"))
    chances = np.full((_MARKOV_ITEMS, _MARKOV_ITEMS), NOISE / _MARKOV_ITEMS)
    for item, row in enumerate(chances):
        weights = 0.5 ** np.arange(2 + item % 4)
        others = np.delete(np.arange(_MARKOV_ITEMS), item)
        successors = rng.choice(others, len(weights), replace=False)
        row[successors] += (1 - NOISE) * weights / weights.sum()
    return chances


def find_optimum(newest: Indices) -> dict[str, float]:
    """Return what the best possible model of `markov` is expected to reach.

    It ranks items by their chance given the newest one, p_1 >= p_2 >= ..., and meets the one of
    rank r with chance p_r: HR@k is the sum of p_1..p_k, NDCG@k that of p_r / log2(r + 1) there, and
    the reciprocal rank that of p_r / r over all, each as a mean over the samples.

    Args:
        newest: id of each sample's newest item, 1..100, ``[n]``.

    Returns:
        ``hr@1``, ``hr@5``, ``hr@10``, ``ndcg@5``, ``ndcg@10`` and ``mrr``.
    """
    chances = -np.sort(-make_transitions()[newest - 1], axis=1).mean(0)
    ranks = np.arange(1, _MARKOV_ITEMS + 1)
    gains = chances / np.log2(ranks + 1)
    best = {f"hr@{cut}": chances[:cut].sum() for cut in (1, 5, 10)}
    best |= {f"ndcg@{cut}": gains[:cut].sum() for cut in (5, 10)} | {"mrr": (chances / ranks).sum()}
    return {name: float(value) for name, value in best.items()}


def rec_synth(data_dir: Path | None) -> dict[str, Any]:
    """Return the histories of 2,000 users with 500 items of 20 topics, 10 to 60 each.

    A user goes from topic to topic by a Markov chain (three likely next topics each, 60, 30 and
    10 %). Every k-th item, with a period k of 3 to 8 of the user's own, is from the user's
    favourite topic instead. Within a topic the r-th of its 25 items is taken with a chance
    proportional to 1/r. Then 20 % of all items are replaced by one drawn from all alike: noise,
    which the chain does not notice.
    """
    rng = np.random.default_rng(derive(0, "rec-synth"))
    ends = _chain_topics(rng).cumsum(1)
    topics = rng.integers(_TOPICS, size=(_LONGEST, _USERS))
    for before, after in pairwise(topics):
        after[:] = _draw(ends[before], rng)
    periods = rng.integers(_PERIODS[0], _PERIODS[1] + 1, _USERS)
    is_habit = (np.arange(_LONGEST)[:, None] + rng.integers(periods)) % periods == 0
    topics = np.where(is_habit, rng.integers(_TOPICS, size=_USERS), topics)
    members = rng.permutation(_ITEMS).reshape(_TOPICS, -1)
    popularity = 1 / np.arange(1, members.shape[1] + 1)
    ranks = rng.choice(members.shape[1], topics.shape, p=popularity / popularity.sum())
    is_noise = rng.random(topics.shape) < NOISE
    items = np.where(is_noise, rng.integers(_ITEMS, size=topics.shape), members[topics, ranks])
    lengths = _spread(_SHORTEST, _LONGEST, _USERS)
    return _arrays("rec-synth", items.T + 1, lengths, _ITEMS) | {
        "notes": ("synthetic: topics, habits and 20 % noise, made from a fixed seed",)
    }


def _chain_topics(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the chance of every next topic, ``[topics, topics]``."""
    chances = np.zeros((_TOPICS, _TOPICS))
    for row in chances:
        row[rng.choice(_TOPICS, len(_NEXT_TOPICS), replace=False)] = _NEXT_TOPICS
    return chances


def _draw(ends: NDArray[np.float64], rng: np.random.Generator) -> Indices:
    """Return one number per row of cumulated chances."""
    chosen: Indices = (ends < rng.random((len(ends), 1))).sum(1)
    return chosen.clip(max=ends.shape[1] - 1)


def _spread(shortest: int, longest: int, count: int) -> Indices:
    """Return ``count`` lengths, each as often as any other."""
    return shortest + np.arange(count) % (longest - shortest + 1)


def _arrays(source: str, histories: Indices, lengths: Indices, num_items: int) -> dict[str, Any]:
    """Return the arrays of the first ``lengths`` items of each history."""
    is_there = np.arange(histories.shape[1]) < lengths[:, None]
    users = np.repeat(np.arange(len(lengths)), lengths)
    return leave_one_out(source, users, histories[is_there], num_items)
