"""What the first round of a run starts from: fresh weights, or those of a trained model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fpcli.engine.method import Traits
from fpcli.engine.trained import Inputs
from fpcli.errors import RecipeError
from fpcli.settings.recipes import Recipe
from fpcli.store.model_folder import read_trained
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support


def read_start(
    recipe: Recipe, model: nn.Module, layout: Layout, traits: Traits, inputs: Inputs
) -> tuple[Tensors, Support]:
    """Return dense values to start from, and what is alive of them.

    Args:
        inputs: what the network gets.

    Raises:
        RecipeError: the model of ``task.start`` is of another network, was trained with another
            ``task.normalise``, or is pruned and the method would not leave it so.
        FpError: there is no model, or it is damaged.
    """
    if not recipe.task.start:
        state = model.state_dict()
        return {name: state[name].detach().clone() for name in layout.tensors}, Support()
    name = recipe.task.model
    trained = read_trained(Path(recipe.task.start), code=name)
    if trained.layout.digest != layout.digest:
        raise RecipeError(
            f"`task.start`: {recipe.task.start} holds `{trained.model}`, not `{name}`",
            hint=f"`--model {trained.model}`, on data of the same shape and classes",
            where="task.start",
        )
    earlier = trained.inputs.normalised_by if trained.inputs else "auto"
    is_alike = trained.inputs is not None and not trained.inputs.differ_from(inputs)
    if earlier != recipe.task.normalise and not is_alike:
        raise RecipeError(
            f"`task.start`: {recipe.task.start} was trained with `task.normalise` `{earlier}`, not "
            f"`{recipe.task.normalise}`",
            hint=f"`--normalise {earlier}`",
            where="task.normalise",
        )
    is_pruned = bool(trained.support.keep or trained.support.mask)
    if is_pruned and traits.cuts != "nothing" and not traits.starts_pruned:
        raise RecipeError(
            f"`task.start`: {recipe.task.start} is pruned, and `{recipe.method.name}` chooses "
            "itself what is left out",
            hint="start from a whole model, or train on with `--method fedavg`",
            where="task.start",
        )
    return trained.values, trained.support
