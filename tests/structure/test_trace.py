from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from fpcli.errors import LayoutError
from fpcli.structure import verify
from fpcli.structure.layout import Layout
from fpcli.structure.opaque import match_modules
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace, trace_around

FAST = ["lenet5", "plain", "resnet20", "resnet18", "squeezenet1_1", "mobilenet_v2"]
SLOW = [
    *["resnet56", "vgg16", "densenet121", "convnext_tiny", "googlenet", "efficientnet_b0"],
    *["mnasnet0_5", "regnet_y_400mf", "mobilenet_v3_small", "swin_t", "vit_b_16"],
]
NUM_PRUNABLE = {
    "lenet5": 4,
    "plain": 3,
    "resnet20": 12,
    "resnet18": 12,
    "squeezenet1_1": 25,
    "mobilenet_v2": 25,
    "resnet56": 30,
    "vgg16": 15,
    "densenet121": 120,
    "convnext_tiny": 22,
    "googlenet": 57,
    "efficientnet_b0": 40,
    "mnasnet0_5": 25,
    "regnet_y_400mf": 21,
    "mobilenet_v3_small": 27,
    "swin_t": 12,
    "vit_b_16": 12,
}


def values_of(model: nn.Module, layout: Layout) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {name: state[name] for name in layout.tensors}


def random_keep(layout: Layout, seed: int, least: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for name, group in layout.prunable.items():
        low = max(1, int(least * group.width))
        count = int(torch.randint(low, group.width + 1, (), generator=generator))
        keep[name] = torch.randperm(group.width, generator=generator)[:count].sort().values
    return keep


def prune_in_place(model: nn.Module, x: torch.Tensor, layout: Layout, keep: dict) -> nn.Module:
    model = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(model, (x,), verbose=False)
    for name, channels in keep.items():
        group = layout.groups[name]
        gone = sorted(set(range(group.width)) - set(channels.tolist()))
        if gone:
            layer = model.get_submodule(name)
            pruner = graph.get_pruner_of_module(layer)
            graph.get_pruning_group(layer, pruner.prune_out_channels, gone).prune()
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_slicing_equals_pruning_in_place(net, name):
    model, x = net(name)
    layout = trace(model, x)
    assert len(layout.prunable) == NUM_PRUNABLE[name]
    # The reference (1.6.1) shuffles the channels of a layer norm when it keeps few of them.
    keep = random_keep(layout, seed=3, least=0.5 if name == "convnext_tiny" else 0.0)
    small = shrink(model, Support(keep).gather(layout, values_of(model, layout)))
    reference = prune_in_place(model, x, layout, keep)
    shapes = {key: value.shape for key, value in reference.state_dict().items()}
    assert {key: value.shape for key, value in small.state_dict().items()} == shapes
    with torch.no_grad():
        assert torch.equal(small(x), reference(x))
    small.train()
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_the_model_and_the_random_state_stay_as_they_are(net):
    model, x = net("resnet20")
    model.train()
    model(x).sum().backward()
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    random_state = torch.get_rng_state()
    with torch.no_grad():
        trace(model, x)
    assert torch.equal(random_state, torch.get_rng_state())
    assert model.training and not model.conv1.weight.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(torch.equal(dict(model.named_parameters())[n].grad, g) for n, g in grads.items())


def test_tracing_twice_gives_the_same_digest(net):
    model, x = net("resnet20")
    assert trace(model, x).digest == trace(model, x[:1]).digest


def test_a_flattened_channel_owns_its_columns(net):
    layout = trace(*net("lenet5"))
    columns = [m for m in layout.groups["conv2"].members if m.tensor == "fc1.weight"]
    assert columns[0].dim == 1 and columns[0].index[3].tolist() == list(range(75, 100))


def test_one_axis_behind_a_concatenation_has_several_groups(net):
    layout = trace(*net("squeezenet1_1"))
    axis = layout.axes["features.4.squeeze.weight"][1]
    assert [name for name, _ in axis.parts] == ["features.3.expand1x1", "features.3.expand3x3"]


def test_only_the_output_is_protected(net):
    layout = trace(*net("resnet18"))
    assert [g.name for g in layout.groups.values() if g.protected] == ["fc"]
    assert layout.groups["conv1"].width == 64
    assert "layer1.1.bn2.running_var" in {m.tensor for m in layout.groups["conv1"].members}


def test_padding_of_channels_protects_the_stream(net):
    model, x = net("resnet20_padding")
    layout = trace(model, x)
    assert len(layout.prunable) == 9
    assert layout.groups["conv1"].protected
    small = shrink(model, Support(random_keep(layout, 1)).gather(layout, values_of(model, layout)))
    assert small(x).shape == (2, 10)


def test_normalisation_groups_leave_as_blocks(net):
    model, x = net("norms")
    layout = trace(model, x)
    assert {n: (g.width, g.block, g.protected) for n, g in layout.groups.items()} == {
        "a": (12, 3, False),
        "b": (8, 1, False),
        "c": (6, 1, False),
        "fc": (5, 1, True),
    }
    small = shrink(
        model,
        Support({"a": torch.arange(6), "b": torch.tensor([1, 4])}).gather(
            layout, values_of(model, layout)
        ),
    )
    assert (small.gn.num_groups, small.gn.num_channels, small.ln.num_groups) == (2, 6, 1)
    assert (small.depth.groups, small.inorm.num_features) == (2, 2)
    assert torch.equal(small.gn(small.a(x)), model.gn(model.a(x))[:, :6])


class Numbered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).view(-1, 64))


class SpatialGate(Numbered):
    def forward(self, x):
        y = self.conv(x)
        return self.fc(torch.flatten(y * y.mean(1, keepdim=True), 1))


class Reversed(Numbered):
    def forward(self, x):
        return self.fc(self.conv(x).transpose(1, 3).flatten(1))


class Glu(Numbered):
    def forward(self, x):
        a, b = self.conv(x).chunk(2, 1)
        return self.fc(torch.cat([a * b, a], 1).flatten(1))


class FromInput(Numbered):
    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x) + x.expand(-1, 4, -1, -1) * 1.0, 1))


class Auxiliary(Numbered):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        y = torch.flatten(F.relu(self.conv(x)), 1)
        return self.fc(y) + self.head(y) if self.training else self.fc(y)


class Functional(Numbered):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x):
        return self.fc(torch.flatten(F.conv2d(self.conv(x), self.kernel), 1))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_number_in_a_reshape_is_named(batch):
    with pytest.raises(LayoutError, match=r"sub-model of Numbered .*`conv`") as caught:
        trace(Numbered(), torch.randn(batch, 1, 4, 4))
    assert "torch.flatten" in caught.value.hint


@pytest.mark.parametrize("kind", [Numbered, Reversed])
def test_few_cuts_find_the_wrong_one_of_many_groups(kind, monkeypatch):
    layers = [nn.Conv2d(1, 1, 1)] + [nn.Conv2d(1 if i == 0 else 4, 4, 1) for i in range(64)]
    model = kind()
    model.conv = nn.Sequential(*layers)
    cuts = []
    cut = verify.shrink
    monkeypatch.setattr(verify, "shrink", lambda *words: cuts.append(1) or cut(*words))
    with pytest.raises(LayoutError, match=r"channels of `conv\.64`"):
        trace(model, torch.randn(2, 1, 4, 4))
    assert len(cuts) < 16


def test_a_module_that_only_training_uses_is_named():
    with pytest.raises(LayoutError, match=r"`head`.* in training mode"):
        trace(Auxiliary(), torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize("kind", [SpatialGate, Glu, FromInput, Functional])
def test_operations_that_mix_channels_protect_them(kind):
    layout = trace(kind(), torch.randn(2, 1, 4, 4))
    assert layout.groups["conv"].protected and not layout.prunable


def test_channels_out_of_place_are_an_error():
    with pytest.raises(LayoutError, match="computes something else"):
        trace(Reversed(), torch.zeros(1, 1, 4, 4))


def test_a_shared_parameter_is_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(LayoutError, match=r"'0.weight' and '1.weight' are one shared tensor"):
        trace(model, torch.randn(2, 3))


def test_a_wrong_example_is_an_error(net):
    model, _ = net("lenet5")
    with pytest.raises(LayoutError, match="fails on the example"):
        trace(model, torch.randn(1, 3, 28, 28))


def test_a_channel_shuffle_is_an_error():
    import torchvision

    with pytest.raises(LayoutError, match=r"ShuffleNetV2 cannot be traced at .* behind") as caught:
        trace(torchvision.models.shufflenet_v2_x0_5(weights=None), torch.randn(1, 3, 64, 64))
    assert "shuffle" in caught.value.hint


def test_grouped_convolutions_are_protected():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
    )
    layout = trace(model, torch.randn(1, 3, 4, 4))
    assert list(layout.prunable) == ["2"]


def test_attention_is_protected_and_its_mlp_is_not():
    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    layout = trace(model, torch.randn(2, 5, 8))
    assert list(layout.prunable) == ["linear1"]


class Shuffle(nn.Module):
    def forward(self, x):
        rows, channels, *size = x.shape
        return x.view(rows, 2, channels // 2, *size).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.mix = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), Shuffle()

    def forward(self, x):
        return self.mix(torch.relu(self.b(torch.relu(self.a(x)))))


def shuffled(num_blocks=1):
    blocks = nn.Sequential(*[Block() for _ in range(num_blocks)])
    stem, last, head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Linear(12, 3)
    return nn.Sequential(stem, nn.ReLU(), blocks, last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def test_what_stops_the_tracer_is_named_with_the_option_that_gets_round_it():
    with pytest.raises(LayoutError, match="computes something else") as caught:
        trace_around(shuffled(), torch.zeros(1, 1, 8, 8))
    assert "`fp prune` with `--ignore 2.0.mix` leaves that alone" in caught.value.hint
    with pytest.raises(LayoutError) as caught:
        trace_around(shuffled(2), torch.zeros(1, 1, 8, 8))
    assert "`--ignore 2.0.mix --ignore 2.1.mix`" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "prunable"),
    [
        # The shuffle alone: what goes into it must stay, and what comes out has no group.
        (["2.0.mix"], ["0", "2.0.a", "3"]),
        (["*.mix"], ["0", "2.0.a", "3"]),
        # All of the block: the stem goes into it.
        (["2"], ["3"]),
    ],
)
def test_opaque_modules_keep_their_tensors_and_what_meets_them_whole(words, prunable):
    model = shuffled()
    layout = trace_around(model, torch.zeros(1, 1, 8, 8), words=words)
    assert list(layout.prunable) == prunable
    assert layout.opaque == match_modules(model, words)
    touched = {member.tensor for group in layout.prunable.values() for member in group.members}
    assert not any(name.startswith(("2.0.mix", "2.0.b.bias")) for name in touched)
    assert dict(model.named_modules())["2.0.mix"].__class__ is Shuffle  # the copy was changed
    again = Layout.from_json(layout.to_json())
    assert (again.opaque, again.digest) == (layout.opaque, layout.digest)


def test_nothing_is_opaque_where_the_tracer_needs_no_help(net):
    model, example = net("lenet5")
    layout = trace_around(model, example, words=["conv1"])
    assert (layout.opaque, layout.digest) == ((), trace(model, example).digest)
    assert "opaque" not in layout.to_json()


def test_an_unknown_opaque_module_is_an_error():
    with pytest.raises(LayoutError, match=r"no module `2\.0\.mx`") as caught:
        trace(shuffled(), torch.zeros(1, 1, 8, 8), opaque=["2.0.mx"])
    assert "2.0.mix" in caught.value.hint


class Bare(nn.Module):
    """Shuffles in its own forward pass, which no module of it stands for."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(Shuffle()(self.a(x)).mean((2, 3)))


def test_no_option_is_offered_that_would_not_help():
    with pytest.raises(LayoutError) as caught:
        trace_around(Bare(), torch.zeros(1, 1, 8, 8))
    assert "--ignore" not in caught.value.hint


class OnePosition(nn.Module):
    """A position axis of length 1 before the last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.fc1, self.fc2 = nn.Linear(4, 20), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(self.embedding(x)[:, -1:]))).squeeze(1)


def test_hidden_channels_may_outnumber_the_output_of_a_single_position() -> None:
    layout = trace(OnePosition(), torch.ones(1, 5, dtype=torch.int64))
    assert {name: group.width for name, group in layout.prunable.items()} == {"fc1": 20}
