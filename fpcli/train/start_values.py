"""What training starts from: fresh weights, those of a file, or those of a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Inputs
from fpcli.errors import RecipeError
from fpcli.settings.tasks import StartTask
from fpcli.store.model_folder import read_trained
from fpcli.store.torch_file import SUFFIXES
from fpcli.store.weights import read_weights
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support


@dataclass(frozen=True, eq=False)
class Start:
    """What training starts from.

    Attributes:
        values: dense.
        support: what is alive of them.
        notes: what was done to get them.
    """

    values: Tensors
    support: Support
    notes: tuple[str, ...] = ()


def read_start(
    task: StartTask, model: nn.Module, layout: Layout, dataset: Dataset, why_whole: str = ""
) -> Start:
    """Return what training starts from.

    Args:
        model: has the initial values.
        dataset: what the network gets.
        why_whole: it must not be pruned; "" where it may be.

    Raises:
        RecipeError: the model of ``task.start`` is of another network, was trained with another
            ``task.normalise``, or is pruned and must not be.
        FpError: there is no model, or it is damaged.
    """
    state = model.state_dict()
    fresh = {name: state[name].detach().clone() for name in layout.tensors}
    start = Path(task.start)
    if start.is_file() or start.suffix in (".safetensors", *SUFFIXES):
        values, notes = read_weights(start, model, fresh, dataset.task, head=task.head)
        return Start(values, Support(), notes)
    if task.head == "new":
        raise RecipeError(
            "`task.head` is `new`, which is for weights of a file",
            hint="add `--weights FILE`, or leave out `--head new`",
            where="task.head",
        )
    if not task.start:
        return Start(fresh, Support())
    name = task.model
    trained = read_trained(Path(task.start), code=name)
    if trained.layout.digest != layout.digest:
        raise RecipeError(
            f"`task.start`: {task.start} holds `{trained.model}`, not `{name}`",
            hint=f"`--model {trained.model}`, on data of the same shape and classes",
            where="task.start",
        )
    earlier = trained.inputs.normalised_by if trained.inputs else "auto"
    is_alike = trained.inputs is not None and not trained.inputs.differ_from(Inputs.of(dataset))
    if earlier != task.normalise and not is_alike:
        raise RecipeError(
            f"`task.start`: {task.start} was trained with `task.normalise` `{earlier}`, not "
            f"`{task.normalise}`",
            hint=f"`--normalise {earlier}`",
            where="task.normalise",
        )
    if why_whole and (trained.support.keep or trained.support.mask):
        raise RecipeError(
            f"`task.start`: {task.start} is pruned, and {why_whole}",
            hint="start from a whole model, or train on with `fp train --method fedavg`",
            where="task.start",
        )
    return Start(trained.values, trained.support)
