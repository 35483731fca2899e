from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from audits import KNOWS, NEVER_SAW, net, toy_data
from nets import Tiny
from torch import nn

from fpcli import plugins
from fpcli.audit import AUDITS, suite
from fpcli.audit.suite import AuditData, list_rows, run_audits
from fpcli.data.split import Split
from fpcli.errors import DataError, DivergedError, LayoutError, UsageError

NAMES = tuple(AUDITS)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    return [value] if isinstance(value, float) else []


def audited(names: tuple[str, ...], models: dict[str, nn.Module], **changes: Any) -> dict[str, Any]:
    return run_audits(
        names, models, replace(toy_data(noise=0.2), **changes), seed=0, say=lambda line: None
    )


def test_every_figure_of_every_audit_is_a_number_and_the_same_twice() -> None:
    masked = net(KNOWS, [0.0, 0, -math.inf])
    models = {
        "original": net(KNOWS), "finetuned": masked, "pruned": net(NEVER_SAW),
        "retrained": net(NEVER_SAW),
    }  # fmt: skip
    found = audited(NAMES, models)
    assert all(math.isfinite(number) for number in numbers(found))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == audited(NAMES, models)
    for one in found.values():
        assert set(one["stages"]) == {*models, "logit_mask"}
        assert set(one["gaps"]) == {"original", "pruned", "finetuned", "logit_mask"}


def test_a_copy_of_the_retrained_model_has_no_gap_and_beats_the_mask() -> None:
    leaning = net(
        [[3.0, 0, 2], *KNOWS[1:]]
    )  # masked, it takes the class for the first of the others
    models = {"original": leaning, "finetuned": net(NEVER_SAW), "retrained": net(NEVER_SAW)}
    found = audited(NAMES, models)
    assert all(not gap for one in found.values() for gap in one["gaps"]["finetuned"].values())
    told = {name: one["verdict"]["outcome"] for name, one in found.items()}
    assert told["class-mia"] == "nearer"
    # Features are the inputs in all of these, and no model is right on the class.
    assert told["probe"] == told["logit-mask"] == "level"
    assert found["logit-mask"]["verdict"] == {
        "figures": ["forget_accuracy", "retain_accuracy"], "finetuned": 0, "logit_mask": 0,
        "margin": pytest.approx(0.02 * (1000 / 60) ** 0.5), "outcome": "level",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "factor"), [("mia", 2.0), ("relearn", 1.0)])
def test_fewer_samples_have_a_wider_margin(
    monkeypatch: pytest.MonkeyPatch, name: str, factor: float
) -> None:
    models = {stage: net(KNOWS) for stage in ("original", "finetuned", "retrained")}
    usual = plugins.lookup("audits", name).margin
    monkeypatch.setattr(suite, "MOST_FORGOTTEN", 4 * len(toy_data(noise=0.2).forget_test))
    found = audited((name,), models)
    assert found[name]["verdict"]["margin"] == pytest.approx(factor * usual)


def test_without_a_finetuned_model_there_is_no_verdict() -> None:
    found = audited(("logit-mask",), {"original": net(KNOWS), "retrained": net(NEVER_SAW)})
    assert found["logit-mask"]["verdict"]["outcome"] is None
    assert [row.gap for row in list_rows(found)] == [None, None]


def test_what_was_not_relearned_counts_as_the_cap() -> None:
    far = net(KNOWS, [0.0, 0, -1e4])
    models = {"original": net(KNOWS), "finetuned": far, "retrained": far}
    one = audited(("relearn",), models)["relearn"]
    assert one["stages"]["finetuned"]["steps"] is None
    assert one["gaps"]["finetuned"]["steps"] == 0
    assert one["gaps"]["original"]["steps"] == -60
    assert one["verdict"]["outcome"] == "nearer"


def test_a_model_that_forgot_nothing_is_farther_than_the_mask() -> None:
    models = {"original": net(KNOWS), "finetuned": net(KNOWS), "retrained": net(NEVER_SAW)}
    verdict = audited(("logit-mask",), models)["logit-mask"]["verdict"]
    assert (verdict["finetuned"], verdict["logit_mask"]) == (1, 0)
    assert verdict["outcome"] == "farther"


def test_rows_of_a_table() -> None:
    models = {"original": net(KNOWS), "finetuned": net(KNOWS), "retrained": net(NEVER_SAW)}
    found = list_rows(audited(("logit-mask", "class-mia"), models))
    assert [row.audit for row in found] == ["logit-mask"] * 2 + ["class-mia"] * 3
    assert found[0] == suite.AuditRow(
        "logit-mask", "accuracy, forgotten", 0.0,
        {"original": 1.0, "finetuned": 1.0, "logit_mask": 0.0}, 1.0, None,
    )  # fmt: skip


def test_samples_are_capped_and_their_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "MOST_FORGOTTEN", 10)
    monkeypatch.setattr(suite, "MOST_RETAINED", 20)
    lines: list[str] = []
    models: dict[str, nn.Module] = {"original": net(KNOWS), "retrained": net(NEVER_SAW)}
    run_audits(["mia"], models, toy_data(), seed=0, say=lines.append)
    assert lines == [
        "audits look at 10 training and 10 test samples of what is forgotten, "
        "20 and 20 of the rest",
        "audit mia",
    ]


def test_a_network_of_convolutions_is_audited() -> None:
    generator = torch.Generator().manual_seed(0)

    def images(labels: torch.Tensor) -> Split:
        return Split(torch.randn(len(labels), 1, 8, 8, generator=generator), labels)

    gone, rest = torch.full((20,), 2), torch.arange(20) % 2
    data = AuditData(lambda x: x, images(gone), images(gone), images(rest), images(rest), (2,), 3)
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {name: Tiny(1, 3) for name in ("original", "retrained")}
    found = run_audits(["probe", "mia"], models, data, seed=0, say=lambda line: None)
    assert found["probe"]["stages"]["original"]["cka_original"] == pytest.approx(1)
    assert 0 < found["probe"]["stages"]["original"]["cka_retrained"] < 1
    assert not models["original"].training


@pytest.mark.parametrize("missing", ["original", "retrained"])
def test_a_missing_stage(missing: str) -> None:
    models = {name: net(KNOWS) for name in ("original", "retrained") if name != missing}
    with pytest.raises(UsageError, match=f"the stage `{missing}`"):
        audited(("probe",), models)


def test_some_audits_need_no_retrained_model_and_then_have_no_gaps() -> None:
    models = {"original": net(KNOWS), "finetuned": net(KNOWS)}
    found = audited(("relearn", "server-diff", "logit-mask", "mia"), models)
    for one in found.values():
        assert (one["gaps"], one["verdict"]["outcome"]) == ({}, None)
    steps = {name: one["steps"] for name, one in found["relearn"]["stages"].items()}
    assert steps["finetuned"] == 0 < steps["logit_mask"]
    assert all(row.retrained is None and row.gap is None for row in list_rows(found))


def test_an_unknown_audit() -> None:
    with pytest.raises(UsageError, match="unknown audit `prob`") as error:
        audited(("prob",), {"original": net(KNOWS), "retrained": net(KNOWS)})
    assert error.value.hint == "did you mean `probe`?"


def test_too_few_samples() -> None:
    few = toy_data(1).forget_test
    with pytest.raises(DataError, match="`forget_test` has 1"):
        audited(("mia",), {"original": net(KNOWS), "retrained": net(KNOWS)}, forget_test=few)


def test_a_model_that_diverged() -> None:
    broken = net([*KNOWS[:2], [math.nan, 0, 0]])
    with pytest.raises(DivergedError, match="`retrained` puts out values that are no numbers"):
        audited(("mia",), {"original": net(KNOWS), "retrained": broken})


def test_a_network_that_does_not_end_in_its_classifier() -> None:
    wide = nn.Sequential(*net([[1.0, 0, 0]] * 6), nn.Unflatten(1, (3, 2)), nn.Flatten(2))
    with pytest.raises(LayoutError, match="`1`, has 6 rows for 3 classes"):
        audited(("mia",), {"original": wide, "retrained": net(KNOWS)})


def test_every_audit_has_words_for_its_figures() -> None:
    models = {"original": net(KNOWS), "retrained": net(NEVER_SAW)}
    for name, one in audited(NAMES, models).items():
        audit = plugins.lookup("audits", name)
        assert {*audit.shown, *audit.decisive} <= one["stages"]["original"].keys()
