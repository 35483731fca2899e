"""Build a network by name and make sure that it fits the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fpcli import plugins
from fpcli.errors import FpError, RecipeError, UsageError, first_line, suggest
from fpcli.models.group_norm import replace_batch_norm
from fpcli.models.names import (
    GROUP_NORM,
    find_model_name,
    list_torchvision,
    no_width,
    parse_model_name,
)
from fpcli.models.widths import InputShape
from fpcli.rng import derive
from fpcli.structure.plain import check_plain, require_scores
from fpcli.tasks.learning_task import LearningTask
from fpcli.units import format_input
from fpcli.user_code import describe_failure, is_wrong_call, locate_failure

"""Of one sample: (channels, height, width) of an image, (features,) of a row of a table."""

Factory = Callable[[InputShape, int], nn.Module]

PLAIN_OUTPUT: Mapping[str, Mapping[str, bool]] = {
    name: {"aux_logits": False, "init_weights": False} for name in ("googlenet", "inception_v3")
}
"""Arguments of torchvision's networks that would otherwise return several outputs in training."""


def build(
    name: str,
    input_shape: InputShape,
    task: LearningTask,
    *,
    seed: int,
    allow_code: bool = False,
) -> nn.Module:
    """Return a freshly initialised network; the caller's random state stays as it was.

    Args:
        name: see :func:`find_factory`.
        input_shape: of one sample.
        task: what the network is for: says the width of its output, and makes a sample.
        seed: of the initial values.
        allow_code: see :func:`find_factory`.

    Raises:
        UsageError: no model has that name, or it cannot be imported.
        RecipeError: the name would run code without ``allow_code``, or the network cannot be
            built, fails on a sample of the task's, or does not return finite ``[1, num_outputs]``.
        LayoutError: see :func:`structure.plain.check_plain` and ``require_scores``.
    """
    make = find_factory(name, allow_code=allow_code)
    purpose = f"{format_input(input_shape, task.kind)} and {task.describe()}"
    model: nn.Module | None = None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "init"))
        try:
            model = make(input_shape, task.num_outputs)
            if not isinstance(model, nn.Module):
                raise TypeError(f"it is a {type(model).__name__}, not a torch.nn.Module")
            check_plain(model, may_be_lazy=True)
            output = _try_out(model, task.make_example(input_shape))
        except FpError:
            raise
        except Exception as error:  # networks of others may raise anything
            raise RecipeError(
                f"model `{name}` {_describe_unfit(name, purpose, error)}",
                hint=_unfit_hint(name, input_shape, task, is_made=model is not None),
                where="task.model",
            ) from error
    scores = require_scores(output, f"model `{name}`", 1)
    if tuple(scores.shape) != (1, task.num_outputs):
        raise RecipeError(
            f"model `{name}` returns {list(scores.shape)} for one sample, wanted "
            f"[1, {task.num_outputs}]",
            hint=f"the data has {task.describe()}",
            where="task.model",
        )
    if not scores.isfinite().all():
        raise RecipeError(
            f"model `{name}` returns non-finite values for one sample",
            hint="check its initial values",
            where="task.model",
        )
    check_plain(model)
    return model


def _describe_unfit(name: str, task: str, error: Exception) -> str:
    if not (plugins.is_code(name) and locate_failure(error)):
        return f"does not fit {task}: {first_line(error)}"
    what = "is a function of other arguments" if is_wrong_call(error) else f"fails on {task}"
    return f"{what}: {describe_failure(error)}"


def _unfit_hint(name: str, input_shape: InputShape, task: LearningTask, *, is_made: bool) -> str:
    if plugins.is_code(name) and not is_made:
        return (
            f"it is called with (input_shape, num_outputs), here ({tuple(input_shape)}, "
            f"{task.num_outputs}), and returns an `nn.Module`"
        )
    if plugins.is_code(name):
        shape = ", ".join(map(str, (1, *input_shape)))
        kind = "" if task.make_example(input_shape).is_floating_point() else ", dtype=torch.int64"
        return (
            f"it must be an `nn.Module` that takes `torch.zeros({shape}{kind})` in evaluation mode"
        )
    if len(input_shape) > 1:
        return "channels and image size must suit the network; choose another model"
    if task.kind == "rank":
        return "choose a network for sequences, such as `fmlp`"
    return "choose a network for tables, such as `tabular-mlp`"


def measure_shapes(
    name: str, input_shape: InputShape, num_outputs: int
) -> dict[str, InputShape] | None:
    """Return the shapes of a network's floating-point tensors, without the memory for them.

    Args and errors as for :func:`find_factory`, and whatever the network raises; code is not run.

    Returns:
        Name -> shape; None for code, and for a network that calculates with its own tensors while
        it is made.
    """
    if plugins.is_code(name):
        return None
    try:
        with _NoMemory(), torch.random.fork_rng(devices=[]):
            state = find_factory(name)(input_shape, num_outputs).state_dict()
    except NotImplementedError:
        return None
    return {key: tuple(x.shape) for key, x in state.items() if x.is_floating_point()}


class _NoMemory(TorchFunctionMode):
    """Make fresh tensors without memory, but no other ones: with those, widths are calculated."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, on the device ``meta`` if it makes parameters."""
        on = {"device": "meta"} if func in _FRESH else {}
        return func(*args, **{**(kwargs or {}), **on})


_FRESH = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)


def find_factory(name: str, *, allow_code: bool = False) -> Factory:
    """Return the function that makes a network for an input shape and a number of classes.

    Args:
        name: a registered name or ``torchvision:NAME``, a classification network without trained
            weights, either perhaps followed by ``-gn`` (group norm for batch norm); registered
            ones also by ``@WIDTH`` (a factor of all widths). Or ``pkg.mod:function``, a function
            of (input_shape, num_outputs).
        allow_code: True lets ``pkg.mod:function`` be imported.

    Raises:
        UsageError: no model has that name, or it cannot be imported, or not in another width.
        RecipeError: ``name`` is a function and ``allow_code`` is False.
    """
    if plugins.is_code(name):
        if not allow_code:
            raise RecipeError(
                f"model `{name}` would run code",
                hint=f"code must stand on the command line: --model {name}",
                where="task.model",
            )
        factory: Factory = plugins.load_reference(name)
        return factory
    make: Factory
    if name.startswith(plugins.TORCHVISION):
        wanted = parse_model_name(name)
        make = _torchvision(wanted.base.removeprefix(plugins.TORCHVISION))
        if wanted.width is not None:
            raise no_width(name)
    else:
        wanted = find_model_name(name)
        make = plugins.lookup("models", wanted.base)
        if wanted.width is not None:
            make = partial(make, **{"width": wanted.width})
    return partial(_make_with_group_norm, make) if wanted.has_group_norm else make


def _make_with_group_norm(make: Factory, input_shape: InputShape, num_outputs: int) -> nn.Module:
    model = make(input_shape, num_outputs)
    if not replace_batch_norm(model):
        raise ValueError(f"it has no batch norm; leave out `{GROUP_NORM}`")
    return model


def _torchvision(name: str) -> Factory:
    names = list_torchvision()
    if name not in names:
        raise UsageError(
            f"torchvision has no classification network `{name}`",
            hint=suggest(name, names, {other: plugins.TORCHVISION + other for other in names})
            or f"known: {', '.join(names)}",
        )
    return partial(_make_torchvision, name)


def _make_torchvision(name: str, input_shape: InputShape, num_classes: int) -> nn.Module:
    from torchvision import models

    if len(input_shape) != 3 or input_shape[0] != 3:
        raise ValueError("torchvision's networks take images of 3 channels")
    extra = PLAIN_OUTPUT.get(name, {})
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return model


def _try_out(model: nn.Module, example: Tensor) -> object:
    """Return what the network makes of one sample in evaluation mode."""
    model.eval()
    with torch.no_grad():
        output: object = model(example)
    model.train()
    return output
