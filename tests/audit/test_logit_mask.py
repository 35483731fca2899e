from __future__ import annotations

import torch
from audits import KNOWS, net, toy_data

from fpcli.audit.logit_mask import LOGIT_MASK, mask_logits
from fpcli.audit.stage import AUDIT_PARTS, observe_stage


def test_the_class_is_gone_and_the_others_stay() -> None:
    data = toy_data()
    original = observe_stage("original", net(KNOWS, [0.0, 0, 1]), data, AUDIT_PARTS)
    stages = {"original": original, "logit_mask": mask_logits(original, data.classes)}
    found = LOGIT_MASK.measure(stages, data, 0)
    assert found["original"] == {"forget_accuracy": 1, "retain_accuracy": 1}
    assert found["logit_mask"] == {"forget_accuracy": 0, "retain_accuracy": 1}


def test_only_the_copy_has_an_empty_row() -> None:
    model = net(KNOWS, [1.0, 2, 3])
    original = observe_stage("original", model, toy_data(), ("forget_test",))
    made = mask_logits(original, (2,))
    assert made.head.weight.tolist() == [*KNOWS[:2], [0, 0, 0]]  # type: ignore[union-attr, operator]
    assert made.head.bias.tolist() == [1, 2, 0]  # type: ignore[union-attr, operator]
    assert model[1].weight.tolist() == KNOWS
    logits = made.seen["forget_test"].logits
    assert bool((logits[:, 2] == -torch.inf).all())
    assert torch.equal(logits[:, :2], original.seen["forget_test"].logits[:, :2])
    assert torch.equal(made.seen["forget_test"].features, original.seen["forget_test"].features)
