"""NISP: importance that flows back from the responses just before the classifier.

Source: Yu et al., "NISP: Pruning Networks using Neuron Importance Score Propagation", CVPR 2018.
The rules are linear, ``|W|^T s`` from layer to layer, so all scores at once are the gradients of
the *absolute linear twin* of the network: absolute weights, no biases, no activations, average in
place of maximum pooling, and batch norm as the factor ``|scale| / sqrt(variance + eps)``. The
paper's own rules for pooling, batch norm and sums are not known; these are ours.

Scores grow with fan-out, so only those within one group can be compared; here they sum to 1 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from fpcli.errors import RecipeError
from fpcli.scores.inf_fs import select_infinite_features
from fpcli.scores.producers import (
    find_classifier,
    list_producers,
    reshape_to_maps,
    sum_scores,
    watch_input,
    watch_outputs,
)
from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Batch

_IDENTITIES = frozenset(
    {
        F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus,
        F.hardswish, F.hardtanh, F.prelu, F.logsigmoid, torch.relu, torch.relu_, torch.tanh,
        torch.sigmoid, torch.prelu, Tensor.relu, Tensor.relu_, Tensor.tanh, Tensor.sigmoid,
    }
)  # fmt: skip


StartingScores = Callable[[str, Tensors], Tensor]
"""Takes the classifier's name and, from the twin, its input under that name and the network's
output under ``""``; returns their sum, weighted by the starting scores."""


def start_at_output(name: str, twin: Tensors) -> Tensor:
    """Start with 1 at every output."""
    return twin[""].sum()


def start_at_classifier(name: str, twin: Tensors) -> Tensor:
    """Start with 1 at every input of the classifier, whose weights do not count."""
    return twin[name].sum()


def start_from(scores: Tensor) -> StartingScores:
    """Start with scores at the inputs of the classifier, ``[inputs]``."""
    return lambda name, twin: (twin[name].flatten(1) * scores.to(twin[name])).sum()


def ones_out(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score by importance that starts as 1 at every output; no data are looked at.

    Only the shape of the sample's images counts. This is the start for a server without data
    (Kumar and Toshniwal, CIKM 2022, as we read it); result and errors as of
    :func:`score_by_propagation`.
    """
    return score_by_propagation(layout, values, sample, start_at_output)


def ones(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score by importance that starts as 1 at every input of the classifier, whose weights do not
    count; result and errors as of :func:`score_by_propagation`.
    """
    return score_by_propagation(layout, values, sample, start_at_classifier)


def inf_fs(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score by importance that starts as infinite feature selection at the classifier's input.

    The sample's responses there are what it selects from; result and errors as of
    :func:`score_by_propagation`.

    Source: NISP's start (CVPR 2018); see ``scores.inf_fs``.
    """
    responses = watch_responses(sample.module(values), sample.batches)
    start = start_from(select_infinite_features(responses))
    return score_by_propagation(layout, values, sample, start)


def score_by_propagation(
    layout: Layout, values: Tensors, sample: Sample, start: StartingScores
) -> dict[str, Tensor]:
    """Score the channels of all groups by importance that flows back from a start.

    Returns:
        Prunable group -> ``[width]``, larger = keep, float64; each group sums to 1.

    Raises:
        RecipeError: the network is more than layers, activations, pooling and sums.
    """
    model = sample.module(values)
    layers = dict(model.named_modules())
    maps = score_maps(model, sample.batches[0][0][:1], list_producers(layout), start)
    per_layer = {
        name: reshape_to_maps(layers[name], score)[0].sum(1) for name, score in maps.items() if name
    }
    groups = sum_scores(layout, per_layer)
    return {name: score / score.sum().clamp(min=1e-300) for name, score in groups.items()}


def score_kept_only(
    layout: Layout, values: Tensors, sample: Sample, start: StartingScores, ratio: float
) -> dict[str, Tensor]:
    """Score the channels as :func:`score_by_propagation` does, but let no importance through those
    that leave: from the last group to the first, the lowest ``ratio`` of each are taken out before
    the groups below are scored.
    """
    scores: dict[str, Tensor] = {}
    keep: dict[str, Tensor] = {}
    for name in reversed(_order_groups(layout, sample.module(values), sample.batches[0][0][:1])):
        support = Support(keep)
        left, _ = support.scatter(layout, support.gather(layout, values))
        found = score_by_propagation(layout, left, sample, start)
        scores[name] = found[name]
        keep |= {n: kept for n, kept in keep_ranked(layout, found, ratio).items() if n == name}
    return {name: scores[name] for name in layout.prunable}


@torch.no_grad()
def _order_groups(layout: Layout, model: nn.Module, x: Tensor) -> list[str]:
    """Return the prunable groups, ordered by when the last of the layers runs that make each."""
    runs: list[str] = []
    with watch_outputs(model, list_producers(layout), lambda name, output: runs.append(name)):
        model(x)
    last = {
        name: max(runs.index(m.tensor.rpartition(".")[0]) for m in group.members if m.produces)
        for name, group in layout.prunable.items()
    }
    return sorted(last, key=last.__getitem__)


@torch.no_grad()
def watch_responses(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Return what the classifier reads of every sample of some batches, ``[samples, inputs]``.

    Args:
        model: in evaluation mode.
    """
    seen: list[Tensor] = []
    name = ""
    for x, _ in batches:
        name = name or find_classifier(model, x)
        with watch_input(model, name, seen.append):
            model(x)
    return torch.cat(seen).flatten(1)


def score_maps(
    model: nn.Module,
    x: Tensor,
    layers: Sequence[str],
    start: StartingScores = start_at_output,
) -> dict[str, Tensor]:
    """Propagate importance back through a network.

    Args:
        model: in evaluation mode; it is turned into its twin and is of no further use.
        x: ``[1, ...]``; only its shape counts.
        layers: whose outputs are scored.
        start: where the importance comes from.

    Returns:
        Layer -> score of each element of its output, ``[1, ...]``, and ``""`` -> of the input;
        float64, as they come.

    Raises:
        RecipeError: the twin is not linear, or scores are not finite.
    """
    if not x.is_floating_point():
        raise RecipeError(
            f"score `nisp` cannot follow {type(model).__name__}: it reads items, not numbers",
            hint="what looks items up is no layer of products; choose another score",
        )
    _make_absolute(model)
    last = find_classifier(model, x.double())
    outputs: dict[str, list[Tensor]] = {}
    inputs: dict[str, Tensor] = {}
    # Weights are constants here; what they are multiplied with is not.
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    x = torch.ones_like(x, dtype=torch.float64).requires_grad_()
    with _Absolute(), watch_input(model, last, lambda y: inputs.update({last: y})):
        doubled = model(2 * x.detach())
        with watch_outputs(
            model, list(layers), lambda name, y: outputs.setdefault(name, []).append(y)
        ):
            inputs[""] = model(x)
    if not torch.allclose(doubled, 2 * inputs[""], rtol=1e-6, atol=0):
        raise RecipeError(
            f"score `nisp` cannot follow {type(model).__name__}: it is more than layers, "
            "activations, pooling and sums",
            hint="gates and attention multiply what they read; choose another score",
        )
    flat = [(name, y) for name, parts in outputs.items() for y in parts]
    gradients = torch.autograd.grad(
        start(last, inputs), [x, *(y for _, y in flat)], allow_unused=True
    )
    scores = {"": torch.zeros_like(x)} | {name: torch.zeros_like(y) for name, y in flat}
    for name, gradient in zip(["", *(name for name, _ in flat)], gradients, strict=True):
        if gradient is not None:
            scores[name] = scores[name] + gradient
    if not all(bool(score.isfinite().all()) for score in scores.values()):
        raise RecipeError("scores of `nisp` overflow in this network", hint="choose another score")
    return scores


def _make_absolute(model: nn.Module) -> None:
    model.double()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, _ConvNd | nn.Linear):
                layer.weight.abs_()
                if layer.bias is not None:
                    layer.bias.zero_()


class _Absolute(TorchFunctionMode):
    """Replace what is not linear by its linear stand-in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace activations, pooling by maximum, and normalisation; call everything else."""
        kwargs = dict(kwargs or {})
        if func in _IDENTITIES:
            return args[0]
        if func in _STAND_INS:
            return _STAND_INS[func](*args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(x: Tensor, mean: Any, var: Any, weight: Any = None, *args: Any, **more: Any) -> Any:
    weight = more.get("weight", weight)
    eps = more.get("eps", 1e-5) if len(args) < 4 else args[3]
    factor = torch.ones(x.shape[1]).to(x) if weight is None else weight.abs()
    if var is not None:
        factor = factor / (var + eps).sqrt()
    return x * factor.reshape(-1, *[1] * (x.dim() - 2))


def _group_norm(x: Tensor, num_groups: int, weight: Any = None, *args: Any, **more: Any) -> Any:
    weight = more.get("weight", weight)
    return x if weight is None else x * weight.abs().reshape(-1, *[1] * (x.dim() - 2))


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, *args: Any, **more: Any) -> Any:
    weight = more.get("weight", weight)
    return x if weight is None else x * weight.abs()


def _max_pool(average: Callable[..., Tensor]) -> Callable[..., Any]:
    def pool(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if return_indices or dilation not in (1, (1, 1)):
            raise RecipeError(
                "score `nisp` cannot follow a dilated maximum pooling", hint="choose another score"
            )
        # A maximum never comes from the padding, so that only true inputs share a window.
        return average(
            x, kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=False
        )

    return pool


_STAND_INS: Mapping[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.max_pool1d: _max_pool(F.avg_pool1d),
    F.max_pool2d: _max_pool(F.avg_pool2d),
    F.adaptive_max_pool1d: lambda x, size, *args, **more: F.adaptive_avg_pool1d(x, size),
    F.adaptive_max_pool2d: lambda x, size, *args, **more: F.adaptive_avg_pool2d(x, size),
}
