"""`fp data`: which data sets there are, what one holds, and how its files get here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fpcli.cli.build_command import build_command
from fpcli.cli.words import make_importable
from fpcli.errors import UsageError
from fpcli.settings import options as o
from fpcli.settings.flags import Flag
from fpcli.units import format_bytes, format_input

if TYPE_CHECKING:
    from fpcli.data.datasets import Dataset, Split

_Source = Annotated[
    str,
    Flag(
        "NAME|PATH",
        "A name of `fp data list`, what `--data` takes, or a folder or a .csv, .npz or .data file",
        known="datasets",
    ),
]
_Name = Annotated[str, Flag("NAME", "A name of `fp data list`", known="datasets")]
_Picture = Annotated[
    Path | None,
    Flag("-o/--output FILE.png", "Write a few images of every class there", default="no picture"),
]


def list_data(
    ctx: typer.Context,
    data_dir: o.DataDir = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """List the data sets that have a name, and whether they are here."""
    from fpcli import plugins
    from fpcli.cli import show
    from fpcli.data.catalogue import CATALOGUE

    items: list[dict[str, Any]] = []
    for name in plugins.list_names("datasets"):
        entry = CATALOGUE.get(name)
        items.append(
            {
                "name": name,
                "kind": entry and _kind(entry.input_shape, entry.kind),
                "about": entry.about if entry else "",
                "samples": entry and entry.num_samples,
                "input_shape": entry and list(entry.input_shape),
                "task": entry and entry.kind,
                "outputs": entry and entry.num_outputs,
                "state": _state(name, data_dir),
            }
        )
    rows = [
        (
            item["name"],
            item["about"],
            f"{item['samples']:,}" if item["samples"] else "",
            format_input(item["input_shape"], item["task"]) if item["input_shape"] else "",
            item["task"] or "",
            f"{item['outputs']:,}" if item["outputs"] else "",
            item["state"],
        )
        for item in items
    ]
    headers = ("data", "what", "samples", "one sample of", "task", "outputs", "state")
    ctx.obj.finish(
        {"items": items}, show.align(headers, rows, right=(2, 5), text=(1, 6), leave=(3, 5))
    )
    ctx.obj.hint("`fp data show NAME` shows what a data set holds, `fp data fetch NAME` gets it")


def show_data(
    ctx: typer.Context,
    name: _Source,
    output: _Picture = None,
    data_dir: o.DataDir = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Show what a data set holds: samples, shape, constants."""
    from fpcli.cli.show import align, prose

    if output is not None:
        _check_output(output)
    name = parse_source(name)
    dataset = open_dataset(name, data_dir)
    item = _item(name, dataset, data_dir)
    if output is not None:
        _check_pictures(item)
        from fpcli.report.contact import draw_contact_sheet

        item["picture"] = str(draw_contact_sheet(dataset, output))
    headers, rows = _table(item)
    counts = align(headers, rows, right=range(1, len(headers)))
    facts = align(("", ""), _facts(item))
    ctx.obj.finish({"items": [item]}, f"{prose(_headline(item))}\n\n{counts}\n\n{facts}")


def fetch_data(
    ctx: typer.Context,
    name: _Name,
    data_dir: o.DataDir = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Download a data set, which no other command does."""
    from fpcli.data.catalogue import require_folder
    from fpcli.data.fetch import fetch_dataset as download

    folder = require_folder(name, Path(data_dir) if data_dir else None)
    files = download(name, folder, lambda text: print(text, file=sys.stderr, flush=True))
    num_bytes = sum((folder / file).stat().st_size for file in files)
    item = {"name": name, "folder": str(folder), "files": list(files), "bytes": num_bytes}
    text = f"{name} · bundled"
    if files:
        size = format_bytes(num_bytes)
        text = f"{name} · {len(files)} files · {size} · {_sha256(name, data_dir)}"
    ctx.obj.finish({"items": [item]}, text)


def check_data(
    ctx: typer.Context,
    name: _Source,
    data_dir: o.DataDir = None,
    json: o.JsonOutput = False,
    debug: o.Debug = False,
) -> None:
    """Read all of a data set, and say what is wrong."""
    name = parse_source(name)
    item = _item(name, open_dataset(name, data_dir), data_dir)
    ctx.obj.finish({"items": [item]}, "\n".join([f"{_headline(item)}: ok", *item["notes"]]))


data_app = typer.Typer(help="List, show, fetch and check data sets.")
for command in (list_data, show_data, fetch_data, check_data):
    data_app.command(command.__name__.removesuffix("_data"))(build_command(command))


def parse_source(word: str) -> str:
    """Return what `--data` takes for a name or a path.

    A word that is a name or has a prefix means that, whatever lies in the current folder.
    """
    from fpcli import plugins

    path = Path(word).expanduser()
    if word in plugins.list_names("datasets") or not path.exists():
        return word
    prefix = plugins.PATH_SUFFIXES.get(path.suffix.lower(), "")
    return f"{'folder:' if path.is_dir() else prefix}{word}"


def open_dataset(name: str, data_dir: str | None) -> Dataset:
    """Load a data set as `fp train` does by default; files are first compared with their record.

    Raises:
        FpError: as ``data.datasets.load``, and if a file is not what was fetched.
    """
    from fpcli.data.datasets import load_dataset

    make_importable([name])
    _sha256(name, data_dir)
    return load_dataset(name, Path(data_dir) if data_dir else None, seed=0, allow_code=True)


def _check_output(path: Path) -> None:
    problem = ""
    if path.suffix.lower() != ".png":
        problem = f"{path} does not end in .png"
    elif path.exists():
        problem = f"{path} exists"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    if problem:
        raise UsageError(f"-o: {problem}", hint="give a new file NAME.png", where="--output")


def _check_pictures(item: dict[str, Any]) -> None:
    problem = ""
    if item["kind"] != "images":
        problem = f"{'a table has' if item['kind'] == 'table' else 'sequences have'} no pictures"
    elif item["task"] != "classify":
        problem = f"it has a row for every class, and the data's task is `{item['task']}`"
    if problem:
        raise UsageError(f"-o: {problem}", hint="leave -o out", where="--output")


def _kind(shape: tuple[int, ...], task: str) -> str:
    if task == "rank":
        return "sequences"
    return "images" if len(shape) > 1 else "table"


def _state(name: str, data_dir: str | None) -> str:
    """Return whether the data is here, in a word or two."""
    from fpcli import plugins
    from fpcli.data.catalogue import CATALOGUE

    entry = CATALOGUE.get(name)
    if entry is None:
        return "of another package" if name in plugins.list_names("datasets") else "yours"
    if not entry.files:
        return "made from a seed" if entry.is_synthetic else "bundled"
    return "found" if data_dir and entry.held(Path(data_dir)) else "not fetched"


def _sha256(name: str, data_dir: str | None) -> str:
    """Return what is known of the checksums of a data set's files; empty for files of others.

    Raises:
        DataError: a file is not what was fetched.
    """
    state = _state(name, data_dir)
    if state == "bundled":
        return "sha256 ok"
    if state != "found":
        return ""
    from fpcli.data.fetch import verify_files

    return "sha256 ok" if verify_files(name, Path(data_dir or "")) else "sha256 not recorded"


def _item(name: str, dataset: Dataset, data_dir: str | None) -> dict[str, Any]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    task = dataset.task
    item: dict[str, Any] = {
        "name": name,
        "kind": _kind(dataset.input_shape, task.kind),
        "state": _state(name, data_dir),
        "sha256": _sha256(name, data_dir),
        "input_shape": list(dataset.input_shape),
        "task": task.kind,
        "predicts": task.describe(),
        "outputs": task.num_outputs,
        "class_names": list(dataset.class_names),
        "samples": {part: len(split) for part, split in splits.items()},
        "per_class": None,
        "per_part": None,
        "scale": dataset.scale,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "owners": None,
        "notes": list(dataset.notes),
    }
    if task.kind == "classify":
        item["per_class"] = {
            part: split.labels.bincount(minlength=task.num_outputs).tolist()
            for part, split in splits.items()
        }
    else:
        summarise = _summarise_targets if task.kind == "regress" else _summarise_items
        item["per_part"] = {part: summarise(split) for part, split in splits.items()}
    if dataset.train.owners is not None:
        count = len(dataset.owner_names)
        owned = dataset.train.owners.bincount(minlength=count).tolist()
        item["owners"] = dict(zip(dataset.owner_names, owned, strict=True))
    return item


def _summarise_targets(split: Split) -> dict[str, float]:
    """Return what describes the numbers that are to be predicted."""
    numbers = split.labels.double()
    return {
        "lowest": float(numbers.min()),
        "mean": float(numbers.mean()),
        "highest": float(numbers.max()),
    }


def _summarise_items(split: Split) -> dict[str, int]:
    """Return how many users there are, and how many different items come next."""
    owners = [] if split.owners is None else split.owners.unique()
    return {"users": len(owners), "next items": len(split.labels.unique())}


def _table(item: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows: samples of each class, or what describes each part of the data."""
    parts = item["samples"]
    if item["task"] == "classify":
        rows = [
            [label, *(f"{item['per_class'][part][number]:,}" for part in parts)]
            for number, label in enumerate(item["class_names"])
        ]
        rows.append(["all", *(f"{count:,}" for count in parts.values())])
        return ["class", *parts], rows
    about = item["per_part"]
    rows = [
        [part, f"{count:,}", *map(_show_number, about[part].values())]
        for part, count in parts.items()
    ]
    return ["part", "samples", *about["train"]], rows


def _show_number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _headline(item: dict[str, Any]) -> str:
    total = sum(item["samples"].values())
    shape = format_input(item["input_shape"], item["task"])
    samples = f"{total:,} {'rows of ' if item['kind'] == 'table' else ''}{shape}"
    words = [item["name"], samples, item["predicts"], item["state"], item["sha256"]]
    return " · ".join(word for word in words if word)


def _facts(item: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if item["kind"] == "images":
        facts += [
            ("mean", ", ".join(f"{value:.4f}" for value in item["mean"])),
            ("standard deviation", ", ".join(f"{value:.4f}" for value in item["std"])),
        ]
    elif item["kind"] == "table":
        facts.append(("mean, deviation", f"{len(item['mean'])} each: see --json"))
    if item["owners"]:
        sizes = sorted(item["owners"].values())
        facts.append(
            (
                "natural clients",
                f"{len(sizes):,} with {sizes[0]:,} to {sizes[-1]:,} training samples",
            )
        )
    facts += [("as read", text) for text in item["notes"]]
    if "picture" in item:
        facts.append(("picture", item["picture"]))
    return facts
