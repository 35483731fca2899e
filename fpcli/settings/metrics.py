"""Metrics by name: which way each is better, and how it reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fpcli.errors import UsageError, suggest

_DIRECTIONS = {"accuracy": "max", "mae": "min", "r2": "max", "mrr": "max"}
_RANKED = re.compile(r"(sampled_)?(hr|ndcg)@([1-9]\d{0,3})")
_SHORT = {"acc": "accuracy"}
_EXAMPLES = (*_DIRECTIONS, "hr@10", "ndcg@10", "sampled_hr@10")

CLIENTS, LOCAL, BEST = "clients_", "local_", "best_"
"""What stands before a metric's name where it is the mean over clients' models on their own data,
the same by the logits of their own classes alone, or that of the round with the best validation."""

VALIDATION, WITHHELD = "validation_", "withheld_"
"""The same where it is that on validation data, or on the test samples of withheld classes."""

_PREFIX = re.compile(f"^({CLIENTS}|{LOCAL}|{BEST}|{VALIDATION}|{WITHHELD})")


class Metric(NamedTuple):
    """One number by which a model is judged.

    Attributes:
        direction: `max` where a larger one is better, else `min`.
        is_share: it lies in [0, 1] and reads as a percentage.
    """

    name: str
    direction: str
    is_share: bool = False

    @property
    def title(self) -> str:
        """How it is written in prose and pictures.

        >>> find_metric("accuracy").title, find_metric("sampled_hr@10").title
        ('accuracy', 'sampled HR@10')
        """
        start, _, name = self.name.rpartition("_")
        return f"{start} {name if name == 'accuracy' else name.upper()}".strip()

    def reaches(self, value: float, target: float) -> bool:
        """Tell whether a value is as good as a target, or better.

        >>> find_metric("accuracy").reaches(0.9, 0.9), find_metric("mae").reaches(45.0, 44.0)
        (True, False)
        """
        return value >= target if self.direction == "max" else value <= target

    def exceeds(self, value: float, best: float | None) -> bool:
        """Tell whether a value is better than the best so far, if there is one."""
        return best is None or (self.reaches(value, best) and value != best)

    def format(self, value: float) -> str:
        """Return a value as text.

        >>> find_metric("accuracy").format(0.9694), find_metric("mae").format(44.017)
        ('96.94%', '44.0170')
        """
        return f"{value:.2%}" if self.is_share else f"{value:.4f}"

    def format_change(self, before: float, after: float) -> str:
        """Return a difference as text: in points of a share, else relative to the value before.

        >>> find_metric("accuracy").format_change(0.9, 0.85), find_metric("mae").format_change(8, 9)
        ('-5.00 points', '+12.5%')
        """
        if self.is_share:
            return f"{100 * (after - before):+.2f} points"
        return f"{(after - before) / abs(before):+.1%}" if before else f"{after - before:+.4f}"

    def find_limit(self, value: float, max_drop: float) -> float:
        """Return the worst value that is worse by no more than ``max_drop``: points of a share,
        else percent of the value.

        >>> find_metric("accuracy").find_limit(0.9, 1.0), find_metric("mae").find_limit(50, 1.0)
        (0.89, 50.5)
        """
        loss = max_drop / 100 * (1.0 if self.is_share else abs(value))
        return value - loss if self.direction == "max" else value + loss

    def name_unit(self, amount: float) -> str:
        """Return what differences of the metric are counted in, as `find_limit` does.

        >>> find_metric("accuracy").name_unit(1.0), find_metric("mae").name_unit(5.0)
        ('1 point', '5%')
        """
        return f"{amount:g} point{'s' * (amount != 1)}" if self.is_share else f"{amount:g}%"


def find_metric(name: str) -> Metric:
    """Return a metric by its name: `accuracy`; `mae`, `r2`; `hr@K`, `ndcg@K`, `mrr`, and the same
    among sampled items, `sampled_hr@K` and so on; with `local_` before it that of clients by their
    own outputs. `acc` is short for accuracy.

    Raises:
        UsageError: there is none of that name.

    >>> find_metric("hr@10").direction, find_metric("mae").direction, find_metric("acc").name
    ('max', 'min', 'accuracy')
    """
    name = _SHORT.get(name, name)
    bare = name.removeprefix(LOCAL)
    if direction := _DIRECTIONS.get(bare.removeprefix("sampled_") if "mrr" in bare else bare):
        return Metric(name, direction, is_share=bare == "accuracy")
    if match := _RANKED.fullmatch(bare):
        return Metric(name, "max", is_share=match[2] == "hr")
    raise UsageError(
        f"unknown metric `{name}`",
        hint=suggest(name, _EXAMPLES) or f"known: {', '.join(_EXAMPLES)}, with any number behind @",
        where=name,
    )


def find_measured(measure: str) -> Metric | None:
    """Return the metric that a measure such as `best_mae` is a value of; None for others.

    >>> find_measured("validation_acc").name, find_measured("best_mae").direction
    ('accuracy', 'min')
    >>> find_measured("params")
    """
    try:
        return find_metric(_PREFIX.sub("", measure))
    except UsageError:
        return None


def list_metrics(score: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the metrics among the keys of a score in an event, the primary one first.

    >>> list_metrics({"mae": 44.0, "r2": 0.5, "loss": 0.6, "num_examples": 89})
    ('mae', 'r2')
    """
    return tuple(key for key in score if (metric := find_measured(key)) and metric.name == key)


def name_of_clients(name: str) -> str:
    """Return how the mean of a metric over the clients' own models is called.

    >>> name_of_clients("accuracy"), name_of_clients("local_accuracy")
    ('clients_accuracy', 'local_accuracy')
    """
    return name if name.startswith(LOCAL) else CLIENTS + name


def parse_target(text: str) -> dict[str, str]:
    """Return metric -> text of its value of ``METRIC=X,METRIC=X``; a number alone is an accuracy.

    Raises:
        UsageError: a metric is unknown.

    >>> parse_target("acc=0.98"), parse_target("0.98"), parse_target("hr@10=20%,mrr=0.1")
    ({'accuracy': '0.98'}, {'accuracy': '0.98'}, {'hr@10': '20%', 'mrr': '0.1'})
    """
    target = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        target[find_metric(name.strip() or "accuracy").name] = value.strip()
    return target


def describe_target(target: Mapping[str, float]) -> str:
    """Return targets as text.

    >>> describe_target({"accuracy": 0.9, "mae": 44})
    'accuracy 90.00%, mae 44.0000'
    """
    return ", ".join(f"{name} {find_metric(name).format(x)}" for name, x in target.items())
