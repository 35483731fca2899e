"""Ranking: which item comes next in a sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.tasks.learning_task import Batch, LearningTask, Score

CUTS = (1, 5, 10)
"""The K of HR@K, and but for the first of NDCG@K."""

PRIMARY = "ndcg@10"


def find_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Return how many other items come before the right one: int64 ``[b]``.

    An item with an equal score, or with one that is no number, comes before it: a model that tells
    nothing apart must not look good.

    Args:
        scores: of all items, ``[b, items]``.
        target: the right item's column, int64 ``[b]``.

    >>> find_ranks(torch.tensor([[0.5, 0.1, 0.9], [0.0, 0.0, 0.0]]), torch.tensor([0, 1])).tolist()
    [1, 2]
    """
    right = scores.gather(1, target[:, None])
    return (~(scores < right)).sum(1) - 1


def judge_ranks(ranks: Tensor) -> dict[str, float]:
    """Return NDCG@10, the primary metric, HR@K, the other NDCG@K and MRR, means over the samples.

    With a single right item at rank r, counted from 0, HR@K is 1 for r < K; NDCG@K is 1/log2(r+2)
    there; the reciprocal rank is 1/(r+1).

    Args:
        ranks: int64 ``[n]``.

    Source: FMLP-Rec's evaluation (arXiv 2202.13556, section 4.1).

    >>> values = judge_ranks(torch.tensor([0, 3, 9, 10, 57]))
    >>> [round(values[name], 6) for name in ("hr@1", "hr@10", "ndcg@5", "ndcg@10", "mrr")]
    [0.2, 0.6, 0.286135, 0.343948, 0.29163]
    >>> list(values)
    ['ndcg@10', 'hr@1', 'hr@5', 'hr@10', 'ndcg@5', 'mrr']
    """
    ranks = ranks.double()
    gains = 1 / torch.log2(ranks + 2)
    ndcg = {f"ndcg@{cut}": torch.where(ranks < cut, gains, 0.0) for cut in CUTS[1:]}
    values = {PRIMARY: ndcg[PRIMARY]} | {f"hr@{cut}": (ranks < cut).double() for cut in CUTS}
    values |= {**ndcg, "mrr": 1 / (ranks + 1)}
    return {name: float(value.mean()) if len(ranks) else 0.0 for name, value in values.items()}


@dataclass(frozen=True)
class Rank(LearningTask):
    """Samples are sequences of item ids 1..num_outputs, 0 in front where they are shorter; a
    network returns a score for each item, that of item i in column i-1; labels are columns.

    Where evaluation samples bring columns of sampled items behind the right one, metrics among
    these come beside those over all items, as ``sampled_...``. They flatter a model: most of a
    hundred random items are easy to tell from the right one.

    Attributes:
        num_sampled: items that every evaluation sample brings.
    """

    kind: ClassVar[str] = "rank"
    primary_name: ClassVar[str] = PRIMARY
    answers: ClassVar[str] = "items"
    num_sampled: Annotated[int, Ge(0)] = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """NDCG@10, the others over all items, and those among sampled ones if there are any."""
        plain = tuple(judge_ranks(torch.zeros(1)))
        return plain + tuple(f"sampled_{name}" for name in plain if self.num_sampled)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return -log s(x+) - log(1 - s(x-)) of one batch, its mean, with s the logistic function,
        x+ the score of the right item and x- that of one drawn from all items which are neither in
        the sequence nor right; torch's generator draws it.

        Source: FMLP-Rec's official code.
        """
        x, columns = batch
        target, scores = columns.view(len(x), -1)[:, 0], model(x)
        drawn = draw_negatives(x, target, self.num_outputs)
        right, wrong = scores.gather(1, torch.stack([target, drawn], 1)).unbind(1)
        return -(F.logsigmoid(right) + F.logsigmoid(-wrong)).mean()

    def judge_each(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return NDCG@10 over all items and the softmax cross-entropy of each sample."""
        target = targets.view(len(targets), -1)[:, 0]
        ranks = find_ranks(outputs, target).double()
        gains = torch.where(ranks < CUTS[-1], 1 / torch.log2(ranks + 2), 0.0)
        return gains, F.cross_entropy(outputs, target, reduction="none").double()

    @torch.no_grad()
    def score(
        self, model: nn.Module, batches: Iterable[Batch], own_classes: Tensor | None = None
    ) -> Score:
        """Return the metrics over all items, and the mean softmax cross-entropy as the loss, in
        which nothing is drawn."""
        model.eval()
        ranks, sampled, loss = [torch.empty(0)], [torch.empty(0)], 0.0
        for x, y in batches:
            columns = y.view(len(y), -1)
            target, scores = columns[:, 0], model(x)
            ranks.append(find_ranks(scores, target).cpu())
            loss += float(F.cross_entropy(scores, target, reduction="sum"))
            if columns.shape[1] > 1:
                among = scores.gather(1, columns)
                sampled.append(find_ranks(among, torch.zeros_like(target)).cpu())
        rank, rank_among = torch.cat(ranks), torch.cat(sampled)
        metrics = judge_ranks(rank)
        if len(rank_among):
            metrics |= {f"sampled_{name}": v for name, v in judge_ranks(rank_among).items()}
        return Score(loss / max(len(rank), 1), metrics, len(rank))

    def make_example(self, input_shape: tuple[int, ...], batch: int = 1) -> Tensor:
        """Return sequences of every item in turn, int64 ``[batch, *input_shape]``."""
        count = batch * input_shape[0]
        return (torch.arange(count) % self.num_outputs + 1).view(batch, *input_shape)

    def draw_inputs(self, input_shape: tuple[int, ...], batch: int, rng: torch.Generator) -> Tensor:
        """Return sequences of random items, int64 ``[batch, *input_shape]``."""
        return torch.randint(1, self.num_outputs + 1, (batch, *input_shape), generator=rng)

    def describe(self) -> str:
        """Return the number of items."""
        return f"{self.num_outputs} items"


def draw_negatives(sequences: Tensor, target: Tensor, num_items: int) -> Tensor:
    """Return for each sample the column of an item that is neither in its sequence nor the right
    one, all such items alike; int64 ``[b]``. Where there is no such item, any item.

    Args:
        sequences: item ids, 0 for none, int64 ``[b, L]``.
        target: int64 ``[b]``.
    """
    taken = torch.zeros(len(target), num_items + 1, dtype=torch.bool, device=target.device)
    taken.scatter_(1, sequences, True)
    taken.scatter_(1, target[:, None] + 1, True)
    free = (~taken[:, 1:]).float()
    free[free.sum(1) == 0] = 1.0
    return free.multinomial(1)[:, 0]
