from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.errors import ClientError
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.merge import Contribution, merge
from fpcli.structure.support import Support

RULES = ("skip", "keep", "zero")


def vector(width: int) -> Layout:
    group = Group("g", width, (Member("w", 0, torch.arange(width)[:, None]),))
    return Layout({"w": TensorSpec((width,), True)}, {"g": group})


def trained(old: list[float], values: list[float | None], weight: float = 1.0) -> Contribution:
    """A client that holds the numbers and has not the Nones."""
    held = [i for i, value in enumerate(values) if value is not None]
    delta = torch.tensor([values[i] - old[i] for i in held])  # type: ignore[operator]
    support = Support() if len(held) == len(old) else Support({"g": torch.tensor(held)})
    return Contribution(support, {"w": delta}, weight)


def run(old: list[float], clients: list[Contribution], **options) -> torch.Tensor:
    return merge(vector(len(old)), {"w": torch.tensor(old)}, clients, **options)["w"]


OLD = [1.0, 2.0, 3.0, 4.0]
FEDMP = [[1.3, 2.3, 3.3, 4.3], [0.7, 2.6, None, None], [1.6, None, 2.4, None]]


@pytest.mark.parametrize(
    ("absent", "counts", "expected"),
    [
        ("keep", (1, 1, 1), (1.2, 2.3, 2.9, 4.1)),
        ("keep", (100, 200, 100), (1.075, 2.375, 2.925, 4.075)),
        ("skip", (1, 1, 1), (1.2, 2.45, 2.85, 4.3)),
        ("zero", (1, 1, 1), (1.2, 4.9 / 3, 1.9, 4.3 / 3)),
    ],
)
def test_residual_recovery_and_what_it_is_not(absent, counts, expected):
    """Keep: (1.3 + .7 + 1.6)/3; (2.3 + 2.6 + 2)/3; (3.3 + 3 + 2.4)/3; (4.3 + 4 + 4)/3."""
    clients = [trained(OLD, v, c) for v, c in zip(FEDMP, counts, strict=True)]
    assert run(OLD, clients, absent=absent).tolist() == pytest.approx(expected, abs=1e-6)


COVERAGE = [
    [1.2, 2.4, 2.8, 4.4],
    [0.8, 2.2, None, None],
    [None, 1.6, 3.3, None],
    [1.3, None, 3.2, None],
]


def test_coverage_mean():
    def coverage(counts=(1, 1, 1, 1), **options):
        clients = [trained(OLD, v, c) for v, c in zip(COVERAGE, counts, strict=True)]
        return run(OLD, clients, **options).tolist()

    assert coverage() == pytest.approx((1.1, 2.066667, 3.1, 4.4), abs=1e-6)
    assert coverage((100, 300, 50, 50)) == pytest.approx((0.944444, 2.177778, 3.025, 4.4), abs=1e-6)
    assert coverage(absent="zero") == pytest.approx((0.825, 1.55, 2.325, 1.1), abs=1e-6)
    assert coverage(absent="keep") == pytest.approx((1.075, 2.05, 3.075, 4.1), abs=1e-6)


def test_what_nobody_holds_stays():
    clients = [trained(OLD, [1.2, 2.4, 2.8, None])]
    assert run(OLD, clients).tolist()[3] == 4.0
    assert run(OLD, clients, absent="zero").tolist()[3] == 0.0


def test_width_levels():
    """Widths 4, 2 and 1: (1 + 3 + 8)/3 = 4, (2 + 6)/2 = 4, 3, 4."""
    old = [10.0, 20.0, 30.0, 40.0]
    levels = [[1.0, 2.0, 3.0, 4.0], [3.0, 6.0, None, None], [8.0, None, None, None]]
    assert run(old, [trained(old, v) for v in levels]).tolist() == [4, 4, 3, 4]
    assert run(old, [trained(old, v) for v in levels[1:]]).tolist() == [5.5, 6, 30, 40]


def test_personal_masks():
    """Only holders count, and what lies off a client's mask is ignored."""
    layout = Layout({"w": TensorSpec((2, 3), True), "b": TensorSpec((2,), True)}, {})
    old = {"w": torch.arange(1.0, 7).reshape(2, 3), "b": torch.zeros(2)}

    def client(w, mask, b):
        delta = {"w": torch.tensor(w) - old["w"], "b": torch.tensor(b)}
        return Contribution(Support(mask={"w": torch.tensor(mask).bool()}), delta, 1.0)

    clients = [
        client([[2.0, 0, 0], [1, 1, 0]], [[1, 0, 0], [1, 1, 0]], [1.0, 0]),
        client([[4.0, 3, 0], [0, 3, 0]], [[1, 1, 0], [0, 1, 0]], [3.0, 2]),
    ]
    new = merge(layout, old, clients)
    assert new["w"].tolist() == [[3, 3, 3], [1, 2, 6]]
    assert new["b"].tolist() == [2, 1]
    # The vote of every second client is 0: (2 + 4)/2, 3/2, 0 and 1/2, (1 + 3)/2, 0.
    zeros = merge(layout, old, clients, absent="zero")
    assert zeros["w"].tolist() == [[3, 1.5, 0], [0.5, 2, 0]]


def test_a_mask_under_removed_channels():
    """Two axes and a mask at once, against the formula on dense tensors."""
    rows = Group("r", 3, (Member("w", 0, torch.arange(3)[:, None]),))
    columns = Group("c", 4, (Member("w", 1, torch.arange(4)[:, None]),))
    layout = Layout({"w": TensorSpec((3, 4), True)}, {"r": rows, "c": columns})
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(3, 4, generator=generator)
    supports = [
        Support({"r": torch.tensor([0, 2])}, {"w": torch.rand(3, 4, generator=generator) > 0.5}),
        Support({"r": torch.tensor([1, 2]), "c": torch.tensor([0, 3])}),
        Support({"c": torch.tensor([1, 2, 3])}),
    ]
    clients, total, held = [], torch.zeros(3, 4), torch.zeros(3, 4)
    for weight, support in enumerate(supports, start=2):
        block = torch.randn(support.block_shapes(layout)["w"], generator=generator)
        values, coverage = support.scatter(layout, {"w": block})
        total += weight * values["w"]
        held += weight * coverage["w"]
        clients.append(Contribution(support, {"w": block}, weight))
    expected = {
        "skip": old + 0.5 * torch.where(held > 0, total / held.clamp(min=1), 0.0),
        "keep": old + 0.5 * total / 9,
        "zero": old + 0.5 * ((old * held + total) / 9 - old),
    }
    for absent, want in expected.items():
        new = merge(layout, {"w": old}, clients, absent=absent, server_lr=0.5)["w"]
        assert torch.allclose(new, want, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3),
            st.floats(0.125, 900, width=32),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from((1.0, 0.5)),
)
def test_full_coverage_makes_the_rules_equal(rows, server_lr):
    clients = [Contribution(Support(), {"w": torch.tensor(v)}, w) for v, w in rows]
    old = [1.0, -2.0, 0.3]
    one, two, three = (run(old, clients, absent=a, server_lr=server_lr) for a in RULES)
    assert torch.equal(one, two) and torch.equal(two, three)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=4))
def test_no_change_is_no_change(keeps):
    old = torch.randn(5, generator=torch.Generator().manual_seed(1))
    clients = [
        Contribution(Support({"g": torch.tensor(sorted(k))}), {"w": torch.zeros(len(k))}, 3.7)
        for k in keeps
    ]
    for absent in ("skip", "keep"):
        assert torch.equal(merge(vector(5), {"w": old}, clients, absent=absent)["w"], old)


def test_the_values_given_are_not_written_to():
    old = {"w": torch.tensor(OLD)}
    new = merge(vector(4), old, [trained(OLD, FEDMP[0])], absent="zero")
    new["w"].zero_()
    assert old["w"].tolist() == OLD


@pytest.mark.parametrize("clients", [[], [Contribution(Support(), {"w": torch.zeros(4)}, 0.0)]])
def test_nothing_to_merge_is_an_error(clients):
    with pytest.raises(ClientError, match="nothing to merge"):
        run(OLD, clients)
