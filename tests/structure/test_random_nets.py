"""Random small networks: each is traced rightly, or refused with a word about why."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fpcli.errors import LayoutError
from fpcli.structure.layout import Layout
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors, trace
from fpcli.structure.verify import _NoStatistics

SEEDS_PER_CASE = 10


class Step(nn.Module):
    """Modules, and a function of them and the input."""

    def __init__(self, run: Callable[..., object], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.run = run

    def forward(self, x):
        return self.run(x, *self.parts)


class Free(nn.Module):
    """A bare parameter of a given shape, multiplied or added."""

    def __init__(self, shape: tuple[int, ...], add: bool) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(shape))
        self.add = add

    def forward(self, x):
        return x + self.values if self.add else x * self.values


def conv(r: random.Random, x: Tensor, out: int = 0, same: bool = False) -> nn.Module:
    dims, width = x.dim() - 2, x.shape[1]
    out = out or r.choice([3, 4, 6, 8, 12])
    kernel, dilation = r.choice([1, 3]), r.choice([1, 1, 2])
    groups = r.choice([1, 1, 1, width, 2])
    groups = groups if width % groups == 0 and out % groups == 0 else 1
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1]
    stride = 1 if same else r.choice([1, 1, 2])
    padding = dilation * (kernel // 2)
    mode = r.choice(["zeros", "zeros", "reflect", "circular"]) if dims < 3 else "zeros"
    return kind(
        width, out, kernel, stride, padding, dilation, groups, r.random() < 0.7, padding_mode=mode
    )


def transposed(r: random.Random, x: Tensor) -> nn.Module:
    kind = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][x.dim() - 3]
    groups = x.shape[1] if r.random() < 0.2 else 1
    return kind(x.shape[1], x.shape[1] * r.choice([1, 2]), 2, 2, groups=groups)


def norm(r: random.Random, x: Tensor) -> nn.Module:
    width, dims = x.shape[1], x.dim() - 2
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    batch = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][dims]
    instance = [nn.InstanceNorm1d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d][dims]
    choices = [
        lambda: batch(width, affine=r.random() < 0.7, track_running_stats=r.random() < 0.7),
        lambda: nn.GroupNorm(r.choice(divisors), width, affine=r.random() < 0.7),
        lambda: nn.LayerNorm(x.shape[1:], elementwise_affine=r.random() < 0.7),
        lambda: nn.LayerNorm(x.shape[-1:]),
        lambda: nn.LocalResponseNorm(2) if dims else nn.Identity(),
        lambda: (
            instance(width, affine=r.random() < 0.5, track_running_stats=r.random() < 0.5)
            if dims
            else nn.Identity()
        ),
    ]
    return r.choice(choices)()


def activation(r: random.Random, x: Tensor) -> nn.Module:
    kinds = [nn.ReLU(), nn.ReLU(inplace=True), nn.PReLU(), nn.PReLU(x.shape[1]), nn.GELU()]
    kinds += [nn.SELU(), nn.CELU(), nn.Hardswish(), nn.Softmax(1), nn.Dropout(0.2), nn.Softplus()]
    if x.shape[1] % 2 == 0:
        kinds.append(nn.GLU(1))
    return r.choice(kinds)


def pool(r: random.Random, x: Tensor) -> nn.Module:
    dims = x.dim() - 2
    if dims == 2 and min(x.shape[2:]) > 1:
        kinds = [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.AdaptiveAvgPool2d(2)]
        return r.choice([*kinds, nn.Upsample(scale_factor=2), nn.AdaptiveMaxPool2d(1)])
    return [nn.Identity(), nn.AdaptiveAvgPool1d(2), nn.Identity(), nn.AdaptiveAvgPool3d(2)][dims]


def residual(r: random.Random, x: Tensor) -> nn.Module:
    body = nn.Sequential(layer(r, x, x.shape[1]), activation_of_width(r, x))
    return Step(
        r.choice(
            [
                lambda x, f: x + f(x),
                lambda x, f: x * torch.sigmoid(f(x)),
                lambda x, f: f(f(x)),
                lambda x, f: x - f(x).mean(0, keepdim=True),
                lambda x, f: torch.maximum(x, f(x)),
                lambda x, f: torch.where(x > 0, x, f(x)),
                lambda x, f: f(x).add_(x),
            ]
        ),
        body,
    )


def activation_of_width(r: random.Random, x: Tensor) -> nn.Module:
    return r.choice([nn.ReLU(), nn.Tanh(), nn.Identity()])


def layer(r: random.Random, x: Tensor, out: int = 0) -> nn.Module:
    if x.dim() == 2:
        return nn.Linear(x.shape[1], out or r.choice([3, 5, 8]), bias=r.random() < 0.7)
    return conv(r, x, out, same=True)


def concat(r: random.Random, x: Tensor) -> nn.Module:
    run = r.choice(
        [
            lambda x, a, b: torch.cat([a(x), b(x)], 1),
            lambda x, a, b: torch.cat([a(x), x, b(x)], 1),
            lambda x, a, b: torch.cat([a(x), a(x)], 1),
            lambda x, a, b: torch.stack([a(x), a(x)], 1).flatten(1, 2),
            lambda x, a, b: torch.cat([a(x), b(x)], 0)[: len(x)],
        ]
    )
    return Step(run, layer(r, x), layer(r, x))


def split(r: random.Random, x: Tensor) -> nn.Module:
    width = x.shape[1]
    half = width // 2
    run = r.choice(
        [
            lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
            lambda x: x.chunk(2, 1)[0],
            lambda x: x[:, :half] * 2,
            lambda x: x[:, ::2],
            lambda x: x.flip(1),
            lambda x: x.roll(1, 1),
            lambda x: torch.cat(x.split([1, width - 1], 1), 1),
            lambda x: x[:, torch.arange(width - 1, -1, -1)],
            lambda x: sum(x.unbind(1)).unsqueeze(1),
            lambda x: F.pad(x, [0, 0] * (x.dim() - 2) + [1, 1]),
        ]
    )
    return Step(run)


def reshape(r: random.Random, x: Tensor) -> nn.Module:
    width = x.shape[1]
    last = x.shape[-1]
    runs = [
        lambda x: x.transpose(1, -1),
        lambda x: x.reshape(len(x), -1),
        lambda x: x.flatten(1),
        lambda x: x.view(-1, x[0].numel()),
        lambda x: x.unsqueeze(-1),
        lambda x: x.mean(1, keepdim=True) * x,
        lambda x: x / (x.norm(dim=1, keepdim=True) + 1),
        lambda x: x.cumsum(1),
        lambda x: x - x.mean(),
        lambda x: x.repeat(1, 2, *[1] * (x.dim() - 2)),
        lambda x: x.repeat_interleave(2, 1),
        lambda x: x.sort(1).values,
        lambda x: x.reshape(len(x), -1, last),
        lambda x: x.expand(-1, width, *[-1] * (x.dim() - 2)) + 1,
        lambda x: torch.fft.fft(x, dim=-1).real,
        lambda x: x @ x.transpose(-1, -2) if x.dim() > 2 else x * x,
    ]
    if width % 2 == 0:
        runs += [
            lambda x: x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
            lambda x: x.view(len(x), 2, -1, *x.shape[2:]).sum(1),
        ]
    if x.dim() == 4 and width % 4 == 0:
        runs.append(lambda x: F.pixel_shuffle(x, 2))
    return Step(r.choice(runs))


def attention(r: random.Random, x: Tensor) -> nn.Module:
    width = x.shape[1]
    heads = r.choice([h for h in (1, 2, 3, 4) if width % h == 0])
    if r.random() < 0.5:
        core = nn.MultiheadAttention(width, heads, batch_first=True)
        return Step(
            lambda x, f: (
                (y := x.flatten(2).transpose(1, 2), f(y, y, y)[0])[1]
                .transpose(1, 2)
                .reshape(x.shape)
                if x.dim() > 2
                else f(x[:, None], x[:, None], x[:, None])[0][:, 0]
            ),
            core,
        )
    core = nn.Linear(width, 3 * width)

    def attend(x, f):
        tokens = x.flatten(2).transpose(1, 2) if x.dim() > 2 else x[:, None]
        q, k, v = f(tokens).chunk(3, -1)
        y = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return y.transpose(1, 2).reshape(x.shape)

    return Step(attend, core)


def gate(r: random.Random, x: Tensor) -> nn.Module:
    width = x.shape[1]
    if x.dim() == 2:
        return Step(lambda x, a, b: x * torch.sigmoid(b(F.relu(a(x)))),
                    nn.Linear(width, 4), nn.Linear(4, width))  # fmt: skip

    def squeeze(x, a, b):
        s = torch.sigmoid(b(F.relu(a(x.flatten(2).mean(2)))))
        return x * s.view(*s.shape, *[1] * (x.dim() - 2))

    return Step(squeeze, nn.Linear(width, 4), nn.Linear(4, width))


def bare(r: random.Random, x: Tensor) -> nn.Module:
    shape = r.choice([(1, x.shape[1], *[1] * (x.dim() - 2)), tuple(x.shape[1:]), (1,), ()])
    return Free(shape, r.random() < 0.5)


def recurrent(r: random.Random, x: Tensor) -> nn.Module:
    if x.dim() != 3:
        return nn.Identity()
    kind = r.choice([nn.GRU, nn.LSTM, nn.RNN])
    return Step(lambda x, f: f(x)[0], kind(x.shape[-1], 6, batch_first=True))


def odd(r: random.Random, x: Tensor) -> nn.Module:
    """Return what no network should do."""
    width = x.shape[1]
    weights = nn.Linear(3, 3)
    return r.choice(
        [
            lambda: Step(lambda x, f: f(x), nn.Linear(width + 1, 4)),
            lambda: nn.BatchNorm2d(width + 1),
            lambda: nn.utils.parametrizations.weight_norm(layer(r, x)),
            lambda: nn.utils.parametrizations.spectral_norm(layer(r, x)),
            lambda: nn.utils.prune.identity(layer(r, x), "weight"),
            lambda: Step(lambda x, f: f(x), layer(r, x).double()),
            lambda: Step(lambda x: x * float(x.mean())),
            lambda: Step(lambda x: x if float(x.detach().mean()) > 0 else x * 2),
            lambda: Step(lambda x: x.detach()),
            lambda: Step(lambda x: (x, x)),
            lambda: Step(lambda x: {"out": x}),
            lambda: Step(lambda x, f: [x][0], weights),
            lambda: Step(lambda x: x.to(torch.complex64)),
            lambda: Step(lambda x: x.long()),
            lambda: Step(lambda x: x[0]),
            lambda: Step(lambda x: x.sum()),
            lambda: Step(lambda x: x.mul_(2)),
            lambda: Step(lambda x: x.index_fill(1, torch.tensor([0]), 0.0)),
            lambda: Step(lambda x: x[:, :0]),
            lambda: Step(lambda x: None),
            lambda: nn.LazyLinear(5),
            lambda: Step(lambda x, a, b: a(x) + b(x), *[layer(r, x, width)] * 2),
            lambda: Step(lambda x: x.view(2, -1)),
        ]
    )()


STEPS: list[tuple[Callable[..., nn.Module], int]] = [
    *[(layer, 8), (norm, 5), (activation, 5), (pool, 3), (residual, 3), (concat, 3), (split, 2)],
    *[(reshape, 2), (attention, 1), (gate, 1), (bare, 1), (transposed, 1), (recurrent, 1)],
    (odd, 1),
]


def random_net(seed: int) -> tuple[nn.Module, Tensor]:
    """Return a network of 2 to 8 random steps and a head, and a batch; some do not run at all."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    shape = r.choice([(3, 8, 8), (3, 8, 8), (4, 6, 6), (1, 8, 8), (6,), (4, 9), (2, 4, 4, 4)])
    example = torch.randn(2, *shape)
    x, steps = example, []
    for _ in range(r.randint(2, 8)):
        make = r.choices([s for s, _ in STEPS], [n for _, n in STEPS])[0]
        if not isinstance(x, Tensor) or x.dim() < 2 or (make is transposed and x.dim() < 3):
            break
        try:
            step = make(r, x)
        except (
            ValueError,
            RuntimeError,
            IndexError,
            ZeroDivisionError,
        ):  # such a layer does not exist
            continue
        steps.append(step)
        try:
            with torch.no_grad():
                x = copy.deepcopy(step).eval()(x)
        except Exception:
            break
    if isinstance(x, Tensor) and x.dim() >= 2 and x.is_floating_point() and r.random() < 0.9:
        steps += [nn.Flatten(), nn.Linear(x[0].numel(), 5)]
    return nn.Sequential(*steps), example


def random_keep(layout: Layout, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for name, group in layout.prunable.items():
        blocks = group.width // group.block
        count = int(torch.randint(1, blocks + 1, (), generator=generator))
        best = torch.randperm(blocks, generator=generator)[:count].sort().values
        keep[name] = (best[:, None] * group.block + torch.arange(group.block)).flatten()
    return keep


def deafened(model: nn.Module, layout: Layout, keep: dict[str, Tensor]) -> nn.Module:
    """Return a whole network in which nobody reads the channels that are not kept."""
    deaf = copy.deepcopy(model)
    weights = dict(deaf.named_parameters())
    for name, kept in keep.items():
        for member in layout.groups[name].members:
            if not member.produces and layout.tensors[member.tensor].uses:
                gone = torch.ones(len(member.index), dtype=torch.bool)
                gone[kept] = False
                with torch.no_grad():
                    columns = member.index[gone].flatten()
                    weights[member.tensor].index_fill_(member.dim, columns, 0.0)
    return deaf


def check(seed: int) -> str:
    """Trace a network; whatever comes of it must be right, or a refusal."""
    model, x = random_net(seed)
    try:
        layout = trace(model, x)
    except LayoutError as error:
        assert error.message and error.hint and "\n" not in error.message
        try:
            list_tensors(model, x)
        except LayoutError:
            return "refused"
        return "untraced"
    model.eval()
    state = model.state_dict()
    values = {name: state[name] for name in layout.tensors}
    for number in range(3):
        keep = random_keep(layout, seed + number)
        small = shrink(model, Support(keep).gather(layout, values))
        with torch.no_grad(), _NoStatistics():
            want, got = deafened(model, layout, keep)(x.clone()), small(x.clone())
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()) + 1e-6)
    small.train()(x.clone()).sum().backward()
    return "prunable" if layout.prunable else "protected"


@pytest.mark.filterwarnings("ignore")
def test_some_random_networks() -> None:
    # In the last one positions grow from reshape to reshape, round and round.
    found = [check(seed) for seed in [*range(10), 799]]
    assert {"prunable"} < set(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 200, SEEDS_PER_CASE))
def test_random_networks(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_CASE):
        check(seed)
