from __future__ import annotations

import copy

import torch
from audits import KNOWS, NEVER_SAW, net, toy_data

from fpcli.audit.logit_mask import mask_logits
from fpcli.audit.relearn import MOST_STEPS, RELEARN, relearn, renew_classifier
from fpcli.audit.stage import observe_stage


def test_what_was_never_lost_is_back_after_no_step() -> None:
    stages = {"original": observe_stage("original", net(KNOWS), toy_data(), ())}
    found = RELEARN.measure(stages, toy_data(), 0)["original"]
    assert found["steps"] == 0
    assert found["fresh_head_steps"] is not None
    assert found["fresh_head_steps"] > 0


def test_a_model_that_calls_everything_forgotten_is_not_done() -> None:
    everything = net([[0.0, 0, 0]] * 3, [0.0, 0, 5])
    stages = {
        "original": observe_stage("original", net(KNOWS), toy_data(), ()),
        "other": observe_stage("other", everything, toy_data(), ()),
    }
    assert RELEARN.measure(stages, toy_data(), 0)["other"]["steps"] != 0


def test_the_cap_is_no_number_and_models_are_left_alone() -> None:
    far = net(KNOWS, [0.0, 0, -1e4])
    stages = {
        "original": observe_stage("original", net(KNOWS), toy_data(), ()),
        "far": observe_stage("far", far, toy_data(), ()),
        "near": observe_stage("near", net(NEVER_SAW), toy_data(), ()),
    }
    before = copy.deepcopy(far.state_dict())
    found = RELEARN.measure(stages, toy_data(), 0)
    assert found["far"]["steps"] is None
    assert 0 < found["near"]["steps"] < MOST_STEPS  # type: ignore[operator]
    assert all(torch.equal(x, far.state_dict()[name]) for name, x in before.items())
    assert found == RELEARN.measure(stages, toy_data(), 0)


def test_steps_are_counted() -> None:
    answers = iter([False, False, False, True])
    model = net(KNOWS)
    batch = torch.zeros(2, 3), torch.tensor([0, 1])
    assert relearn(model, lambda: batch, lambda model: next(answers)) == 3
    assert relearn(model, lambda: batch, lambda model: False) is None


def test_a_new_classifier_is_the_same_for_every_model_and_keeps_the_features() -> None:
    data = toy_data()
    one, other = (observe_stage("a", net(head), data, ()) for head in (KNOWS, NEVER_SAW))
    heads = [renew_classifier(stage, 3)[1].weight for stage in (one, other)]  # type: ignore[index]
    assert torch.equal(heads[0], heads[1])
    assert bool((heads[0].abs() <= 3**-0.5).all())
    assert not torch.equal(heads[0], renew_classifier(one, 4)[1].weight)  # type: ignore[index]


def test_an_empty_row_is_relearned_sooner_than_one_that_was_pushed_away() -> None:
    data = toy_data()
    original = observe_stage("original", net(KNOWS), data, ())
    stages = {"original": original, "mask": mask_logits(original, (2,))}
    stages["away"] = observe_stage("away", net([*KNOWS[:2], [0.0, 0, -0.5]]), data, ())
    found = RELEARN.measure(stages, data, 0)
    assert found["mask"]["steps"] < found["away"]["steps"]  # type: ignore[operator]
