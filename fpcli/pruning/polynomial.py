"""The polynomial schedule of sparsity: fast at first, then ever slower."""

from __future__ import annotations


def find_sparsity(
    at: int,
    *,
    start: int,
    end: int,
    every: int = 1,
    initial: float = 0.0,
    final: float,
    exponent: float = 3.0,
) -> float:
    """Return the share of weights that is to be dead after a step; 0 means that none is pruned.

    Args:
        at: steps (rounds) done, counted from 1; what comes after ``end`` is as at the end.
        start: the last step without pruning.
        end: the step that reaches ``final``, if it is a multiple of ``every``.
        every: the sparsity changes in multiples of so many steps only.
        initial, final: in [0, 1).
        exponent: above 0; 1 is a straight line.

    Source: Zhu and Gupta, "To prune, or not to prune", 2017, equation 1; in rounds, as here, the
    official code of FedSparsify.

    >>> [round(find_sparsity(at, start=1, end=200, final=0.95), 6) for at in (1, 2, 50, 200)]
    [0.0, 0.01425, 0.543146, 0.95]
    """
    if at <= start:
        return 0.0
    step = min(at, end) // every * every
    left = 1.0 - (step - start) / (end - start)
    return max(0.0, final + (initial - final) * left**exponent)
