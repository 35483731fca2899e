"""TF-IDF: how much a channel speaks of one class and of no other.

Source: Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022 (arXiv
2110.11794), and its official code. A channel is a word, a class is a document, and the mean
activation of the channel on images of the class is how often the word occurs. Channels are those of
all convolutions, by layer in the order of the network. The official code prunes the channels with
the *lowest* scores, the opposite of the paper; recipes/unlearn tells the other differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fpcli.errors import RecipeError
from fpcli.scores.producers import watch_outputs
from fpcli.settings.unlearning import (
    Aggregation,
    Direction,
    IdfReference,
    Scope,
    Smoothing,
)
from fpcli.structure.layout import Tensors


class Means(NamedTuple):
    """What one client knows: layer -> ``[classes, channels]`` mean activations, and ``[classes]``
    how many samples they are means of (0 where it has none; the row is then 0 too)."""

    activations: Tensors
    counts: Tensor


def list_convolutions(model: nn.Module) -> list[str]:
    """Return the names of all convolutions, in the order of the network's modules."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


@torch.no_grad()
def measure_class_means(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int
) -> Means:
    """Return the mean activation of every channel on the images of each class.

    The activation is the mean over a map of what a convolution puts out, before normalisation, with
    negative values as 0. Nothing of a single image is kept.

    Args:
        model: is judged in evaluation mode and changes in nothing but its mode.
        batches: images ``[b, C, H, W]`` and labels ``[b]``.
    """
    layers = list_convolutions(model)
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(num_classes, dtype=torch.int64)
    labels = torch.empty(0, dtype=torch.int64)

    def see(name: str, output: Tensor) -> None:
        means = output.relu().mean((2, 3)).double()
        total = sums.setdefault(name, means.new_zeros(num_classes, means.shape[1]))
        total.index_add_(0, labels, means)

    with watch_outputs(model.eval(), layers, see):
        for x, labels in batches:
            model(x)
            counts += torch.bincount(labels.cpu(), minlength=num_classes)
    divisor = counts.clamp(min=1)[:, None]
    return Means({n: (sums[n].cpu() / divisor).float() for n in layers if n in sums}, counts)


def aggregate_means(means: Sequence[Means], how: Aggregation) -> dict[str, Tensor]:
    """Return the mean activations of all clients together, layer -> ``[classes, channels]``.

    Args:
        means: one per client, with the same layers.
        how: ``count`` weighs by samples, so that the result is that of all data in one place;
            ``holders`` is the plain mean over the clients that have the class; ``naive`` the mean
            over all clients, an absent class counting as 0.

    >>> one = Means({"a": torch.tensor([[8.0], [3.0]])}, torch.tensor([3, 1]))
    >>> other = Means({"a": torch.tensor([[4.0], [0.0]])}, torch.tensor([1, 0]))
    >>> [aggregate_means([one, other], how)["a"].flatten().tolist() for how in ("count", "naive")]
    [[7.0, 3.0], [6.0, 1.5]]
    """
    counts = torch.stack([mean.counts for mean in means]).double()
    weights = counts if how == "count" else (counts > 0).double()
    totals = torch.full_like(weights[0], len(means)) if how == "naive" else weights.sum(0)
    out = {}
    for layer in means[0].activations:
        values = torch.stack([mean.activations[layer] for mean in means]).double()
        total = (values * weights[:, :, None]).sum(0)
        out[layer] = (total / totals.clamp(min=1)[:, None]).float()
    return out


def score_tfidf(
    activations: Tensor,
    target: int,
    reference: IdfReference = "channel",
    smoothing: Smoothing = "paper",
) -> Tensor:
    """Score the channels of one layer by how much they tell a class apart, ``[channels]``.

    With A the activations and u the class, TF of channel c is ``A[u,c] / sum_j A[u,j]``, and IDF is
    ``ln((1 + classes) / (1 + n_c))`` with n_c the number of classes i whose A[i,c] reaches a
    reference: the channel's mean over the classes (official code), or the class's mean over the
    channels (the formula of the paper). The official code has ``ln(classes / (1 + n_c))`` instead,
    which is below 0 where all classes reach the reference.

    Args:
        activations: ``[classes, channels]``, >= 0.
        target: row of the class.
        reference: ``channel`` or ``class``.
        smoothing: whose IDF.

    >>> scores = score_tfidf(torch.tensor([[4.0, 1, 1, 2], [1, 1, 3, 2], [1, 1, 2, 2]]), 0)
    >>> [round(score, 6) for score in scores.tolist()]
    [0.346574, 0.0, 0.03596, 0.0]
    """
    values = activations.double()
    row = values[target]
    share = row / row.sum() if row.sum() > 0 else torch.zeros_like(row)
    mean = values.mean(0, keepdim=True) if reference == "channel" else values.mean(1, keepdim=True)
    # The mean of equal numbers may come out larger than they are by a rounding error.
    reached = (values >= mean * (1 - 1e-12)).sum(0)
    count = len(values) + (smoothing == "paper")
    return share * torch.log(count / (1 + reached))


def choose_forgotten(
    scores: Tensors,
    alive: Tensors,
    *,
    ratio: float,
    scope: Scope = "global",
    direction: Direction = "highest",
    min_keep: int = 1,
    nni_skip: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Choose the channels to prune: layer -> sorted int64 channels, for every layer.

    Of equal scores the earlier layer and the lower channel go first.

    Args:
        scores: layer -> ``[channels]``, in the order of the network.
        alive: layer -> bool ``[channels]``; others are gone already and are not chosen.
        ratio: share of the channels alive and gone, in [0, 1): of all layers together, rounded
            down (``scope`` global), or of every layer, rounded to the nearest (``layer``).
        direction: which scores go; ``random`` draws the channels, the same number in each layer as
            the highest scores would take.
        min_keep: channels that a layer keeps at least.
        nni_skip: take none from a layer that is narrower than 1 / ratio, as the library of the
            official code does; nobody else loses more for it.
        generator: for ``random``.

    Raises:
        RecipeError: not so many channels can leave.
    """
    if direction == "random":
        rule: dict[str, Any] = {"ratio": ratio, "min_keep": min_keep, "nni_skip": nni_skip}
        numbers = choose_forgotten(scores, alive, scope=scope, **rule)
        return {
            layer: _draw(alive[layer], len(channels), generator)
            for layer, channels in numbers.items()
        }
    sign = -1.0 if direction == "highest" else 1.0
    keys = {layer: x * sign for layer, x in scores.items()}
    if scope == "layer":
        taken = {
            layer: _first(keys[layer], alive[layer], _number(layer, x, ratio, min_keep))
            for layer, x in alive.items()
        }
    else:
        taken = _of_all(keys, alive, ratio, min_keep)
    if nni_skip:
        taken = {n: x[:0] if int(len(alive[n]) * ratio) < 1 else x for n, x in taken.items()}
    return taken


def _number(layer: str, alive: Tensor, ratio: float, min_keep: int) -> int:
    wanted, most = int(ratio * len(alive) + 0.5), int(alive.sum()) - min_keep
    if wanted >= len(alive):
        raise _too_many(f"would empty layer `{layer}` of {len(alive)} channels")
    return max(0, min(wanted, most))


def _first(keys: Tensor, alive: Tensor, number: int) -> Tensor:
    """Return the alive channels with the smallest keys, sorted by number."""
    order = torch.where(alive, keys, torch.inf).argsort(stable=True)
    return order[:number].sort().values


def _draw(alive: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    channels = alive.nonzero().flatten()
    return channels[torch.randperm(len(channels), generator=generator)[:number]].sort().values


def _of_all(keys: Tensors, alive: Tensors, ratio: float, min_keep: int) -> dict[str, Tensor]:
    """Take channels of all layers in the order of their keys; a layer that is at its least keeps
    the rest."""
    widths = [len(x) for x in keys.values()]
    number = int(ratio * sum(widths) + 1e-9)
    spare = {layer: max(0, int(x.sum()) - min_keep) for layer, x in alive.items()}
    if number > sum(spare.values()):
        raise _too_many(
            f"asks for {number} of {sum(widths)} channels, but only {sum(spare.values())} can leave"
        )
    flat = torch.cat([torch.where(alive[layer], x, torch.inf) for layer, x in keys.items()])
    places = [(layer, channel) for layer, x in keys.items() for channel in range(len(x))]
    taken: dict[str, list[int]] = {layer: [] for layer in keys}
    for position in flat.argsort(stable=True).tolist():
        layer, channel = places[position]
        if number and alive[layer][channel] and len(taken[layer]) < spare[layer]:
            taken[layer].append(channel)
            number -= 1
    return {
        layer: torch.tensor(sorted(channels), dtype=torch.int64)
        for layer, channels in taken.items()
    }


def _too_many(problem: str) -> RecipeError:
    return RecipeError(
        f"the pruning ratio {problem}", hint="lower method.ratio or method.min_keep",
        where="method.ratio",
    )  # fmt: skip


def find_followers(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Return convolution -> the normalisation that takes exactly its output, where there is one.

    Args:
        model: runs once, in evaluation mode.
        x: one batch.
    """
    made: list[tuple[Tensor, str]] = []
    followers: dict[str, str] = {}

    def taken(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            followers.update({conv: name for output, conv in made if output is inputs[0]})

        return hook

    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    handles = [
        module.register_forward_pre_hook(taken(name))
        for name, module in model.named_modules()
        if isinstance(module, norms)
    ]
    try:
        see: Callable[[str, Tensor], None] = lambda name, y: made.append((y, name))  # noqa: E731
        with torch.no_grad(), watch_outputs(model.eval(), list_convolutions(model), see):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return followers
