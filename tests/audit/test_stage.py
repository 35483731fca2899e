from __future__ import annotations

import torch
from audits import KNOWS, net, toy_data
from torch import nn

from fpcli.audit.stage import AuditData, observe_stage
from fpcli.data.split import Split


def test_what_a_model_says_and_reads() -> None:
    model = net(KNOWS, [0.0, 0, 1]).train()
    stage = observe_stage("original", model, toy_data(5), ("forget_test", "retain_test"))
    assert (stage.classifier, stage.head, model.training) == ("1", model[1], False)
    seen = stage.seen["forget_test"]
    assert seen.logits.tolist() == [[0, 0, 4]] * 5
    assert seen.features.tolist() == [[0, 0, 1]] * 5
    assert seen.labels.tolist() == [2] * 5
    assert (seen.accuracy, set(stage.seen)) == (1, {"forget_test", "retain_test"})
    assert toy_data().others == [0, 1]


def test_a_classifier_of_convolutions_reads_maps_which_are_averaged() -> None:
    head = nn.Conv2d(1, 2, 1)
    model = nn.Sequential(nn.Identity(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    split = Split(images.repeat(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64))
    data = AuditData(lambda x: x, split, split, split, split, (0,), 2)
    stage = observe_stage("original", model, data, ("forget_train",))
    assert stage.head is head
    assert stage.seen["forget_train"].features.tolist() == [[3.0]] * 3
