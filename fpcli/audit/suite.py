"""The suite: run audits over the stages of unlearning, and say how far each is from retraining.

It knows nothing of how a model was made to forget: models in, numbers out. One number by itself
proves little. The model that was trained without the classes, with the same seeds, is what every
other is measured by, and the original without the forgotten logits is what a method has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from fpcli import plugins
from fpcli.audit.logit_mask import mask_logits
from fpcli.audit.stage import AUDIT_PARTS, Audit, AuditData, Figures, observe_stage
from fpcli.errors import DataError, UsageError
from fpcli.rng import stream

__all__ = ["AuditData", "AuditRow", "list_rows", "run_audits"]

MOST_FORGOTTEN, MOST_RETAINED = 1000, 2000
"""Samples of each of the training and the test data that audits look at, at most."""

MASK = "logit_mask"
"""Stage that is added: the original model without the forgotten logits."""

_LEAST = 2


class AuditRow(NamedTuple):
    """One line of a table: a figure in words, of the retrained model and of every other stage.

    Attributes:
        gap: of stage ``finetuned``, or None.
        ceiling: what a value that is None would be at least, if that is known.
    """

    audit: str
    figure: str
    retrained: float | None
    values: Mapping[str, float | None]
    gap: float | None
    ceiling: float | None


def run_audits(
    names: Sequence[str],
    models: Mapping[str, nn.Module],
    data: AuditData,
    *,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Judge models by audits.

    Args:
        names: keys of ``audit.AUDITS``; one that comes twice counts once.
        models: stage -> model, put in evaluation mode and otherwise left alone. There must be
            ``original`` (before forgetting), and for some audits, all gaps and every verdict
            ``retrained`` (never saw the classes); a verdict needs ``finetuned`` too, and
            ``pruned`` helps to compare models that got smaller.
        data: is sampled by ``seed`` where there is much of it.
        say: gets a line for each thing that begins.

    Returns:
        Of every audit, ready for JSON: ``stages``, stage -> figure -> value; ``gaps``, likewise,
        the value minus the retrained model's; and ``verdict``: the largest absolute gaps, over its
        decisive ``figures``, of ``finetuned`` and of ``logit_mask``, and the ``outcome``, whether
        the former is ``nearer`` to retraining, ``farther``, or ``level`` within a ``margin``. A
        value is None where there is none, and never nan.

    Raises:
        UsageError: no audit has that name, or a stage is missing.
        DataError: there are too few samples.
        LayoutError: a network does not end in a classifier with a row for each class.
        DivergedError: a model puts out what is no number.
    """
    audits: dict[str, Audit] = {name: plugins.lookup("audits", name) for name in names}
    _check(models, data, [name for name, audit in audits.items() if audit.needs_retrained])
    data = _sample(data, seed)
    sizes = {part: len(getattr(data, part)) for part in AUDIT_PARTS}
    say(
        f"audits look at {sizes['forget_train']:,} training and {sizes['forget_test']:,} test "
        f"samples of what is forgotten, {sizes['retain_train']:,} and {sizes['retain_test']:,} "
        "of the rest"
    )
    parts = [part for part in AUDIT_PARTS if any(part in audit.parts for audit in audits.values())]
    stages = {name: observe_stage(name, model, data, parts) for name, model in models.items()}
    stages[MASK] = mask_logits(stages["original"], data.classes)
    results = {}
    for name, audit in audits.items():
        say(f"audit {name}")
        values = {
            stage: dict(figures) for stage, figures in audit.measure(stages, data, seed).items()
        }
        gaps = _gaps(values, audit.ceiling)
        results[name] = {
            "stages": values,
            "gaps": gaps,
            "verdict": _verdict(gaps, audit, _margin(audit, sizes)),
        }
    return results


def _check(models: Mapping[str, nn.Module], data: AuditData, needy: Sequence[str]) -> None:
    if "original" not in models:
        raise UsageError(
            "audits need the stage `original`, the model before forgetting", where="--audit"
        )
    if needy and "retrained" not in models:
        raise UsageError(
            f"audit `{needy[0]}` needs the stage `retrained`, a model that never saw the classes",
            hint="add `--compare-retrain`",
            where="--audit",
        )
    for part in AUDIT_PARTS:
        if len(getattr(data, part)) < _LEAST:
            raise DataError(
                f"audits need {_LEAST} or more samples of every kind, and `{part}` has "
                f"{len(getattr(data, part))}",
                hint="leave the audits out, or use more data",
            )


def _sample(data: AuditData, seed: int) -> AuditData:
    """Return the data in random order, and no more of it than audits look at."""
    taken = {}
    for part in AUDIT_PARTS:
        split = getattr(data, part)
        most = MOST_FORGOTTEN if part.startswith("forget") else MOST_RETAINED
        order = torch.randperm(len(split), generator=stream(seed, f"audit/{part}"))
        taken[part] = split.take(order[:most])
    return replace(data, **taken)


def _gaps(
    values: Mapping[str, Figures], ceiling: float | None
) -> dict[str, dict[str, float | None]]:
    def gap(value: float | None, reference: float | None) -> float | None:
        value, reference = (ceiling if x is None else x for x in (value, reference))
        return None if value is None or reference is None else value - reference

    return {
        stage: {name: gap(value, values["retrained"][name]) for name, value in figures.items()}
        for stage, figures in values.items()
        if stage != "retrained" and "retrained" in values
    }


def _margin(audit: Audit, sizes: Mapping[str, int]) -> float:
    """Return the margin for as many samples of the forgotten classes as there are."""
    count = min(MOST_FORGOTTEN, sizes["forget_train"], sizes["forget_test"])
    return audit.margin * (MOST_FORGOTTEN / count) ** 0.5 if audit.is_share else audit.margin


def _verdict(gaps: Mapping[str, Figures], audit: Audit, margin: float) -> dict[str, Any]:
    largest: dict[str, float | None] = {}
    for stage in ("finetuned", MASK):
        decisive = [gaps[stage][name] for name in audit.decisive] if stage in gaps else [None]
        sizes = [abs(gap) for gap in decisive if gap is not None]
        largest[stage] = max(sizes) if len(sizes) == len(decisive) else None
    ours, theirs = largest["finetuned"], largest[MASK]
    outcome = None
    if ours is not None and theirs is not None:
        is_level = abs(ours - theirs) <= margin
        outcome = "level" if is_level else "nearer" if ours < theirs else "farther"
    return {
        "figures": list(audit.decisive), **largest, "margin": margin, "outcome": outcome
    }  # fmt: skip


def list_rows(audits: Mapping[str, Mapping[str, Any]]) -> list[AuditRow]:
    """Return the lines of a table of what :func:`run_audits` returned; not every figure has one."""
    rows = []
    for name, result in audits.items():
        audit: Audit = plugins.lookup("audits", name)
        for figure, words in audit.shown.items():
            values = {stage: figures[figure] for stage, figures in result["stages"].items()}
            gap = result["gaps"].get("finetuned", {}).get(figure)
            rows.append(
                AuditRow(name, words, values.pop("retrained", None), values, gap, audit.ceiling)
            )
    return rows
