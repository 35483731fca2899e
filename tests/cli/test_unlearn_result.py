from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fpcli.cli.unlearn_result import (
    search_text,
    unlearning_plan_text,
    unlearning_text,
    warn_of_shortcomings,
)
from fpcli.recipe.load import load_recipe

COST = {"rounds": 3, "bytes": 2_500_000, "seconds": 12.34, "real_s": 5.0}


def stage(name: str, forget: float, retain: float, **cost: Any) -> dict[str, Any]:
    accuracies = {"forget_accuracy": forget, "retain_accuracy": retain}
    return {"stage": name, **accuracies, **dict.fromkeys(COST), **cost}


def result(speedup: dict[str, Any] | None) -> dict[str, Any]:
    stages = [stage("original", 0.9, 0.8), stage("finetuned", 0.015, 0.75, **COST)]
    if speedup:
        stages.append(stage("retrained", 0.0, 0.7, **{**COST, "rounds": 9}))
    return {"classes": [7, 9], "search": None, "stages": stages, "speedup": speedup, "audits": {},
            "run": "runs/b", "pictures": ["runs/b/forgetting.png", "runs/b/forgetting.svg"],
            }  # fmt: skip


def test_the_table_of_stages() -> None:
    about, head, _, *rows, note, folder, picture = unlearning_text(
        result(None), Path("runs/a"), 1, is_purged=False
    ).splitlines()
    assert about.startswith("forgotten: class 7, 9; accuracy on test data, ")
    words = ["forgotten class", "other classes", "rounds", "bytes", "seconds"]
    assert [word.strip() for word in head.split("   ") if word.strip()] == words
    assert [row.split("  ")[0] for row in rows] == ["before", "after fine-tuning"]
    assert rows[0].split()[1:] == ["90.0%", "80.0%", "-", "-", "-"]
    assert rows[1].split()[2:] == ["1.5%", "75.0%", "3", "2.5", "MB", "12.3"]
    assert "1 earlier checkpoint of runs/a and its final model still hold the class" in note
    assert (folder, picture) == ("run folder runs/b", "picture runs/b/forgetting.png")
    gone = unlearning_text(result(None), Path("runs/a"), 2, is_purged=True)
    assert "the checkpoints of runs/a and its final model were deleted" in gone


def test_the_speedup_in_words() -> None:
    ratio = {"rounds": 3.0, "bytes": 2.5, "seconds": None, "real_s": 1.25}
    good = {"validation_accuracy": 0.745, "ratio": ratio}
    found = {"retrained": good, "finetuned": {"validation_accuracy": 0.7, "ratio": None}}
    text = unlearning_text(result(found), Path("a"), 2, is_purged=False)
    assert "  its own, 74.5%: 3.0 in rounds, 2.5 in bytes, 1.2 in real time\n" in text
    assert "  that of fine-tuning, 70.0%: not reached in 9 rounds\n" in text
    turned = {"retrained": found["finetuned"], "finetuned": good}
    text = unlearning_text(result(turned), Path("a"), 2, is_purged=False)
    assert "  its own, 70.0%: not reached in 3 rounds\n" in text


def test_audits_in_a_table() -> None:
    figures = ("steps", "fresh_head_steps")
    values = {"retrained": 45, "original": 0, "finetuned": None, "logit_mask": 8}
    gaps = {"original": -45, "finetuned": 15, "logit_mask": -37}
    audit = {
        "stages": {stage: dict.fromkeys(figures, x) for stage, x in values.items()},
        "gaps": {stage: dict.fromkeys(figures, x) for stage, x in gaps.items()},
        "verdict": {"outcome": "nearer"},
    }
    text = unlearning_text(
        {**result(None), "audits": {"relearn": audit}}, Path("a"), 2, is_purged=False
    )
    line, other = (x for x in text.splitlines() if "  steps" in x and "45" in x)
    assert line.split() == ["relearn", "steps", "45", "0", ">", "60", "8", "15", "nearer"]
    assert other.split()[0] == "steps," and other.split()[-1] == "15"


def told(**audits: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines below the tables that are about these audits."""
    found = {
        name.replace("_", "-"): {"stages": stages, "gaps": {}, "verdict": {"outcome": None}}
        for name, stages in audits.items()
    }
    text = unlearning_text({**result(None), "audits": found}, Path("a"), 2, is_purged=False)
    return [x for x in text.splitlines() if x.startswith(("relearning: ", "server-diff: "))]


@pytest.mark.parametrize(
    ("ours", "masked", "anew", "words"),
    [
        (7, 8, "none", "8 with the original that may not say it: the model still knows it (`--"),
        (12, 8, "none", "the model lost more than its name (`--compare-retrain`: against one"),
        (None, 8, "none", "relearning: more than 60 steps on a few of its images bring the class"),
        (6, 8, 45, ", 45 with the one that never saw it: the model is nearer to the former"),
        (
            40,
            8,
            None,
            ", more than 60 with the one that never saw it: the model is nearer to the l",
        ),
        (2, 4, 7, "7 with the one that never saw it: these two are too near to tell"),
    ],
)
def test_a_model_that_may_not_say_it_is_told_apart(
    ours: int | None, masked: int, anew: int | str | None, words: str
) -> None:
    steps = {"original": 0, "finetuned": ours, "logit_mask": masked, "retrained": anew}
    (line,) = told(
        relearn={name: {"steps": x, "fresh_head_steps": 9} for name, x in steps.items()
                 if x != "none"}
    )  # fmt: skip
    assert words in line


def test_what_the_classifier_gives_away() -> None:
    (line,) = told(server_diff={"finetuned": {"share": 0.283, "rank": 1}})
    assert "the class's row of the classifier is number 1 by its change, with 28% of all" in line
    (line,) = told(server_diff={"finetuned": {"share": None, "rank": None}})
    assert "cannot be compared" in line


def test_the_shares_that_were_tried() -> None:
    trials = [
        {
            "ratio": ratio, "left": left, "outcome": outcome, "rounds": 2,
            "forget_accuracy": {"original": 0.9, "pruned": 0.8, "finetuned": 0.9 * left},
            "retain_accuracy": {"original": 0.95, "pruned": 0.5, "finetuned": 0.875},
        }
        for ratio, left, outcome in ((0.3, 0.01, "forgotten"), (0.15, 0.5, "remembered"))
    ]  # fmt: skip
    cost = {"rounds": 2, "bytes": 1_000_000, "seconds": 3.25, "real_s": 1.0}
    search = {"ratio": 0.3, "max_ratio": 0.5, "trials": trials, "cost": cost}
    shown = {**result(None), "search": search}
    about, _, head, _, *rows = unlearning_text(shown, Path("a"), 2, is_purged=False).splitlines()
    assert about.startswith("shares tried: 30.0% of the channels will do; ")
    assert head.split() == ["share", "class", "before", "pruned", "tuned", "others", "before",
                            "pruned", "tuned", "left", "outcome"]  # fmt: skip
    assert rows[0].split() == ["15.0%", "90.0%", "80.0%", "45.0%", "95.0%", "50.0%", "87.5%",
                               "50.0%", "remembered"]  # fmt: skip
    assert rows[1].split()[-2:] == ["1.0%", "forgotten"]
    (others,) = [row for row in rows if row.startswith("the other trials")]
    assert others.split()[3:] == ["-", "-", "2", "1.0", "MB", "3.2"]
    nothing = search_text({**search, "ratio": None})
    assert nothing.startswith("shares tried: nothing will do; ")


def test_a_class_that_is_still_known_is_told() -> None:
    assert warn_of_shortcomings(result(None)) == []
    known = result(None)
    known["stages"][1]["forget_accuracy"] = 0.0901
    (text,) = warn_of_shortcomings(known)
    assert "9.0% of its test samples are still predicted right; a higher --ratio or" in text
    (text,) = warn_of_shortcomings({**known, "search": {"ratio": 0.35}})
    assert "predicted right; a --ratio above 0.35 or more --finetune-rounds may help" in text


@pytest.mark.parametrize(
    ("after", "words"),
    [(0.9, ""), (0.7, ""), (0.69, "the other classes lost 11.0 points: 69.0% of their test sampl")],
)
def test_a_share_that_costs_the_others_much_is_told(after: float, words: str) -> None:
    found = result(None)
    found["stages"][1]["retain_accuracy"] = after
    texts = warn_of_shortcomings(found)
    assert len(texts) == bool(words) and words in "".join(texts)


def test_the_plan() -> None:
    plan = {
        "classes": [7], "channels": 48, "layers": 2, "pruned": 4, "rounds": 3,
        "clients": [{"client": 0, "forgotten": 12, "others": 1300}], "shares": None,
    }  # fmt: skip
    lines = unlearning_plan_text(load_recipe(None), plan).splitlines()
    assert lines[0] == "recipe: 1"
    assert lines[-2].split() == ["0", "12", "1,300"]
    assert lines[-1] == "48 channels of 2 convolutions are scored, 4 pruned; then 3 rounds without"
    plan |= {"pruned": None, "shares": [0.05 * n for n in range(1, 11)]}
    last = unlearning_plan_text(load_recipe(None), plan).splitlines()[-1]
    assert "and in up to 4 trials shares between 0.05 and 0.5 of them pruned; then 3" in last
