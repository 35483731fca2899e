"""Networks that take ids: their channels, products, masks and complex weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.errors import LayoutError
from fpcli.models.build import find_factory
from fpcli.models.fmlp_nets import FourierFilter
from fpcli.structure.budget import keep_largest, list_masked_weights
from fpcli.structure.choice import draw_example
from fpcli.structure.cost import count_cost, count_macs
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.pairs import mask_entries, measure_entries, sum_entries
from fpcli.structure.reuse import find_prefix
from fpcli.structure.shrink import hollow_out, shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.structure.verify import draw_batch, verify_cuts

LENGTH, ITEMS, WIDTH = 10, 30, 8
NAMES = ["fmlp", "sasrec", "gru4rec"]
IDS = torch.arange(LENGTH)[None] + 1


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return find_factory(f"{name}@{WIDTH / 64}")((LENGTH,), ITEMS).eval()


def values_of(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[name] for name in layout.tensors}


@pytest.mark.parametrize(
    ("name", "hidden"), [("fmlp", 4 * WIDTH), ("sasrec", WIDTH), ("gru4rec", 0)]
)
def test_hidden_channels_can_be_cut(name: str, hidden: int) -> None:
    groups = trace(make(name), IDS).prunable
    wanted = ["blocks.0.fc1", "blocks.1.fc1"] if hidden else []
    assert {key: group.width for key, group in groups.items()} == dict.fromkeys(wanted, hidden)
    for key, group in groups.items():
        places = [(f"{key}.weight", 0), (f"{key}.bias", 0), (f"{key[:-1]}2.weight", 1)]
        assert [(member.tensor, member.dim) for member in group.members] == places


def test_products_of_fmlp_by_hand() -> None:
    """The last block computes one position, but the filter before it takes all of them."""
    layout, bins = trace(make("fmlp"), IDS), LENGTH // 2 + 1
    uses = {name: spec.uses for name, spec in layout.tensors.items() if spec.uses}
    assert uses == {
        "item.weight": pytest.approx(ITEMS / (ITEMS + 1)),
        **{f"blocks.{n}.filter.weight": 2.0 for n in (0, 1)},
        **{f"blocks.0.fc{n}.weight": LENGTH for n in (1, 2)},
        **{f"blocks.1.fc{n}.weight": 1.0 for n in (1, 2)},
    }
    transforms = 2 * bins * WIDTH * (LENGTH + LENGTH + LENGTH + 1)
    assert layout.fixed_macs == pytest.approx(transforms)


def test_products_of_its_rivals_by_hand() -> None:
    layout = trace(make("sasrec"), IDS)
    attention = WIDTH * 2 * LENGTH * (LENGTH + 1)  # likeness and mean; by all, then by the last
    assert layout.fixed_macs == pytest.approx(attention)
    found = [layout.tensors[f"blocks.1.{key}.weight"].uses for key in ("query", "key", "value")]
    assert found == [1.0, LENGTH, LENGTH]
    layout = trace(make("gru4rec"), IDS)
    assert layout.fixed_macs == pytest.approx(0.0)
    found = [layout.tensors[f"gru.weight_{key}_l0"].uses for key in ("ih", "hh")]
    assert found == [LENGTH, LENGTH]


def test_what_masks_are_for() -> None:
    """Never norms, biases, or embeddings of positions."""
    per_block = ("filter", "fc1", "fc2")
    blocks = [f"blocks.{n}.{key}.weight" for n in (0, 1) for key in per_block]
    assert list_masked_weights(trace(make("fmlp"), IDS)) == ["item.weight", *blocks]
    matrices = ["item.weight", "gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert list_masked_weights(trace(make("gru4rec"), IDS)) == matrices
    assert "position" not in list_masked_weights(trace(make("sasrec"), IDS))


@pytest.mark.parametrize("name", NAMES)
def test_a_sub_model_computes_what_the_masked_one_does(name: str) -> None:
    model = make(name)
    layout = trace(model, IDS)
    generator = torch.Generator().manual_seed(0)
    mask = {
        key: torch.rand(layout.tensors[key].shape, generator=generator) < 0.5
        for key in list_masked_weights(layout)
    }
    keep = {key: torch.arange(0, group.width, 3) for key, group in layout.prunable.items()}
    support = Support(keep, mask)
    block = support.gather(layout, values_of(model, layout))
    small = shrink(hollow_out(model), {key: x.clone() for key, x in block.items()}).eval()
    whole, masked = count_cost(layout, Support(keep)), count_cost(layout, support)
    assert whole.params == sum(x.numel() for x in small.parameters())
    assert whole.macs == pytest.approx(count_macs(small, IDS).total)
    dead = [int((~bits).sum()) for bits in support.block_mask(layout).values()]
    assert masked.params == whole.params - sum(dead)
    assert layout.fixed_macs < masked.macs < 0.7 * whole.macs + 0.3 * layout.fixed_macs
    ids = draw_batch(model, IDS)
    model.load_state_dict(support.scatter(layout, block)[0])
    torch.testing.assert_close(small(ids), model(ids))
    assert bool(small(torch.zeros_like(ids)).isfinite().all())
    optimiser = torch.optim.SGD(small.train().parameters(), lr=0.1)
    F.cross_entropy(small(ids), torch.tensor([1, 2])).backward()
    optimiser.step()
    trained = small.state_dict()
    assert not any(trained[key].equal(x) for key, x in block.items())
    assert not trained["item.weight"][0].any()


def test_ids_are_drawn_from_all_that_are_valid() -> None:
    model = nn.Sequential(nn.Embedding(50, 4), nn.Embedding(9, 4))
    for example, top in (
        (torch.zeros(1, 400, dtype=torch.int64), 8),
        (torch.full((1, 400), 20), 20),
    ):
        drawn = draw_batch(model, example)
        assert drawn.shape == (2, 400) and drawn.dtype == torch.int64
        assert (int(drawn.min()), int(drawn.max())) == (0, top)
        assert not drawn[0].equal(drawn[1])
    drawn = draw_example((4, 100), 3, num_ids=7)
    assert drawn.shape == (3, 4, 100)
    assert (int(drawn.min()), int(drawn.max())) == (1, 7)


@pytest.mark.parametrize("name", ["fmlp", "sasrec"])
def test_a_wrong_cut_is_seen_on_ids(name: str) -> None:
    model = make(name)
    layout = trace(model, IDS)
    group = layout.groups["blocks.0.fc1"]
    members = [replace(m, index=m.index.roll(m.dim, 0)) for m in group.members]
    wrong = {**layout.groups, group.name: replace(group, members=tuple(members))}
    verify_cuts(model, layout, IDS)
    with pytest.raises(LayoutError, match=r"something else .* \(channels of `blocks.0.fc1`\)"):
        verify_cuts(model, Layout(layout.tensors, wrong), IDS)


class BareProducts(nn.Module):
    """Products with parameters outside of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6))
        self.scale = nn.Parameter(torch.randn(5, 6))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((x @ self.matrix) * self.scale).sum(1)


def test_a_product_belongs_to_its_parameter() -> None:
    """[5, 4] x [4, 6] and [5, 6] x [6, 3]; an elementwise product with real numbers is none."""
    macs = count_macs(BareProducts(), torch.ones(2, 5, 4))
    assert macs.by_tensor == {"matrix": 5 * 24, "fc.weight": 5 * 18}
    assert macs.total == 5 * 24 + 5 * 18
    layout = trace(BareProducts(), torch.ones(1, 5, 4))
    assert layout.fixed_macs == 0
    assert list_masked_weights(layout) == ["matrix", "fc.weight"]


class Adapted(nn.Linear):
    """A linear layer that calculates with a copy of its weight, and one with a second product."""

    def __init__(self, *, is_copied: bool) -> None:
        super().__init__(4, 3)
        self.extra, self.is_copied = nn.Parameter(torch.randn(3, 4)), is_copied

    def forward(self, x: Tensor) -> Tensor:
        if self.is_copied:
            return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)
        return super().forward(x) + x @ self.extra.t()


def test_a_layer_may_calculate_with_a_copy_of_its_weight_or_with_more() -> None:
    x = torch.ones(1, 4)
    assert count_macs(Adapted(is_copied=True), x).by_tensor == {"weight": 12}
    assert count_macs(Adapted(is_copied=False), x).by_tensor == {"weight": 12, "extra": 12}
    assert count_macs(nn.Sequential(Adapted(is_copied=False)), x).total == 24


class Fourier(nn.Module):
    """A filter by torch's transforms, whose products are of complex numbers."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length // 2 + 1, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=1) * torch.view_as_complex(self.weight)
        return torch.fft.irfft(spectrum, x.shape[1], dim=1)


@pytest.mark.parametrize("kind", [Fourier, lambda length: FourierFilter(length, 3)])
@pytest.mark.parametrize(("length", "rows"), [(6, (0, 3)), (7, (0,))])
def test_complex_weights_are_found(
    kind: Callable[[int], nn.Module], length: int, rows: tuple[int, ...]
) -> None:
    """Four multiply-adds a product, so two for each of its numbers, whoever multiplies."""
    model = nn.Sequential(kind(length), nn.Flatten(), nn.Linear(3 * length, 2))
    layout = trace(model, torch.zeros(1, length, 3))
    assert layout.tensors["0.weight"] == TensorSpec((length // 2 + 1, 3, 2), True, 2.0, rows)
    assert not layout.tensors["2.weight"].is_complex


def test_a_layout_keeps_what_is_complex() -> None:
    layout = trace(make("fmlp"), IDS)
    again = Layout.from_json(layout.to_json())
    assert again.tensors == layout.tensors and again.digest == layout.digest
    assert again.tensors["blocks.1.filter.weight"].real_rows == (0, LENGTH // 2)
    plain = {"w": TensorSpec((2, 2), True, 1.0)}
    assert Layout(plain, {}).to_json()["tensors"] == [["w", [2, 2], True, 1.0]]
    assert Layout({"w": replace(plain["w"], real_rows=())}, {}).digest != Layout(plain, {}).digest


def test_an_entry_is_one_weight() -> None:
    """(3, 4) counts 5, but 3 at a frequency whose imaginary part has no effect."""
    spec = TensorSpec((3, 2, 2), True, 2.0, real_rows=(0, 2))
    layout = Layout({"w": spec, "fc": TensorSpec((2, 2), True, 1.0)}, {})
    values = {"w": torch.tensor([3.0, -4.0]).expand(3, 2, 2).clone(), "fc": torch.eye(2) * -4}
    sizes = measure_entries(layout, values)
    assert sizes["w"].tolist() == [[3, 3], [5, 5], [3, 3]]
    assert sizes["fc"].tolist() == [[4, 0], [0, 4]]
    sums = sum_entries(layout, {name: x.square() for name, x in values.items()})
    assert sums["w"].tolist() == [[9, 9], [25, 25], [9, 9]]
    assert sums["fc"].tolist() == [[16, 0], [0, 16]]
    mask = mask_entries(layout, keep_largest(sizes, 0.5))
    assert mask["fc"].tolist() == [[True, False], [False, True]]
    wanted = [[[True, False], [False, False]], [[True, True]] * 2, [[False, False]] * 2]
    assert mask["w"].tolist() == wanted


def test_parts_without_effect_can_always_leave() -> None:
    model = make("fmlp")
    layout = trace(model, IDS)
    name = "blocks.0.filter.weight"
    everything = {name: torch.ones(layout.tensors[name].shape[:-1], dtype=torch.bool)}
    mask = mask_entries(layout, everything)
    assert int((~mask[name]).sum()) == 2 * WIDTH
    ids = draw_batch(model, IDS)
    before = model(ids)
    pruned = Support(mask=mask).gather(layout, values_of(model, layout))
    assert shrink(model, pruned)(ids).equal(before)


def test_a_cut_of_the_last_block_shares_the_first_one() -> None:
    """All that comes before; but the embedding scores the output too, and so stays."""
    model = make("fmlp")
    layout, kept = trace(model, IDS), torch.arange(0, 4 * WIDTH, 2)
    support = Support({"blocks.1.fc1": kept})
    small = shrink(model, support.gather(layout, values_of(model, layout)))
    ids = draw_batch(model, IDS)
    prefix = find_prefix(model, small, layout, "blocks.1.fc1", 4 * WIDTH, kept, ids)
    assert {"blocks.0": None, "blocks.1.fc1": 2}.items() <= prefix.axes.items()
    assert "item" not in prefix.axes and prefix.reads_input
