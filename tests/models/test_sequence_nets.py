"""Networks of sequences: the worked numbers of FMLP-Rec, padding, learning, and files."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.export.formats import silence_exporters
from fpcli.models.build import find_factory, measure_shapes
from fpcli.models.fmlp_nets import FilterBlock, FMLPRec, FourierFilter
from fpcli.models.item_embedding import ItemEmbedding
from fpcli.models.sasrec import AttentionBlock

NAMES = ["fmlp", "fmlp-parity", "sasrec", "gru4rec"]
SIZE = 6
"""Length of sequences; there are twice as many items."""


def make(name: str, seed: int = 0, length: int = SIZE, items: int = 2 * SIZE) -> nn.Module:
    torch.manual_seed(seed)
    return find_factory(name)((length,), items)


def draw_ids(num: int, length: int = SIZE, items: int = 2 * SIZE) -> Tensor:
    """Return sequences with up to all but one position of padding in front."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, items + 1, (num, length), generator=generator)
    starts = torch.randint(0, length, (num, 1), generator=generator)
    return torch.where(torch.arange(length) < starts, 0, ids)


def count(module: nn.Module) -> int:
    return sum(x.numel() for x in module.parameters())


@pytest.mark.parametrize(("items", "parameters"), [(12_101, 851_200), (1_682, 184_384)])
def test_fmlp_has_the_parameters_of_its_formula(items: int, parameters: int) -> None:
    with torch.device("meta"):
        model = find_factory("fmlp")((50,), items)
    assert count(model) == parameters
    assert [count(block) for block in model.blocks] == [36_672, 36_672]
    assert count(model.blocks[0].filter) + count(model.blocks[0].norm1) == 3_456


def worked_filter() -> FourierFilter:
    layer = FourierFilter(4, 1)
    weight = torch.tensor([[[0.5, 0.7]], [[1.0, -1.0]], [[0.25, 2.0]]])
    layer.load_state_dict({"weight": weight})
    return layer


WORKED = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)


def test_the_filter_by_hand() -> None:
    """X = (5, -1+i, -1); c = (1, -1, 2, 0.5) gives the gradient of the sum of c * y."""
    layer = worked_filter()
    spectrum = (layer.analysis @ WORKED).flatten().tolist()
    assert spectrum == pytest.approx([5, -1, -1, 0, 1, 0])
    y = layer(WORKED)
    assert y.flatten().tolist() == pytest.approx([1.125, -0.625, 1.125, 3.375])
    (y.flatten() * torch.tensor([1.0, -1.0, 2.0, 0.5])).sum().backward()
    real, imaginary = layer.weight.grad[:, 0].unbind(1)
    assert real.tolist() == pytest.approx([6.25, 2.5, -1.75])
    assert imaginary.tolist() == pytest.approx([0, -0.5, 0])


def test_the_filter_is_a_circular_convolution() -> None:
    kernel = [0.6875, 0.5625, -0.3125, -0.4375]
    y = worked_filter()(WORKED).flatten()
    wanted = [sum(kernel[(t - s) % 4] * (s + 1) for s in range(4)) for t in range(4)]
    assert y.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(("length", "rows"), [(4, [0, 2]), (5, [0]), (1, [0]), (50, [0, 25])])
def test_imaginary_parts_without_effect(length: int, rows: list[int]) -> None:
    """Of the frequency 0, and for even lengths of half the length: not a bit, and no gradient."""
    layer = FourierFilter(length, 3)
    x = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    (before * torch.randn(before.shape)).sum().backward()
    still = (layer.weight.grad[..., 1] == 0).all(1).nonzero().flatten().tolist()
    assert still == rows
    with torch.no_grad():
        layer.weight[rows, :, 1] += 5.0
        assert layer(x).equal(before)
        if length > 1:
            layer.weight[1, :, 1] += 5.0 if length > 2 else 0.0
            assert not layer(x).equal(before)


@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_the_filter_is_torchs_transform(length: int) -> None:
    layer = FourierFilter(length, 3)
    nn.init.normal_(layer.weight)
    x = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(layer.weight)
    wanted = torch.fft.irfft(spectrum, length, dim=1, norm="ortho")
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(layer(x, start=-1), wanted[:, -1:])
    layer.load_state_dict({"weight": torch.tensor([1.0, 0.0]).expand(length // 2 + 1, 3, 2)})
    torch.testing.assert_close(layer(x), x)


def test_initial_values_of_fmlp() -> None:
    model = make("fmlp", length=50, items=1000)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert 0.019 < float(layer.weight.detach().std()) < 0.021
            assert not layer.bias.any()
        if isinstance(layer, nn.LayerNorm):
            assert layer.eps == 1e-12 and bool((layer.weight == 1).all())
        if isinstance(layer, nn.Dropout):
            assert layer.p == 0.5
    for x in (model.item.weight[1:], model.position, *(b.filter.weight for b in model.blocks)):
        assert 0.019 < float(x.detach().std()) < 0.021


def test_fmlp_is_its_formula() -> None:
    """All of it by torch's functions, every position, where the network computes what it must."""
    model, ids = make("fmlp").eval(), draw_ids(8)
    w = dict(model.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (var + 1e-12).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    h = norm(w["item.weight"][ids] + w["position"], "norm")
    for block in ("blocks.0", "blocks.1"):
        filter = torch.view_as_complex(w[f"{block}.filter.weight"])
        spectrum = torch.fft.rfft(h, dim=1, norm="ortho") * filter
        z = norm(h + torch.fft.irfft(spectrum, SIZE, dim=1, norm="ortho"), f"{block}.norm1")
        inner = z @ w[f"{block}.fc1.weight"].t() + w[f"{block}.fc1.bias"]
        inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        inner = inner @ w[f"{block}.fc2.weight"].t() + w[f"{block}.fc2.bias"]
        h = norm(z + inner, f"{block}.norm2")
    wanted = torch.stack([h[:, -1] @ w["item.weight"][i + 1] for i in range(2 * SIZE)], 1)
    torch.testing.assert_close(model(ids), wanted)


def test_filters_of_blocks_start_alike_only_in_parity() -> None:
    for name, alike in (("fmlp", False), ("fmlp-parity", True)):
        first, second = (block.filter.weight for block in make(name).blocks)
        assert first.equal(second) == alike
        first, second = (block.fc1.weight for block in make(name).blocks)
        assert not first.equal(second)


def test_a_filter_mixes_all_positions_and_attention_only_earlier_ones() -> None:
    """So of FMLP-Rec only the last position may be trained: the others have seen their targets."""
    x = torch.randn(1, SIZE, 8, generator=torch.Generator().manual_seed(0))
    changed = torch.cat([x[:, :-1], x[:, -1:] + 1.0], 1)
    seen = torch.ones(1, SIZE, SIZE, dtype=torch.bool).tril()
    mixing, causal = FilterBlock(SIZE, 8).eval(), AttentionBlock(8).eval()
    nn.init.normal_(mixing.filter.weight)
    differ = (mixing(x) - mixing(changed)).abs().amax(2)[0]
    assert bool((differ > 1e-3).all())
    assert causal(x, seen)[:, :-1].equal(causal(changed, seen)[:, :-1])
    assert not causal(x, seen)[:, -1].equal(causal(changed, seen)[:, -1])
    torch.testing.assert_close(causal(x, seen, start=-1), causal(x, seen)[:, -1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_of_nothing_has_finite_scores(name: str) -> None:
    model = make(name)
    for mode in (True, False):
        scores = model.train(mode)(torch.zeros(3, SIZE, dtype=torch.int64))
        assert scores.shape == (3, 2 * SIZE) and scores.dtype == torch.float32
        assert bool(scores.isfinite().all())


def test_attention_does_not_look_at_padding() -> None:
    model = make("sasrec").eval()
    ids = torch.tensor([[0, 0, 3, 1, 4, 2]])
    before = model(ids)
    with torch.no_grad():
        model.position[:2] += 1.0
        assert model(ids).equal(before)
        model.position[2:] += torch.arange(4.0)[:, None]
        assert not model(ids).equal(before)


def test_a_column_is_the_score_of_the_next_item() -> None:
    items = ItemEmbedding(3, 2)
    with torch.no_grad():
        items.weight[1:] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]])
    assert items.score(torch.tensor([[5.0, 7.0]])).tolist() == [[5.0, 7.0, 31.0]]


@pytest.mark.parametrize("name", [f"{name}@0.25" for name in NAMES])
def test_it_learns_what_comes_next(name: str) -> None:
    """Each item is followed by the next one, and the last by the first; padding stays as it was."""
    model, ids = make(name), draw_ids(256)
    padding = model.item.weight[0].detach().clone()
    assert bool(padding.any()) == (name == "fmlp-parity@0.25")
    target = ids[:, -1] % (2 * SIZE)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {key: x.detach().clone() for key, x in model.named_parameters()}
    for part in torch.arange(256).repeat(16).split(32):
        optimiser.zero_grad()
        F.cross_entropy(model(ids[part]), target[part]).backward()
        optimiser.step()
    assert model.item.weight[0].equal(padding)
    assert not any(x.equal(before[key]) for key, x in model.named_parameters())
    fresh = draw_ids(400)[256:]
    accuracy = (model.eval()(fresh).argmax(1) == fresh[:, -1] % (2 * SIZE)).float().mean()
    assert float(accuracy) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_width_is_a_factor_of_all_channels(name: str) -> None:
    wide, narrow = make(name), make(f"{name}@0.5")
    assert (wide.item.weight.shape[1], narrow.item.weight.shape[1]) == (64, 32)
    assert count(narrow) < 0.6 * count(wide)
    assert narrow(draw_ids(2)).shape == (2, 2 * SIZE)
    if isinstance(narrow, FMLPRec):
        assert [block.fc1.out_features for block in narrow.blocks] == [128, 128]
    assert make(f"{name}@0.01")(draw_ids(2)).shape == (2, 2 * SIZE)


@pytest.mark.parametrize("name", NAMES)
def test_its_shapes_take_no_memory(name: str) -> None:
    shapes = measure_shapes(name, (SIZE,), 2 * SIZE)
    assert shapes == {key: tuple(x.shape) for key, x in make(name).state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_images_are_no_sequences(name: str) -> None:
    with pytest.raises(ValueError, match="sequences of items"):
        find_factory(name)((1, 8, 8), 10)


@pytest.mark.parametrize("name", ["fmlp", "sasrec", "gru4rec"])
def test_a_program_takes_batches_of_any_size(name: str) -> None:
    model, ids = make(name).eval(), draw_ids(5)
    with silence_exporters():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (ids[:2],), dynamic_shapes=shapes)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        run = torch.export.load(buffer).module()
    for part in ids.split([1, 4]):
        torch.testing.assert_close(run(part), model(part))


@pytest.mark.parametrize(
    "name",
    ["fmlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sasrec", "gru4rec"))],
)
def test_onnx_takes_batches_of_any_size(name: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, ids = make(name).eval(), draw_ids(5)
    with silence_exporters():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (ids[:2],), dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program, dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False, external_data=False
        )
    assert exported is not None
    session = runtime.InferenceSession(exported.model_proto.SerializeToString())
    (place,) = session.get_inputs()
    for part in ids.split([1, 4]):
        (scores,) = session.run(None, {place.name: part.numpy()})
        torch.testing.assert_close(torch.from_numpy(scores), model(part).detach())
