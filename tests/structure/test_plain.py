from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm

from fpcli.errors import LayoutError
from fpcli.models.build import build
from fpcli.structure.plain import check_plain, describe_output
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors, trace
from fpcli.tasks.classify import Classify

X = torch.zeros(1, 1, 8, 8)


def net(middle: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), middle or nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(96, 10),
    )  # fmt: skip


class Around(nn.Module):
    """A network, and a function of it and its input."""

    def __init__(self, run: Callable[..., object], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner or net()
        self.run = run

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def with_conv(change: Callable[[nn.Module], object], place: int = 0) -> nn.Module:
    model = net()
    change(model[place])
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


def views() -> nn.Module:
    model, values = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(12, 8)
    model[0].weight, model[1].weight = nn.Parameter(values[:8]), nn.Parameter(values[4:])
    return model


def cast(dtype: torch.dtype) -> nn.Module:
    return Around(lambda self, x: self.inner(x.to(dtype)).float(), net().to(dtype))


def unregistered() -> nn.Module:
    linear = nn.Linear(8, 8)
    del linear.weight
    linear.weight = torch.ones(8, 8)
    return nn.Sequential(linear, nn.Linear(8, 8))


def renamed() -> nn.Module:
    model = net()
    model._register_state_dict_hook(lambda _m, state, *_: {f"x.{k}": state[k] for k in state})
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "weight norm": (
        lambda: with_conv(parametrizations.weight_norm),
        "Conv2d `0` computes its `weight`",
        "parametrize.remove_parametrizations",
    ),
    "old weight norm": (
        lambda: with_conv(nn.utils.weight_norm),
        "Conv2d `0` computes its `weight`",
        "remove_weight_norm",
    ),
    "spectral norm": (
        lambda: with_conv(parametrizations.spectral_norm),
        "Conv2d `0` computes its `weight`",
        "parametrize.remove_parametrizations",
    ),
    "old spectral norm": (
        lambda: with_conv(nn.utils.spectral_norm, 4),
        "Linear `4` computes its `weight`",
        "remove_spectral_norm",
    ),
    "orthogonal": (
        lambda: with_conv(parametrizations.orthogonal, 4),
        "Linear `4` computes its `weight`",
        "parametrize.remove_parametrizations",
    ),
    "mask": (
        lambda: with_conv(lambda conv: prune.l1_unstructured(conv, "weight", 0.5)),
        "Conv2d `0` computes its `weight`",
        'prune.remove(module, "weight")',
    ),
    "two masks": (
        lambda: with_conv(
            lambda conv: [prune.random_unstructured(conv, "bias", 0.3) for _ in range(2)]
        ),
        "Conv2d `0` computes its `bias`",
        'prune.remove(module, "bias")',
    ),
    "weight that is no parameter": (unregistered, "Linear `0` computes its `weight`", "register"),
    "tied": (tied, "'0.weight' and '1.weight' are one shared tensor", "its own parameters"),
    "views": (views, "'0.weight' and '1.weight' are one shared tensor", "its own parameters"),
    "float64": (lambda: cast(torch.float64), "`inner.0.weight` is float64", "float()"),
    "bfloat16": (lambda: cast(torch.bfloat16), "`inner.0.weight` is bfloat16", "float()"),
    "meta": (lambda: net().to("meta"), "`0.weight` is on the device meta", "outside"),
    "complex": (lambda: nn.Linear(8, 8).to(torch.complex64), "is complex64", "imaginary"),
    "script": (lambda: net(torch.jit.script(nn.ReLU())), "`1` is a script", "Python module"),
    "compiled": (lambda: torch.compile(net(), backend="eager"), "compiled", "torch.compile"),
    "lazy": (lambda: nn.ModuleList([net(), nn.LazyLinear(3)]), "`1` has a `weight` without", "it"),
    "renamed": (renamed, "`0.weight` does not stand in the `state_dict`", "hooks"),
    "no parameter": (nn.Flatten, "has no parameter that can be trained", "requires_grad"),
    "frozen": (lambda: net().requires_grad_(False), "no parameter that can", "requires_grad"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_plain_is_refused_by_name(
    make: Callable[[], nn.Module], message: str, hint: str
) -> None:
    model = make()
    for look in (check_plain, lambda model: trace(model, X), lambda model: list_tensors(model, X)):
        with pytest.raises(LayoutError) as caught:
            look(model)
        assert message in caught.value.message and hint in caught.value.hint
        assert (caught.value.code, caught.value.exit_status) == ("F321", 3)


@pytest.mark.filterwarnings("ignore")
def test_the_remedies_help() -> None:
    model = net()
    nn.utils.weight_norm(model[0])
    prune.l1_unstructured(model[2], "weight", 0.5)
    parametrizations.spectral_norm(model[4])
    remove_weight_norm(model[0], "weight")
    prune.remove(model[2], "weight")
    nn.utils.parametrize.remove_parametrizations(model[4], "weight")
    assert list(trace(model, X).prunable) == ["0", "2"]


@pytest.mark.filterwarnings("ignore")
def test_quantised_networks_are_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            values = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
            self.register_buffer("packed", values)
            self.fc = nn.Linear(2, 2)

    with pytest.raises(LayoutError, match="`packed` is quantised"):
        check_plain(Packed())


@dataclass
class Answer:
    logits: Tensor


def in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


WRONG: dict[str, tuple[Callable[..., object], str, str]] = {
    "tuple": (lambda self, x: (self.inner(x), x), "returns a tuple of 2 values", "(x)[0]`"),
    "list": (lambda self, x: [self.inner(x)], "returns a list of 1 values", "(x)[0]`"),
    "dict": (lambda self, x: {"out": self.inner(x)}, "returns a dict with `out`", "['out']`"),
    "dataclass": (
        lambda self, x: Answer(self.inner(x)),
        "returns a value of type Answer",
        ".logits`",
    ),
    "nothing": (lambda self, x: None, "returns nothing, wanted one", "returns nothing: add `ret"),
    "number": (lambda self, x: self.inner(x).sum().item(), "a value of type float", "one tensor"),
    "empty": (lambda self, x: {}, "a value of type dict", "one tensor"),
    "auxiliary head": (
        lambda self, x: (self.inner(x), x) if self.training else self.inner(x),
        "returns a tuple of 2 values in training mode",
        "aux_logits=False",
    ),
    "scalar": (lambda self, x: self.inner(x).sum(), r"returns float32 \[\] for one sample", "row"),
    "classes": (lambda self, x: self.inner(x).argmax(1), r"returns int64 \[1\]", "row"),
    "half": (lambda self, x: self.inner(x).half(), r"returns float16 \[1, 10\]", "float()"),
    "double": (lambda self, x: self.inner(x).double(), r"returns float64 \[1, 10\]", "float()"),
    "half in training": (
        lambda self, x: self.inner(x).half() if self.training else self.inner(x),
        r"returns float16 \[2, 10\] in training mode for 2 samples, wanted float32",
        "float()",
    ),
    "nothing left": (lambda self, x: self.inner(x)[:, :0], r"float32 \[1, 0\]", "row"),
    "no graph": (lambda self, x: self.inner(x).detach(), "depends on no parameter", "detach"),
    "input in place": (lambda self, x: self.inner(in_place(x)), "input in place", "x \\* 2"),
    "gradient": (
        lambda self, x: self.inner(x).tanh().mul_(2).exp_().tanh().add_(1),
        "cannot be trained on two samples: one of the variables",
        "forward and backward",
    ),
    "one sample": (
        lambda self, x: self.inner(x.view(1, 1, 8, 8)),
        "cannot be trained on two samples: shape",
        "any number of samples",
    ),
}


@pytest.mark.parametrize(("run", "message", "hint"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_trained_is_refused(
    run: Callable[..., object], message: str, hint: str
) -> None:
    with pytest.raises(LayoutError, match=message) as caught:
        list_tensors(Around(run), X)
    assert hint.replace("\\", "") in caught.value.hint
    with pytest.raises(LayoutError):
        trace(Around(run), X)


def test_modules_in_a_list_are_refused() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Conv2d(1, 3, 8)], nn.Linear(3, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layers[0](x).flatten(1))

    with pytest.raises(LayoutError, match=r"shape \[3\] that is none of") as caught:
        list_tensors(Listed(), X)
    assert "nn.ModuleList" in caught.value.hint


class Constant(nn.Module):
    """A complex constant, a lasting output, an unused layer, and buffers that nobody stores."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused = net(), nn.Conv2d(3, 3, 3)
        self.register_buffer("filter", torch.ones(8, 5, dtype=torch.complex64))
        self.register_buffer("scale", torch.ones(8), persistent=False)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[-2:]) * self.scale
        self.last = self.inner(x)
        return self.last


def hooked() -> nn.Module:
    model = net()
    model[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    return model


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (Constant, "inner."),
        (hooked, ""),
        (lambda: nn.DataParallel(net()), "module."),
        (lambda: nn.Sequential(nn.Sequential(net())), "0.0."),
        (lambda: torch.fx.symbolic_trace(net()), ""),
    ],
)
def test_unusual_networks_that_work(make: Callable[[], nn.Module], prefix: str) -> None:
    model = make()
    layout = trace(model, X)
    assert list(layout.prunable) == [f"{prefix}0", f"{prefix}2"]
    keep = {f"{prefix}0": torch.arange(3)}
    state = model.state_dict()
    values = {name: state[name].clone() for name in layout.tensors}
    values[f"{prefix}2.weight"][:, 3:] = 0
    model.load_state_dict(values, strict=False)
    x = torch.randn(2, 1, 8, 8)
    small = shrink(model, Support(keep).gather(layout, values))
    torch.testing.assert_close(small.eval()(x), model.eval()(x))


def test_a_network_by_name_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import nets

    made = {"make": lambda shape, classes: with_conv(parametrizations.weight_norm)}
    monkeypatch.setattr(nets, "make", made["make"], raising=False)
    with pytest.raises(LayoutError, match="computes its `weight`"):
        build("nets:make", (1, 8, 8), Classify(10), seed=0, allow_code=True)


def test_what_a_network_returned_is_described() -> None:
    assert describe_output([1, 2])[0] == "a list of 2 values"
    assert describe_output(torch.ones(2, 3)) == ("[2, 3]", "")
