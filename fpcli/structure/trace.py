"""Trace: find the channel groups of a network from one forward pass."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from fpcli.errors import LayoutError, first_line
from fpcli.structure.channels import find_groups
from fpcli.structure.cost import count_macs
from fpcli.structure.layout import Group, Layout, TensorSpec
from fpcli.structure.opaque import (
    explain_obstacle,
    find_obstacle,
    hide_modules,
    match_modules,
)
from fpcli.structure.pairs import find_real_rows
from fpcli.structure.plain import check_network_output, check_plain, check_training, is_float
from fpcli.structure.verify import draw_batch, verify_cuts


def trace(model: nn.Module, example: Tensor, *, opaque: Sequence[str] = ()) -> Layout:
    """Find the tensors and channel groups of a network, and prove them on the example.

    The model itself, its gradients, its mode and the random state stay as they are.

    Args:
        model: takes one tensor and returns one.
        example: one batch of inputs, ``[batch, ...]``, on the model's device.
        opaque: names of modules whose inside is left alone (``structure.opaque``).

    Returns:
        The layout. Protected are the network's output, and every group that meets an operation
        which is not known to treat each channel by itself, a grouped convolution or attention.

    Raises:
        LayoutError: the network cannot be traced, shares a parameter between two names, or a
            sub-model cut by the layout fails or computes something else.

    >>> layout = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(1, 4))
    >>> [(group.name, group.width, group.protected) for group in layout.groups.values()]
    [('0', 3, False), ('2', 2, True)]
    """
    with _leave_undisturbed(example):
        tensors, fixed_macs = _specs(model, example)
        groups = _groups(_copy_working(model), example, opaque)
        layout = Layout(tensors, groups, fixed_macs, tuple(opaque))
        verify_cuts(_copy_working(model), layout, example)
        check_training(_copy_working(model), example, has_gradient=True)
    return layout


def trace_around(model: nn.Module, example: Tensor, *, words: Sequence[str] = ()) -> Layout:
    """Trace a network; where that fails, trace it without looking into the modules that words name.

    Args:
        words: names of modules, or patterns with ``*``.

    Raises:
        LayoutError: it cannot be traced; says without which modules it could, if so.
    """
    try:
        return trace(model, example)
    except LayoutError as error:
        if names := match_modules(model, words):
            return trace(model, example, opaque=names)

        def is_solved(names: tuple[str, ...]) -> bool:
            try:
                return bool(trace(model, example, opaque=names).prunable)
            except LayoutError:
                return False

        raise explain_obstacle(error, find_obstacle(model, is_solved)) from error


def list_tensors(model: nn.Module, example: Tensor) -> Layout:
    """Return the tensors of a network without channel groups, for methods that cut nothing.

    Args and errors as in :func:`trace`, whose dependency graph this one does not need.
    """
    with _leave_undisturbed(example):
        tensors, fixed_macs = _specs(model, example)
        check_training(_copy_working(model), example, has_gradient=True)
    return Layout(tensors, {}, fixed_macs)


@contextlib.contextmanager
def _leave_undisturbed(example: Tensor) -> Iterator[None]:
    devices = [example.device] if example.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: x for name, x in model.state_dict(keep_vars=True).items() if is_float(x)}


def _copy_working(model: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(model).eval()
    except Exception as error:
        raise LayoutError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}",
            hint="keep only plain values and modules as attributes",
        ) from error
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return twin


def _specs(model: nn.Module, example: Tensor) -> tuple[dict[str, TensorSpec], float]:
    """Return the tensors and the fixed multiply-adds of a network that can be trained and cut."""
    check_plain(model)
    twin = _copy_working(model)
    returned: list[object] = []
    twin.register_forward_hook(lambda _module, _inputs, output: returned.append(output))
    example = example.detach().clone()
    try:
        macs = count_macs(twin, example)
    except Exception as error:
        raise LayoutError(
            f"{type(model).__name__} fails on the example {list(example.shape)}: "
            f"{first_line(error)}",
            hint="check the input shape of the data against the model",
        ) from error
    if example._version:
        raise LayoutError(
            f"{type(model).__name__} changes its input in place",
            hint="compute something new from it (`x = x * 2`, `inplace=False`)",
        )
    check_network_output(returned[-1], twin, len(example), "")
    check_training(_copy_working(model), example, has_gradient=False)
    parameters = {id(parameter) for parameter in twin.parameters()}
    rows = find_real_rows(twin, macs.complex_names, draw_batch(twin, example))
    specs = {
        name: TensorSpec(
            tuple(x.shape),
            id(x) in parameters,
            macs.by_tensor.get(name, 0.0) / max(x.numel(), 1),
            rows.get(name),
        )
        for name, x in _floats(twin).items()
    }
    return specs, macs.total - sum(macs.by_tensor.values())


def _groups(model: nn.Module, example: Tensor, opaque: Sequence[str]) -> dict[str, Group]:
    # As a leaf of the graph the input can be recognised where it meets channels directly.
    if example.is_floating_point():
        example = example.detach().requires_grad_()
    names = {id(x): name for name, x in _floats(model).items()}
    hide_modules(model, opaque)
    try:
        graph = tp.DependencyGraph().build_dependency(model, (example,), verbose=False)
        return find_groups(graph, names)
    except Exception as error:
        raise LayoutError(
            f"{type(model).__name__} cannot be traced{_behind(error)}: {first_line(error)}",
            hint="use a model without channel shuffles, built from plain modules",
        ) from error


def _behind(error: Exception) -> str:
    """Name the operation the tracer was looking at, and the module it follows."""
    node: Any = None
    step = error.__traceback__
    while step is not None:
        nodes = [x for x in step.tb_frame.f_locals.values() if type(x).__name__ == "Node"]
        node = nodes[0] if nodes and node is None else node
        step = step.tb_next
    if node is None:
        return ""
    operation = str(getattr(node.grad_fn, "name", lambda: node.module)())
    while node.inputs and node._name is None:
        node = node.inputs[0]
    return f" at {operation}" + (f" behind `{node._name}`" if node._name else "")
