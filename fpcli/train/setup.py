"""Build everything that a recipe names: data, parts, model, layout, fleet, federation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fpcli import plugins
from fpcli.data.augment import check_augment
from fpcli.data.datasets import Dataset
from fpcli.data.withhold import Kept, withhold
from fpcli.engine.federation import Federation, Rules
from fpcli.engine.method import Method, Traits
from fpcli.engine.placement import check_device
from fpcli.engine.server_side import ServerSide, require_server_data
from fpcli.engine.site import Common, Site
from fpcli.engine.trained import DataKey, Inputs, Trained
from fpcli.errors import LayoutError, RecipeError
from fpcli.fleet.classes import make_fleet
from fpcli.fleet.devices import Fleet, Level
from fpcli.fleet.server_hardware import find_server
from fpcli.models.build import build
from fpcli.recipe.load import digest_recipe
from fpcli.settings.recipes import Recipe
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.shrink import hollow_out
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors, trace
from fpcli.train.client_data import (
    choose_personal_tests,
    choose_server_samples,
    load_data,
    share_out,
)
from fpcli.train.start_values import read_start


@dataclass(frozen=True, eq=False)
class Setup:
    """A recipe, built.

    Attributes:
        values: initial values of the model, dense.
        site: what processes that perform jobs need.
        parts: training samples of each client.
        support: what is alive of the initial values.
    """

    recipe: Recipe
    fed: Federation
    values: Tensors
    site: Site
    parts: tuple[Tensor, ...]
    support: Support = field(default_factory=Support)

    def trained(self, values: Tensors, support: Support) -> Trained:
        """Return dense values of the model, and what is alive of them, as a trained model."""
        task, fed = self.recipe.task, self.fed
        return Trained(
            model=task.model,
            template=fed.template,
            layout=fed.layout,
            support=support,
            values=values,
            input_shape=tuple(fed.dataset.input_shape),
            task=fed.dataset.task,
            data=DataKey(task.data, task.validation_fraction, fed.seed),
            inputs=Inputs.of(fed.dataset),
        )


def prepare_run(recipe: Recipe, home: Path) -> Setup:
    """Build what a recipe describes; the same recipe gives the same bits.

    Args:
        recipe: resolved; code named as ``pkg.mod:function`` is imported and run.
        home: folder for the clients' memories.

    Raises:
        FpError: of many kinds; data, model or device do not exist or do not fit together.
    """
    task = recipe.task
    check_device(recipe.executor.device, "executor.device")
    fleet = build_fleet(recipe)
    dataset = load_data(recipe)
    check_augment(task.augment, task.data, dataset.train.images)
    held = choose_server_samples(recipe, dataset)
    kept = withhold(dataset, share_out(recipe, dataset, held), task.withhold, held)
    dataset, parts = kept.dataset, kept.parts
    model = build(task.model, dataset.input_shape, dataset.task, seed=recipe.seed, allow_code=True)
    method_name = recipe.method.name
    method: Method = plugins.lookup("methods", method_name)()
    options = method.Options(**recipe.method.options)
    traits = method.traits_of(options)
    check_what_is_learned(recipe, dataset, traits)
    layout = trace_for(model, dataset, traits)
    start = read_start(task, model, layout, dataset, _why_whole(method_name, traits))
    dataset = replace(dataset, notes=dataset.notes + start.notes)
    common = Common(
        run=hashlib.sha256(f"{digest_recipe(recipe)}{layout.digest}".encode()).hexdigest(),
        options=options,
        dataset=dataset,
        num_examples=tuple(len(part) for part in parts),
        num_withheld=tuple(len(part) for part in kept.withheld),
        fleet=fleet,
        up_codec=recipe.wire.up or recipe.wire.codec,
        seed=recipe.seed,
        device=recipe.executor.device,
        is_channels_last=recipe.executor.channels_last,
    )
    template = hollow_out(model)
    if traits.needs_server_data:
        require_server_data(f"method `{method_name}`", len(kept.server))
    fed = Federation(
        **vars(common),
        method=method,
        method_name=method_name,
        layout=layout,
        template=template,
        server_side=_server_side(recipe, layout, template, kept, fleet.server),
        classes=torch.stack([dataset.classes_of(part) for part in parts]),
        local=recipe.local,
        down_codec=recipe.wire.down or recipe.wire.codec,
        rules=_rules(recipe, sum(len(part) > 0 for part in parts)),
        server=recipe.server,
        withheld=tuple(task.withhold),
        withheld_test=kept.test,
    )
    site = _site(recipe, common, fed, kept, home)
    return Setup(recipe, fed, start.values, site, parts, start.support)


def _why_whole(method_name: str, traits: Traits) -> str:
    if traits.cuts == "nothing" or traits.starts_pruned:
        return ""
    return f"`{method_name}` chooses itself what is left out"


def check_what_is_learned(recipe: Recipe, dataset: Dataset, traits: Traits) -> None:
    """Make sure that a recipe asks nothing that what is learned does not have.

    Raises:
        RecipeError: its method, or its targets, are for something else.
    """
    if traits.needs_classes and dataset.task.kind != "classify":
        raise RecipeError(
            f"method `{recipe.method.name}`, as it is set, learns classes only; "
            f"data `{dataset.name}` has {dataset.task.describe()}",
            hint="take another method (`fp methods`), or data with classes (`fp data list`)",
            where="method.name",
        )
    check_target_names(recipe.target, dataset)


def check_target_names(target: Mapping[str, float], dataset: Dataset) -> None:
    """Make sure that what a run is to reach is a metric of what is learned.

    Raises:
        RecipeError: it is none.
    """
    for name in target:
        if name not in dataset.task.metrics:
            metrics = ", ".join(dataset.task.metrics)
            raise RecipeError(
                f"`target`: `{name}` is no metric of data `{dataset.name}`",
                hint=f"it is judged by {metrics}",
                where="--target",
            )


def _server_side(
    recipe: Recipe, layout: Layout, template: nn.Module, kept: Kept, level: Level
) -> ServerSide:
    return ServerSide(
        layout=layout,
        template=template,
        dataset=kept.dataset,
        indices=kept.server,
        level=level,
        seed=recipe.seed,
        device=recipe.executor.device,
        is_channels_last=recipe.executor.channels_last,
        augment=recipe.task.augment,
    )


def build_fleet(recipe: Recipe) -> Fleet:
    """Return the simulated devices of a recipe.

    Raises:
        RecipeError: classes of devices do not fit the number of clients.
    """
    choice, seed = recipe.fleet, recipe.seed
    fleet: Fleet
    if choice.devices:
        clients = recipe.task.clients
        fleet = make_fleet(choice.profile, choice.devices, seed, choice.variation, clients)
    else:
        fleet = plugins.lookup("fleets", choice.profile)(seed, choice.variation)
    return replace(
        fleet,
        link_variation=choice.link_variation,
        availability=choice.availability,
        dropout=choice.dropout,
        dropout_when=choice.dropout_when,
        server=find_server(choice.server, choice.profile, choice.devices),
    )


def _site(recipe: Recipe, common: Common, fed: Federation, kept: Kept, home: Path) -> Site:
    parts = kept.parts
    is_personal = fed.traits.models == "personal" or recipe.eval_clients
    tests = choose_personal_tests(fed.dataset, parts) if is_personal else ()
    return Site(
        **vars(common),
        method=plugins.find_reference("methods", fed.method_name),
        model=recipe.task.model,
        layout_json=json.dumps(fed.layout.to_json()),
        indices=torch.cat(parts),
        test_indices=torch.cat(tests) if tests else torch.empty(0, dtype=torch.int64),
        test_sizes=tuple(len(part) for part in tests),
        home=home,
        limit_bytes=fed.limit_bytes,
        augment=recipe.task.augment,
        withheld_indices=torch.cat(kept.withheld) if kept.withheld else None,
    )


def trace_for(model: nn.Module, dataset: Dataset, traits: Traits) -> Layout:
    """Trace a model; a method that cuts nothing can do without channel groups.

    Raises:
        LayoutError: the model cannot be traced, and the method prunes channels.
    """
    if traits.cuts == "nothing":
        return trace_or_list(model, dataset)
    layout = trace(model, dataset.task.make_example(dataset.input_shape))
    if traits.cuts == "channels" and not traits.starts_pruned and not layout.prunable:
        raise LayoutError(
            f"{type(model).__name__} has no channels that may leave",
            hint="its layers meet operations that tie all channels together; use another model",
        )
    return layout


def trace_or_list(model: nn.Module, dataset: Dataset) -> Layout:
    """Trace a model; of one that cannot be traced return the tensors without channel groups.

    Raises:
        LayoutError: the model fails on the data, cannot be copied, or shares tensors.
    """
    example = dataset.task.make_example(dataset.input_shape)
    try:
        return trace(model, example)
    except LayoutError:
        return list_tensors(model, example)


def _rules(recipe: Recipe, num_trainers: int) -> Rules:
    """Return the rules of a recipe; ``num_trainers`` clients have training samples."""
    clients = recipe.task.clients
    per_round = min(recipe.clients_per_round or clients, num_trainers)
    if recipe.min_clients > per_round:
        idle = f": {clients - num_trainers} of {clients} have no training samples"
        raise RecipeError(
            f"`min_clients` is {recipe.min_clients}, but a round has {per_round} clients"
            + (idle if num_trainers < clients else ""),
            hint="lower min_clients"
            + (" or raise clients_per_round" if per_round < num_trainers else ""),
            where="min_clients",
        )
    return Rules(
        rounds=recipe.rounds,
        clients_per_round=per_round,
        eval_every=recipe.eval_every,
        min_clients=recipe.min_clients,
        round_retries=recipe.round_retries,
        deadline_s=recipe.fleet.deadline_s,
        eval_clients=recipe.eval_clients,
    )
