"""`fp data split`: how many samples, and of which classes, `fp train` would give to each client."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.build_command import read_options
from fpcli.cli.session import Session
from fpcli.cli.words import make_importable, new_files, split_overrides
from fpcli.settings import options as o
from fpcli.settings.flags import TASK, Flag
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import Recipe
from fpcli.settings.tasks import Partition

if TYPE_CHECKING:
    from torch import Tensor

    from fpcli.data.datasets import Dataset

_SHOWN = {
    "dirichlet": ("alpha",),
    "shards": ("shards_per_client",),
    "dominant": ("dominant_share",),
    "classes": ("classes_per_client",),
    "missing": ("missing_classes",),
    "file": ("file",),
}
"""Kind of split -> keys that shape it."""

_TESTS = {
    "classes": "test: the test samples of a client's own classes, for its personal accuracy",
    "owners": "test: the test samples of a client's own owners, by which its model is judged",
    "nothing": "test: all test samples, by which every client's model is judged",
}
"""What test samples go by -> which of them are a client's."""

_MOST_COLUMNS = 20
"""With more classes the table would be wider than any screen, and shows no class."""

_TRAIN = collect_flags(Recipe)
SPLIT_FLAGS = {
    "task.data_dir": _TRAIN["task.data_dir"],
    "task.clients": _TRAIN["task.clients"],
    "task.partition.kind": replace(_TRAIN["task.partition.kind"], usage="--by/--partition KIND"),
    "task.partition.alpha": _TRAIN["task.partition.alpha"],
    "task.partition.min_size": Flag(
        "--min-size N",
        "Smallest allowed number of samples of a client",
        TASK,
        default=str(Partition.min_size),
    ),
    "seed": _TRAIN["seed"],
}
"""Key -> option that sets it."""


def split_data(ctx: typer.Context, given: o.SplitOptions) -> None:
    """Show how the training data is split over the clients."""
    out = given.out
    kinds = (".json", ".png", ".svg")
    files = new_files("-o", out, *kinds, force=given.force) if out is not None else ()
    session: Session = ctx.obj
    resolved = _recipe(ctx.params)
    content, plan = _split(resolved)
    if out is not None:
        _write(out, content, plan)
    plan["files"] = [str(path) for path in files]
    session.finish(plan, _text(resolved, plan))
    task = resolved.task
    if out is not None:
        more = "".join(f" --set {key}={value}" for key, value in _list_deciding(resolved).items())
        session.hint(
            f"`fp train --data {task.data} --clients {task.clients} --seed {resolved.seed} "
            f"--partition file --set task.partition.file={shlex.quote(str(out))}{more}` trains "
            "with it"
        )


def _recipe(params: Mapping[str, Any]) -> Recipe:
    from fpcli.models import MODELS
    from fpcli.recipe.load import find_recipe, load_recipe

    flags = read_options(params, SPLIT_FLAGS)
    if params["name"] is not None:
        flags["task.data"] = params["name"]
    pairs = split_overrides(params["set_"])
    make_importable([*flags.values(), *(value for _, value in pairs)])
    # A recipe needs a network, a split does not.
    flags["task.model"] = next(iter(MODELS))
    return load_recipe(find_recipe(params["recipe"]) if params["recipe"] else None, pairs, flags)


def _list_deciding(recipe: Recipe) -> dict[str, Any]:
    """Return the other keys that decide which samples there are for clients, where they are not as
    usual."""
    from fpcli.settings.tasks import TrainTask

    usual, task = TrainTask(), recipe.task
    keys = ("kind", "validation_fraction", "server_share", "server_samples")
    return {
        f"task.{key}": getattr(task, key)
        for key in keys
        if getattr(task, key) != getattr(usual, key)
    }


def _split(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """Return the split as the text of a file, and what the command tells about it."""
    from fpcli.data.partition import split_digest
    from fpcli.data.split_file import split_json
    from fpcli.data.withhold import withhold
    from fpcli.recipe.load import flatten
    from fpcli.train.client_data import (
        choose_personal_tests,
        choose_server_samples,
        find_test_key,
        load_data,
        share_out,
    )

    dataset = load_data(recipe)
    server = choose_server_samples(recipe, dataset)
    parts = share_out(recipe, dataset, server)
    kept = withhold(dataset, parts, recipe.task.withhold, server)
    tests = choose_personal_tests(kept.dataset, kept.parts)
    holders = (*kept.parts, kept.server)
    *clients, at_server = _count(dataset, holders)
    keys = {k: v for k, v in flatten(recipe).items() if k.startswith("task.partition.")}
    return split_json(recipe.task.data, dataset.train.labels, parts, server), {
        "data": recipe.task.data,
        "shape": list(dataset.input_shape),
        "task": dataset.task.kind,
        "predicts": dataset.task.describe(),
        "notes": list(dataset.notes),
        "partition": {key.rpartition(".")[2]: value for key, value in keys.items()},
        "seed": recipe.seed,
        "samples": len(dataset.train),
        "used": sum(map(len, holders)),
        "withheld": sorted(set(recipe.task.withhold)),
        "sha256": split_digest(parts),
        "clients": [
            {"client": client, "test": len(test), **counts}
            for client, (counts, test) in enumerate(zip(clients, tests, strict=True))
        ],
        "server": at_server,
        "test_by": find_test_key(dataset),
    }


def _count(dataset: Dataset, holders: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return how many samples each holder has, and of which classes or, where none are learned, of
    how many owners."""
    from fpcli.data.partition import count_labels

    train = dataset.train
    if dataset.task.kind == "classify":
        rows = count_labels(train.labels, tuple(holders), dataset.num_classes).tolist()
        return [
            {"train": sum(row), "classes": sum(count > 0 for count in row), "labels": row}
            for row in rows
        ]
    owners = train.owners
    known = [{} if owners is None else {"owners": len(owners[part].unique())} for part in holders]
    return [{"train": len(part), **more} for part, more in zip(holders, known, strict=True)]


def _write(out: Path, content: str, plan: Mapping[str, Any]) -> None:
    from fpcli.files import write_atomic
    from fpcli.report.split_plot import draw_split

    write_atomic(out, content)
    # Where there are no classes, all samples are of one.
    *table, at_server = (
        holder.get("labels", [holder["train"]]) for holder in (*plan["clients"], plan["server"])
    )
    at_server = at_server if plan["server"]["train"] else None
    draw_split(
        table, f"{plan['data']}: {_words(plan['partition'])}", out.with_suffix(""), at_server
    )


def _words(partition: Mapping[str, Any]) -> str:
    """Return the kind of a split and what shapes it, as `dirichlet (alpha 0.3)`."""
    kind = partition["kind"]
    keys = list(_SHOWN.get(kind, ()))
    if kind == "quantity":
        shape = {"dirichlet": "alpha", "power": "exponent"}[partition["size_law"]]
        keys += ["sizes"] if partition["sizes"] else ["size_law", shape]
    if partition["imbalance"] > 1:
        keys.append("imbalance")
    settings = ", ".join(f"{key.replace('_', ' ')} {partition[key]}" for key in keys)
    return f"{kind} ({settings})" if settings else str(kind)


def _text(recipe: Recipe, plan: Mapping[str, Any]) -> str:
    from fpcli.cli import show

    clients: Sequence[Mapping[str, Any]] = plan["clients"]
    known = [key for key in ("classes", "owners") if key in clients[0]]
    labels = range(len(clients[0].get("labels", ())))
    has_columns = len(labels) <= _MOST_COLUMNS
    headers = ["client", "train", "test", *known]
    headers += map(str, labels) if has_columns else ()
    holders = [*clients]
    if plan["server"]["train"]:
        holders.append({"client": "server", "test": ""} | plan["server"])
    rows = [
        [
            str(holder["client"]),
            *(f"{holder[key]:,}" if holder[key] != "" else "" for key in ("train", "test", *known)),
            *(map(str, holder.get("labels", ())) if has_columns else ()),
        ]
        for holder in holders
    ]
    columns = range(len(headers))
    sizes = [client["train"] for client in clients]
    is_whole = plan["used"] == plan["samples"]
    used = "every sample used once" if is_whole else (
        f"{plan['used']:,} of {plan['samples']:,} samples used, each once"
    )  # fmt: skip
    about = [
        f"{plan['data']}: {plan['samples']:,} training "
        f"{'sequences' if plan['task'] == 'rank' else 'samples'} of "
        f"{'x'.join(map(str, plan['shape']))}, {plan['predicts']}",
        *plan["notes"],
        f"split: {_words(plan['partition'])}, {recipe.task.clients} clients, "
        f"seed {recipe.seed}, digest {plan['sha256'][:16]}",
    ]
    notes = [
        f"min {min(sizes):,}, median {statistics.median(sizes):,.10g}, max {max(sizes):,} samples; "
        f"{used}",
        _TESTS[plan["test_by"]],
    ]
    if plan["withheld"]:
        classes = ", ".join(map(str, plan["withheld"]))
        never = f"{sizes.count(0)} of {len(sizes)} clients"
        notes.append(f"withheld: class {classes}; without other samples and never asked: {never}")
    if plan["files"]:
        notes.append(f"wrote {', '.join(plan['files'])}")
    table = show.align(headers, rows, right=columns, leave=columns[:3:-1])
    return "\n".join([*map(show.prose, about), table, *map(show.prose, notes)])
