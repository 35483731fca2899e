from __future__ import annotations

from pathlib import Path
from typing import Any

from fpcli.cli.unlearn_result import not_forgotten, plan_text, result_text
from fpcli.recipe.load import load

COST = {"rounds": 3, "bytes": 2_500_000, "seconds": 12.34, "real_s": 5.0}


def stage(name: str, forget: float, retain: float, **cost: Any) -> dict[str, Any]:
    accuracies = {"forget_accuracy": forget, "retain_accuracy": retain}
    return {"stage": name, **accuracies, **dict.fromkeys(COST), **cost}


def result(speedup: dict[str, Any] | None) -> dict[str, Any]:
    stages = [stage("original", 0.9, 0.8), stage("finetuned", 0.015, 0.75, **COST)]
    if speedup:
        stages.append(stage("retrained", 0.0, 0.7, **{**COST, "rounds": 9}))
    return {"classes": [7, 9], "stages": stages, "speedup": speedup, "audits": {}, "run": "runs/b",
            "pictures": ["runs/b/forgetting.png", "runs/b/forgetting.svg"]}  # fmt: skip


def test_the_table_of_stages() -> None:
    about, head, _, *rows, note, folder, picture = result_text(
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
    gone = result_text(result(None), Path("runs/a"), 2, is_purged=True)
    assert "the checkpoints of runs/a and its final model were deleted" in gone


def test_the_speedup_in_words() -> None:
    ratio = {"rounds": 3.0, "bytes": 2.5, "seconds": None, "real_s": 1.25}
    good = {"validation_accuracy": 0.745, "ratio": ratio}
    found = {"retrained": good, "finetuned": {"validation_accuracy": 0.7, "ratio": None}}
    text = result_text(result(found), Path("a"), 2, is_purged=False)
    assert "  its own, 74.5%: 3.0 in rounds, 2.5 in bytes, 1.2 in real time\n" in text
    assert "  that of fine-tuning, 70.0%: not reached in 9 rounds\n" in text
    turned = {"retrained": found["finetuned"], "finetuned": good}
    text = result_text(result(turned), Path("a"), 2, is_purged=False)
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
    text = result_text(
        {**result(None), "audits": {"relearn": audit}}, Path("a"), 2, is_purged=False
    )
    line, other = (x for x in text.splitlines() if " steps" in x and "45" in x)
    assert line.split() == ["relearn", "steps", "45", "0", ">", "60", "8", "15", "nearer"]
    assert other.split()[0] == "steps," and other.split()[-1] == "15"


def test_a_class_that_is_still_known_is_told() -> None:
    assert not_forgotten(result(None)) == []
    known = result(None)
    known["stages"][1]["forget_accuracy"] = 0.0901
    (text,) = not_forgotten(known)
    assert "9.0% of its test samples are still predicted right" in text


def test_the_plan() -> None:
    plan = {
        "classes": [7], "channels": 48, "layers": 2, "pruned": 4, "rounds": 3,
        "clients": [{"client": 0, "forgotten": 12, "others": 1300}],
    }  # fmt: skip
    lines = plan_text(load(None), plan).splitlines()
    assert lines[0] == "recipe: 1"
    assert lines[-2].split() == ["0", "12", "1,300"]
    assert lines[-1] == "48 channels of 2 convolutions are scored, 4 pruned; then 3 rounds without"
