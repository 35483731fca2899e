"""Inertial-manifold pruning: one cut, at a rate that the curvature of the loss decides.

Source: Zhang et al., "Validating the Lottery Ticket Hypothesis with Inertial Manifold Theory",
NeurIPS 2021. Only the abstract and steps 1 and 6 of its algorithm could be read, there is no
official code, so this is a reconstruction: the gap rule is as FedDUAP (IJCAI 2022) prints it, the
choice of weights (global magnitude) as the authors' own baseline in FedDUAP's code has it, and the
Lipschitz estimators are ours. What is ours is an option; `recipes/imt/README.md` says which.

    1. Remember W0, run a few SGD steps to W'.
    2. Take the spectrum of the Hessian at W'.
    3. Estimate the Lipschitz constant L of B(x) = H x - grad loss(W' + x).
    4. Find a gap wider than 4 L; the share of the spectrum below it is the rate.
    5. Mask that share of the weights, the smallest of W' over all layers.
    6. Start what is left from W0 again and train it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fpcli.data.batches import batches
from fpcli.engine.fit import explain_lone_sample, fit_epoch
from fpcli.engine.trained import Trained
from fpcli.errors import CheckError
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.scores.curvature import find_spectrum, make_loss, make_products
from fpcli.scores.rates import (
    bound_along_segment,
    bound_nearby,
    find_spectral_gap,
    find_widest_gap,
    measure_mass_above,
)
from fpcli.structure.budget import drop_smallest
from fpcli.structure.support import Support, scatter
from fpcli.tasks.learning_task import Batch


@dataclass(frozen=True)
class Options:
    """Options of `imt`."""

    rate: Literal["gap", "spectrum", "fixed"] = "gap"
    """Where the rate comes from: a spectral gap; FedDUAP's reading of the spectrum; `--ratio`."""
    warmup_steps: Annotated[int, Ge(0)] = 10
    """SGD steps before the look at the curvature (T0; the paper's step 1)."""
    lipschitz: Literal["segment", "local"] = "segment"
    """How L is estimated (ours): on the way back to W0, or by small random steps from W'."""
    gap: Literal["first", "last", "largest"] = "last"
    """Which gap counts; the paper wants the smallest remaining network, hence the last."""
    gap_from: Literal["nonnegative", "any"] = "nonnegative"
    """Whether gaps below zero count (ours)."""
    no_gap: Literal["spectrum", "fixed", "stop"] = "spectrum"
    """What to do where no gap is wide enough (ours): FedDUAP's reading, `--ratio`, or an error."""
    max_rate: Annotated[float, Gt(0), Lt(1)] = 0.98
    """The rate is never above this (ours): a few outliers alone would prune everything."""
    lanczos_steps: Annotated[int, Ge(2)] = 50
    """Lanczos steps for networks of more than 3,000 parameters (FedDUAP's code)."""
    probes: Annotated[int, Ge(1)] = 3
    """Start vectors of Lanczos (ours; FedDUAP's code has 1)."""
    batch: Annotated[int, Ge(1), Le(10_000)] = 100
    """Samples that the curvature is taken on (FedDUAP's code)."""
    rewind: Literal["init", "none"] = "init"
    """Whether what is left starts from W0 (lottery tickets) or goes on from W'."""


class Finding(NamedTuple):
    """What the look at the curvature gave.

    Attributes:
        branch: `gap`, `spectrum` or `fixed`: where the rate came from in the end.
        lipschitz: L.
        widest: largest difference between neighbouring eigenvalues.
        below: eigenvalues below the gap, or None without one.
        lowest, highest: ends of the spectrum.
    """

    rate: float
    branch: str
    lipschitz: float
    widest: float
    below: int | None
    lowest: float
    highest: float
    is_exact: bool


class IMT(Pruner):
    """One-time unstructured pruning at a rate read from a spectral gap."""

    source: ClassVar[str] = "Zhang et al., NeurIPS 2021"
    is_structured: ClassVar[bool] = False
    Options: ClassVar[type] = Options

    def decides(self, options: Any) -> bool:
        """Tell that the curvature says how much goes, unless the rate is fixed."""
        return bool(options.rate != "fixed")

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        """Return the model with the smallest weights masked, at the rate that was found.

        Raises:
            CheckError: no gap is wide enough and ``no_gap`` is `stop`, or the rate is `fixed` and
                no ratio was given.
        """
        options: Options = px.options
        before = trained.module()
        after = trained.module()
        _warm_up(px, after, options.warmup_steps)
        finding = look(px, before, after, target)
        px.log(event="curvature", **finding._asdict())
        px.tell(report_rate(finding))
        mask = drop_smallest(_eligible(after), finding.rate)
        return _mask_module(trained, before if options.rewind == "init" else after, mask)


def _warm_up(px: PruneContext, model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=px.retraining.lr, weight_decay=px.retraining.weight_decay
    )
    model.train()
    drawn = islice(_batches(px, px.retraining.batch_size), steps)
    with explain_lone_sample(px.retraining.batch_size, len(px.dataset.train), "batch_size"):
        fit_epoch(model, optimizer, drawn, px.dataset.task.loss)
    model.eval()


def _batches(px: PruneContext, size: int) -> Iterator[Batch]:
    train = px.dataset.train
    everything = torch.arange(len(train))
    for epoch in count():
        yield from batches(
            train,
            everything,
            px.dataset.normalise,
            batch_size=size,
            generator=px.rng(f"imt/{size}/{epoch}"),
        )


def look(px: PruneContext, before: nn.Module, after: nn.Module, target: PruneTarget) -> Finding:
    """Return the rate for one model, and everything that led to it.

    Args:
        before: the model at W0.
        after: the same at W'.
        target: gives the `fixed` rate.

    Raises:
        CheckError: see :meth:`IMT.cut`.
    """
    options: Options = px.options
    if options.rate == "fixed":
        rate = _choose_rate(target, options)
        return Finding(rate, "fixed", 0.0, 0.0, None, 0.0, 0.0, is_exact=True)
    batch = next(_batches(px, options.batch))
    loss, at = make_loss(after, batch, px.dataset.task)
    _, start = make_loss(before, batch, px.dataset.task)
    product = make_products(loss, at)
    spectrum = find_spectrum(
        product,
        len(at),
        px.rng("imt/lanczos"),
        steps=options.lanczos_steps,
        probes=options.probes,
    )
    if options.lipschitz == "segment":
        lipschitz = bound_along_segment(loss, at, product, start - at)
    else:
        lipschitz = bound_nearby(loss, at, product, px.rng("imt/directions"))
    is_nonnegative = options.gap_from == "nonnegative"
    gap = find_spectral_gap(spectrum, lipschitz, pick=options.gap, is_nonnegative=is_nonnegative)
    if options.rate == "gap" and gap is not None:
        rate, branch = gap.rate, "gap"
    elif options.rate == "spectrum" or options.no_gap == "spectrum":
        rate, branch = measure_mass_above(spectrum), "spectrum"
    elif options.no_gap == "fixed":
        rate, branch = _choose_rate(target, options), "fixed"
    else:
        raise CheckError(
            f"no spectral gap is wider than 4 L = {4 * lipschitz:.3g}; "
            f"the widest is {find_widest_gap(spectrum):.3g}",
            hint="`--set method.no_gap=spectrum`, or `--set method.lipschitz=local`",
        )
    return Finding(
        rate=min(rate, options.max_rate),
        branch=branch,
        lipschitz=lipschitz,
        widest=find_widest_gap(spectrum),
        below=gap.below if gap is not None and branch == "gap" else None,
        lowest=float(spectrum.values[0]),
        highest=float(spectrum.values[-1]),
        is_exact=spectrum.is_exact,
    )


def report_rate(finding: Finding) -> str:
    """Return in one line where a rate came from."""
    how = "all eigenvalues" if finding.is_exact else "Ritz values"
    words = [
        f"rate {finding.rate:.4f} by {finding.branch}",
        f"{how} from {finding.lowest:.3g} to {finding.highest:.3g}",
        f"4 L {4 * finding.lipschitz:.3g}, widest gap {finding.widest:.3g}",
    ]
    if finding.below is not None and not finding.is_exact:
        words.append("warning: Ritz values stand for the spectrum, gaps between them are rough")
    return "; ".join(words) if finding.branch != "fixed" else words[0]


def _choose_rate(target: PruneTarget, options: Options) -> float:
    if target.measure != "ratio" or not target.removed:
        raise CheckError("a fixed rate needs to be said", hint="add `--ratio R`")
    return min(target.removed, options.max_rate)


def _eligible(model: nn.Module) -> dict[str, Tensor]:
    """Return the sizes of all weights and biases but those of normalisation layers."""
    norms = (_NormBase, nn.GroupNorm, nn.LayerNorm)
    skipped = {
        id(p)
        for module in model.modules()
        if isinstance(module, norms)
        for p in module.parameters(recurse=False)
    }
    return {name: p.detach().abs() for name, p in model.named_parameters() if id(p) not in skipped}


def _mask_module(trained: Trained, model: nn.Module, mask: dict[str, Tensor]) -> Trained:
    """Return the trained model with a module's values, masked in block coordinates."""
    layout = trained.layout
    axes = trained.support.axes(layout)
    dense = {
        name: scatter(bits, axes[name], layout.tensors[name].shape) for name, bits in mask.items()
    }
    support = trained.support.intersect(Support(trained.support.keep, dense))
    return trained.updated(model).cut(support)
