"""What `fp unlearn` prints: its table at the end, or its plan with ``--dry-run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.audit.relearn import MOST_STEPS, RELEARN
from fpcli.cli import show
from fpcli.recipe.load import to_yaml
from fpcli.report.trials import HEAD, list_trials
from fpcli.settings.recipes import Recipe
from fpcli.units import format_bytes
from fpcli.unlearn.ratio_search import FORGOTTEN

COSTLY = 0.1
"""A loss of accuracy on the other classes, in [0, 1], beyond which there is a warning."""

_NAMES = {
    "original": "before",
    "pruned": "after pruning",
    "finetuned": "after fine-tuning",
    "finetune_only": "fine-tuning alone",
    "retrained": "retrained anew",
    "logit_dropped": "logit dropped",
}
_AUDITED = {
    "original": "before",
    "pruned": "pruned",
    "finetuned": "fine-tuned",
    "finetune_only": "tuned alone",
    "logit_mask": "masked",
}
_MEASURES = {
    "rounds": "rounds",
    "bytes": "bytes",
    "seconds": "simulated time",
    "real_s": "real time",
}


def unlearning_text(
    result: Mapping[str, Any], original: Path, num_checkpoints: int, *, is_purged: bool
) -> str:
    """Return the table of stages, the speed-up, and what the result does not mean.

    Args:
        original: the run that was made to forget.
        num_checkpoints: that it has, or had.
        is_purged: they have been deleted.
    """
    rows = [_row(stage) for stage in result["stages"]]
    classes = ", ".join(map(str, result["classes"]))
    head = ("", "forgotten class", "other classes", "rounds", "bytes", "seconds")
    about = f"forgotten: class {classes}; accuracy on test data, bytes both ways, simulated seconds"
    lines = []
    if search := result.get("search"):  # earlier versions did not search
        lines.append(f"{search_text(search)}\n")
        cost = search["cost"]
        rows.insert(1, ("the other trials", "-", "-", *_cost(cost)))
    lines += [show.prose(about), show.align(head, rows, right=range(1, len(head)))]
    if result["speedup"]:
        lines.append(show.prose(_speedup(result)))
    if any("retrained" in audit["stages"] for audit in result["audits"].values()):
        lines.append(_audits(result["audits"]))
    if audit := result["audits"].get("relearn"):
        lines.append(show.prose(_relearning_line(audit)))
    if audit := result["audits"].get("server-diff"):
        lines.append(show.prose(_server_diff_line(audit)))
    kept = f"{num_checkpoints} earlier checkpoint{'s' * (num_checkpoints != 1)} of {original}"
    notes = (
        f"the checkpoints of {original} and its final model were deleted"
        if is_purged
        else f"{kept} and its final model still hold the class "
        f"(`fp unlearn --resume {result['run']} --purge --force` deletes them)"
    )
    lines.append(show.prose(f"note: empirical forgetting, not a certified removal; {notes}"))
    lines.append(f"run folder {result['run']}")
    lines += [f"picture {path}" for path in result["pictures"] if path.endswith(".png")]
    return "\n".join(lines)


def search_text(search: Mapping[str, Any]) -> str:
    """Return the table of the shares of channels that were tried."""
    what = "nothing" if search["ratio"] is None else f"{search['ratio']:.1%} of the channels"
    about = (
        f"shares tried: {what} will do; accuracy on the clients' training samples, left: of what\n"
        f"was right of the class, what still is at the end (forgotten: at most {FORGOTTEN:.0%})"
    )
    table = show.align(HEAD, list_trials(search["trials"]), right=range(len(HEAD) - 1))
    return f"{show.prose(about)}\n{table}"


def warn_of_shortcomings(result: Mapping[str, Any]) -> list[str]:
    """Return warnings: more than a tenth of what was right on the class before still is, or the
    other classes lost more than 10 points."""
    stages, warnings = {stage["stage"]: stage for stage in result["stages"]}, []
    before, after = stages["original"], stages["finetuned"]
    if after["forget_accuracy"] > before["forget_accuracy"] * FORGOTTEN:
        share = f"{after['forget_accuracy']:.1%} of its test samples are still predicted right"
        # A search ends with the first share that forgets on the clients' samples: a higher
        # --max-ratio would find the same one again.
        search = result.get("search")
        more = f"a --ratio above {search['ratio']:g}" if search else "a higher --ratio"
        warnings.append(
            f"the class is not forgotten: {share}; {more} or more --finetune-rounds may help"
        )
    lost = before["retain_accuracy"] - after["retain_accuracy"]
    if lost > COSTLY + 1e-9:  # ten points may come out larger than they are
        warnings.append(
            f"the other classes lost {100 * lost:.1f} points: {after['retain_accuracy']:.1%} of "
            "their test samples are predicted right; more --finetune-rounds may help"
        )
    return warnings


def _row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    cost = ("-", "-", "-") if stage["rounds"] is None else _cost(stage)
    accuracies = (f"{stage[key]:.1%}" for key in ("forget_accuracy", "retain_accuracy"))
    return (_NAMES[stage["stage"]], *accuracies, *cost)


def _cost(spent: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(spent["rounds"]), format_bytes(spent["bytes"]), f"{spent['seconds']:.1f}"


def _relearning_line(audit: Mapping[str, Any]) -> str:
    """Return a line that tells a model which lost the class from one that may not say it."""
    steps = {name: figures["steps"] for name, figures in audit["stages"].items()}
    ours, masked, anew = (
        MOST_STEPS + 1 if count is None else count
        for count in (steps["finetuned"], steps["logit_mask"], steps.get("retrained"))
    )
    words = {name: f"more than {MOST_STEPS}" if x is None else f"{x}" for name, x in steps.items()}
    verdict = (
        f"relearning: {words['finetuned']} steps on a few of its images bring the class back, "
        f"{words['logit_mask']} with the original that may not say it"
    )
    if "retrained" not in steps:
        lost = "lost more than its name" if ours > masked + RELEARN.margin else "still knows it"
        return f"{verdict}: the model {lost} (`--compare-retrain`: against one that never saw it)"
    verdict += f", {words['retrained']} with the one that never saw it"
    if anew <= masked + RELEARN.margin:
        return f"{verdict}: these two are too near to tell"
    is_lost = ours - masked > anew - ours
    return f"{verdict}: the model is nearer to {'the latter' if is_lost else 'the former'}"


def _server_diff_line(audit: Mapping[str, Any]) -> str:
    """Return a line on what the classifier's rows give away."""
    figures = audit["stages"]["finetuned"]
    if figures["share"] is None:
        return "server-diff: the classifiers before and after cannot be compared"
    return (
        f"server-diff: to who sees both models, the class's row of the classifier is number "
        f"{figures['rank']} by its change, with {figures['share']:.0%} of all change"
    )


def _audits(audits: Mapping[str, Any]) -> str:
    """Return the table of audits, and how to read it."""
    from fpcli.audit.suite import list_rows

    rows = list_rows(audits)
    stages = [name for name in _AUDITED if any(name in row.values for row in rows)]
    lines, last = [], ""
    for row in rows:
        outcome = audits[row.audit]["verdict"]["outcome"] if row.audit != last else ""
        values = [_figure(row.values.get(stage), row.ceiling) for stage in stages]
        head = ("" if row.audit == last else row.audit, row.figure)
        end = (_figure(row.gap, None), outcome or "")
        lines.append((*head, _figure(row.retrained, row.ceiling), *values, *end))
        last = row.audit
    names = (_AUDITED[stage] for stage in stages)
    heads = ("audit", "", "retrained", *names, "gap", "outcome")
    needless = [stage for stage in ("finetune_only", "pruned", "original") if stage in stages]
    leave = [3 + stages.index(stage) for stage in needless]  # the outcome rests on the others
    reading = (
        "gap: fine-tuned minus retrained. Outcome: is that nearer to 0 than the gap of the masked "
        "model,\nthe original without the forgotten logits, which forgot nothing?"
    )
    table = show.align(heads, lines, right=range(2, len(heads) - 1), leave=leave)
    return f"\n{table}\n{show.prose(reading)}"


def _figure(value: float | None, ceiling: float | None) -> str:
    if value is None:
        return "-" if ceiling is None else f"> {ceiling:g}"
    return f"{value:d}" if isinstance(value, int) else f"{value:.3f}"


def _speedup(result: Mapping[str, Any]) -> str:
    """Return a line for each goal: what retraining reached, and what fine-tuning did."""
    rounds = {stage["stage"]: stage["rounds"] for stage in result["stages"]}
    lines = []
    for goal, words in (("retrained", "its own"), ("finetuned", "that of fine-tuning")):
        factors = result["speedup"][goal]
        if factors["ratio"] is None:
            other = "finetuned" if goal == "retrained" else "retrained"
            text = f"not reached in {rounds[other]} rounds"
        else:
            text = ", ".join(
                f"{ratio:.1f} in {word}"
                for key, word in _MEASURES.items()
                if (ratio := factors["ratio"][key]) is not None
            )
        lines.append(f"  {words}, {factors['validation_accuracy']:.1%}: {text}")
    head = "speed-up over retraining, to a validation accuracy on the other classes of"
    return "\n".join([head, *lines])


def unlearning_plan_text(recipe: Recipe, plan: Mapping[str, Any]) -> str:
    """Return the recipe, who holds what, and how much would be pruned."""
    rows = [
        (str(item["client"]), f"{item['forgotten']:,}", f"{item['others']:,}")
        for item in plan["clients"]
    ]
    classes = ", ".join(map(str, plan["classes"]))
    head = ("client", f"samples of class {classes}", "of the others")
    going = f"{plan['pruned']:,} pruned" if plan["pruned"] is not None else _trials(plan["shares"])
    scored = (
        f"{plan['channels']:,} channels of {plan['layers']} convolutions are scored, {going}; "
        f"then {plan['rounds']} rounds without"
    )
    table = show.align(head, rows, right=range(3))
    return f"{to_yaml(recipe)}\n{table}\n{show.prose(scored)}"


def _trials(shares: Sequence[float]) -> str:
    most = len(shares).bit_length()
    return (
        f"and in up to {most} trials shares between {shares[0]:g} and {shares[-1]:g} of them pruned"
    )
