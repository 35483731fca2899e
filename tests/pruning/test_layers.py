from __future__ import annotations

import pytest
from prunings import named

from fpcli.errors import UsageError
from fpcli.pruning.layers import count_weights_and_macs, list_numbered, list_writers, select
from fpcli.structure.support import Support


def test_layers_are_numbered_without_projections() -> None:
    plain, projected = named("resnet20-pad"), named("resnet20")
    assert len(list_numbered(plain.layout)) == len(list_numbered(projected.layout)) == 20
    # 1 is the stem, even numbers are first convolutions of blocks.
    assert list_numbered(projected.layout)[:3] == [
        "conv.weight", "stage1.0.conv1.weight", "stage1.0.conv2.weight",
    ]  # fmt: skip
    assert count_weights_and_macs(plain.layout, Support()) == count_weights_and_macs(
        projected.layout, Support()
    )


def test_places_are_numbers_ranges_modules_and_patterns() -> None:
    net = named("resnet20")
    assert select(net, "2", "--rate") == {"stage1.0.conv1"}
    # Layer 3 writes to the maps that the stem began.
    assert select(net, "3", "--rate") == select(net, "stage1.2.conv2", "--rate") == {"conv"}
    assert select(net, "2-3", "--rate") == {"stage1.0.conv1", "conv"}
    assert select(net, "stage1", "--rate") == {"conv", *(f"stage1.{n}.conv1" for n in range(3))}
    assert select(net, "stage?.0.conv1", "--rate") == {f"stage{n}.0.conv1" for n in (1, 2, 3)}
    assert select(net, "fc", "--ignore") == {"fc"}


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("stage1.0.conv3", "no module `stage1.0.conv3`", "did you mean"),
        ("bn", "`bn` makes no channels", "such as"),
        ("0", "no layers `0`", "1 to 20"),
        ("19-21", "no layers `19-21`", "1 to 20"),
        ("5-3", "no layers `5-3`", "1 to 20"),
        ("nothing*", "no module `nothing\\*`", "such as"),
    ],
)
def test_unknown_places_are_refused(word: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        select(named("resnet20"), word, "--ignore")
    assert hint in caught.value.hint


def test_the_writers_of_a_sum_are_all_who_add_to_it() -> None:
    net = named("resnet20")
    group = net.layout.groups["conv"]
    assert list_writers(net.template, group) == [
        "conv.weight",
        *(f"stage1.{n}.conv2.weight" for n in range(3)),
    ]
    # Stage 2 begins with a projection, which is no numbered layer.
    (second,) = (
        g
        for g in net.layout.groups.values()
        if "stage2.0.conv2.weight" in list_writers(net.template, g)
    )
    assert set(list_writers(net.template, second)) - set(list_numbered(net.layout)) == {
        "stage2.0.shortcut.0.weight"
    }
