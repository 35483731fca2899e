from __future__ import annotations

import json

import pytest
import torch

from fpcli.errors import LayoutError
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.trace import trace


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "norms"])
def test_json_round_trip_keeps_everything(net, name):
    layout = trace(*net(name))
    text = json.dumps(layout.to_json())
    again = Layout.from_json(json.loads(text))
    assert again.digest == layout.digest and len(layout.digest) == 64
    assert again.tensors == layout.tensors
    for name, group in layout.groups.items():
        other = again.groups[name]
        assert (other.width, other.block, other.protected) == (
            group.width,
            group.block,
            group.protected,
        )
        for one, two in zip(group.members, other.members, strict=True):
            assert (one.tensor, one.dim, one.produces) == (two.tensor, two.dim, two.produces)
            assert torch.equal(one.index, two.index) and two.index.dtype == torch.int64


def test_regular_tables_are_written_in_four_numbers(net):
    layout = trace(*net("lenet5"))
    assert len(json.dumps(layout.to_json())) < 3000


def test_irregular_tables_are_written_in_full():
    index = torch.tensor([[0, 5], [1, 3], [2, 4]])
    group = Group("g", 3, (Member("w", 0, index),))
    layout = Layout({"w": TensorSpec((6,), True)}, {"g": group})
    again = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert torch.equal(again.groups["g"].members[0].index, index)


def test_the_digest_depends_on_every_part():
    def digest(width: int = 3, protected: bool = False, first: int = 0) -> str:
        index = torch.arange(first, first + width)[:, None]
        group = Group("g", width, (Member("w", 0, index),), protected=protected)
        return Layout({"w": TensorSpec((9,), True)}, {"g": group}).digest

    assert digest() == digest()
    assert len({digest(), digest(width=2), digest(protected=True), digest(first=1)}) == 4


@pytest.mark.parametrize("data", [{}, {"tensors": [], "groups": [{}], "fixed_macs": 0}, []])
def test_foreign_data_is_an_error(data):
    with pytest.raises(LayoutError, match="not a layout"):
        Layout.from_json(data)
