"""Plain: refuse a network whose values are not simply the float32 tensors of its modules.

Everything here takes the tensors of a ``state_dict``, changes or narrows them, and puts them back
into a copy of the network. Whatever computes its weights from others, hides them, or shares them
would go on with old ones without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fpcli.errors import LayoutError, first_line

_LAYERS = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
_UTILS = "torch.nn.utils."


def check_plain(model: nn.Module, *, may_be_lazy: bool = False) -> None:
    """Make sure that a network computes with the tensors of its ``state_dict``, and with no others.

    Args:
        model: the network.
        may_be_lazy: it was never called, so that lazy modules are without sizes yet.

    Raises:
        LayoutError: it has a parametrisation (weight or spectral norm), masks of
            ``torch.nn.utils.prune``, compiled, scripted, quantised or unused lazy modules, tensors
            that are shared, without memory or not float32, or layers with a weight that is no
            parameter; names the module and what to call.
    """
    for name, module in model.named_modules():
        _check_module(name, module)
        if not may_be_lazy:
            _check_called(name, module)
    state = model.state_dict(keep_vars=True)
    for name, x in state.items():
        _check_tensor(name, x)
    for name, parameter in model.named_parameters():
        if state.get(name) is not parameter:
            raise LayoutError(
                f"`{name}` does not stand in the `state_dict` of {type(model).__name__}",
                hint="leave out hooks that change its `state_dict`",
                where=name,
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise LayoutError(
            f"{type(model).__name__} has no parameter that can be trained",
            hint="a network needs at least one, with `requires_grad`",
        )
    identities = {id(x) for x in state.values()}
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS):
            for key in ("weight", "bias"):
                x = getattr(module, key, None)
                if x is not None and id(x) not in identities:
                    raise _explain_computed(name, module, key, "register it as a parameter instead")
    _check_shared({name: x for name, x in state.items() if is_float(x) and not is_lazy(x)})


def is_float(x: object) -> bool:
    """Tell whether an entry of a ``state_dict`` is a tensor of floating-point numbers."""
    return isinstance(x, Tensor) and x.is_floating_point()


def check_training(model: nn.Module, example: Tensor, *, has_gradient: bool) -> None:
    """Make sure that a network can be trained: on two samples, in training mode.

    Args:
        model: a copy that may be changed.
        example: one batch, of which the first sample is taken twice.
        has_gradient: compute it too, which takes longest.

    Raises:
        LayoutError: it fails, or what it returns is not as in :func:`check_network_output`.
    """
    try:
        output = model.train()(torch.cat([example[:1], example[:1]]))
    except Exception as error:
        raise _untrainable(model, error) from error
    check_network_output(output, model, 2, " in training mode")
    try:
        if has_gradient:
            output.sum().backward()
    except RuntimeError as error:  # it writes in place what the gradient needs
        raise _untrainable(model, error) from error


def _untrainable(model: nn.Module, error: Exception) -> LayoutError:
    return LayoutError(
        f"{type(model).__name__} cannot be trained on two samples: {first_line(error)}",
        hint="forward and backward must work in training mode, for any number of samples",
    )


def check_network_output(output: object, model: nn.Module, num_samples: int, mode: str) -> None:
    """Make sure that a network returned one tensor that trains its parameters.

    Args:
        output: what it returned, with its graph.
        model: the network.
        num_samples: that it was given.
        mode: " in training mode", for the message.

    Raises:
        LayoutError: it returned something else, or trains what is none of its parameters.
    """
    name = type(model).__name__
    scores = require_scores(output, name, num_samples, mode)
    if not scores.requires_grad:
        raise LayoutError(
            f"what {name} returns{mode} depends on no parameter that could be trained",
            hint="`forward` cuts the graph: look for `no_grad`, `detach` and `.data`",
        )
    identities = {id(parameter) for parameter in model.parameters()}
    if strange := [leaf for leaf in _leaves(scores) if id(leaf) not in identities]:
        raise LayoutError(
            f"{name} computes with a parameter of shape {list(strange[0].shape)} that is none of "
            "its own",
            hint="keep modules in `nn.ModuleList`, not in a list, and parameters as attributes",
        )


def require_scores(output: object, name: str, num_samples: int, mode: str = "") -> Tensor:
    """Return what a network returned if it is one tensor, float32 with a row per sample.

    Args:
        output: what it returned.
        name: of the network, for the message.
        num_samples: that it was given.
        mode: " in training mode", for the message.

    Raises:
        LayoutError: it is something else; the hint says how a single tensor is made of it.
    """
    if not isinstance(output, Tensor):
        description, hint = describe_output(output)
        raise LayoutError(f"{name} returns {description}{mode}, wanted one tensor", hint=hint)
    has_rows = output.shape[:1] == (num_samples,) and output.numel() > 0
    if has_rows and output.dtype == torch.float32:
        return output
    kind = str(output.dtype).removeprefix("torch.")
    samples = "one sample" if num_samples == 1 else f"{num_samples} samples"
    raise LayoutError(
        f"{name} returns {kind} {list(output.shape)}{mode} for {samples}, wanted float32 with a "
        "row for each",
        hint="return the scores in float32, `scores.float()`"
        if has_rows and output.is_floating_point()
        else "return one row of scores per sample",
    )


def describe_output(output: object) -> tuple[str, str]:
    """Say what a network returned, and how one that returns a single tensor is made of it.

    >>> describe_output({"out": 0, "aux": 0})[0]
    'a dict with `out`, `aux`'
    """
    wrap = "return the scores of the classes alone: in a module around it, `self.net(x){}`"
    aux = "; torchvision's take `aux_logits=False` or `aux_loss=False`"
    if isinstance(output, Tensor):
        return f"{list(output.shape)}", ""
    if output is None:
        return "nothing", "`forward` returns nothing: add `return`"
    if isinstance(output, Mapping) and output:
        keys = ", ".join(f"`{key}`" for key in output)
        return f"a {type(output).__name__} with {keys}", wrap.format(f"[{next(iter(output))!r}]")
    if isinstance(output, tuple | list) and output:
        kind = type(output).__name__
        return f"a {kind} of {len(output)} values", wrap.format("[0]") + aux
    description = f"a value of type {type(output).__name__}"
    if not is_dataclass(output):
        return description, "return one tensor: a row of scores per sample"
    named = "logits" if hasattr(output, "logits") else "ATTRIBUTE"
    return description, wrap.format(f".{named}")


def _leaves(output: Tensor) -> Iterator[Tensor]:
    todo, seen = [output.grad_fn], set()
    while todo:
        step = todo.pop()
        if step is not None and step not in seen:
            seen.add(step)
            if isinstance(leaf := getattr(step, "variable", None), Tensor):
                yield leaf
            todo += [parent for parent, _ in step.next_functions]


def _check_module(name: str, module: nn.Module) -> None:
    place = f"`{name}`" if name else type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise LayoutError(
            f"{place} is a script, whose tensors cannot be replaced",
            hint="give the Python module that it was made from",
            where=name,
        )
    if type(module).__name__ == "OptimizedModule":  # not imported: torch's compiler loads slowly
        raise LayoutError(
            f"{place} is compiled for the widths that it has now",
            hint="give the network itself, without `torch.compile`",
            where=name,
        )
    if parametrize.is_parametrized(module):
        key = next(iter(module.parametrizations))  # type: ignore[arg-type]
        raise _explain_computed(
            name, module, key, f'`{_UTILS}parametrize.remove_parametrizations(module, "{key}")`'
        )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            kind = "weight" if isinstance(hook, WeightNorm) else "spectral"
            remedy = f'`{_UTILS}remove_{kind}_norm(module, "{hook.name}")`'
            raise _explain_computed(name, module, hook.name, remedy)
        if isinstance(hook, BasePruningMethod):
            key = hook._tensor_name
            raise _explain_computed(name, module, key, f'`{_UTILS}prune.remove(module, "{key}")`')


def _check_called(name: str, module: nn.Module) -> None:
    for key, x in [*module._parameters.items(), *module._buffers.items()]:
        if x is not None and is_lazy(x):
            place = f"`{name}`" if name else type(module).__name__
            raise LayoutError(
                f"{place} has a `{key}` without a size: the network never calls this lazy module",
                hint="call it in `forward`, or leave it out",
                where=name,
            )


def _explain_computed(name: str, module: nn.Module, key: str, remedy: str) -> LayoutError:
    kind = type(module).__name__.removeprefix("Parametrized")
    return LayoutError(
        f"the {kind} `{name}` computes its `{key}` from other tensors"
        if name
        else f"{kind} computes its `{key}` from other tensors",
        hint=f"{remedy}, before the network is returned" if "(" in remedy else remedy,
        where=f"{name}.{key}".lstrip("."),
    )


def _check_tensor(name: str, x: object) -> None:
    for part in x if isinstance(x, tuple) else (x,):
        if isinstance(part, Tensor) and part.is_quantized:
            raise LayoutError(
                f"`{name}` is quantised, and cannot be trained or cut",
                hint="give the network from before it was quantised",
                where=name,
            )
    if not isinstance(x, Tensor):
        return
    if x.is_meta:
        raise LayoutError(
            f"`{name}` is on the device meta, and has no values",
            hint='make the network outside `torch.device("meta")`',
            where=name,
        )
    if x.dtype == torch.float32:
        return
    if x.is_floating_point() or (x.is_complex() and isinstance(x, nn.Parameter)):
        raise LayoutError(
            f"`{name}` is {str(x.dtype).removeprefix('torch.')}; all values here are float32",
            hint="keep real and imaginary parts in parameters of their own"
            if x.is_complex()
            else "`model.float()`, and no other type inside `forward`",
            where=name,
        )


def _check_shared(floats: Mapping[str, Tensor]) -> None:
    spans: dict[Any, list[tuple[int, int, str]]] = {}
    for name, x in floats.items():
        if x.numel():
            storage = (x.device, x.untyped_storage()._cdata)
            first = int(x.storage_offset())
            steps = zip(x.shape, x.stride(), strict=True)
            last = first + int(sum((size - 1) * step for size, step in steps))
            spans.setdefault(storage, []).append((first, last, name))
    for parts in spans.values():
        for first, last, name in parts:
            for start, _, other in parts:
                if name != other and first <= start <= last:
                    raise LayoutError(
                        f"'{name}' and '{other}' are one shared tensor",
                        hint="give each layer its own parameters, and register each module once",
                        where=other,
                    )
