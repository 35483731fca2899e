"""Readers of files: whatever stands in one, they read it or refuse it with an error of ours.

Each case has a whole file, and a reader that looks at it as a command does. The seed is printed
when something is found.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import every_way, narrow, whole
from folders import rounds, write_pruning, write_run
from mutations import BYTES, TEXT, Damage, mutated
from PIL import Image
from safetensors.torch import save

import fpcli
from fpcli.data.datasets import load_dataset as load_data
from fpcli.data.split_file import read_split, split_json
from fpcli.engine.types import ServerState
from fpcli.errors import FpError
from fpcli.export.candidates import open_candidate
from fpcli.export.card import Card
from fpcli.export.file import encode_model
from fpcli.pruning.sensitivity import read_rates
from fpcli.recipe.fleet_file import fleet_text, read_fleet
from fpcli.recipe.load import load_any, read_stored, to_yaml
from fpcli.report.compare import compare_runs
from fpcli.report.page import make_page
from fpcli.report.runs import find_runs
from fpcli.report.text_tables import to_data
from fpcli.settings.hardware import DeviceClass
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store import events
from fpcli.store.checkpoint import load_newest
from fpcli.store.checkpoint import save_checkpoint as save_checkpoint
from fpcli.store.model_folder import read_trained, write_trained
from fpcli.store.partial import read_partial
from fpcli.store.weights import read_weights
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify

LIMIT_S = 20
LIMIT_BYTES = 2**30


@dataclass(frozen=True)
class Case:
    """A file in a folder, and what reads it.

    Attributes:
        damages: what may happen to the file.
        read: reads it; its result is thrown away.
        others: further files that are damaged in turn.
    """

    path: Path
    damages: Sequence[Damage]
    read: Callable[[], Any]
    others: Sequence[Path] = ()


def csv_file(folder: Path) -> Case:
    path = folder / "t.csv"
    text = "size,colour,client,split,label\n" + "".join(
        f"{number / 3:.3f},{'red' if number % 3 else 'blue'},c{number % 4},"
        f"{('train', 'train', 'val', 'test')[number % 4]},{'yes' if number // 4 % 2 else 'no'}\n"
        for number in range(24)
    )
    path.write_text(text)
    return Case(path, TEXT, lambda: load_data(f"csv:{path}", None, seed=0))


def ratings_file(folder: Path, name: str, between: str) -> Case:
    path = folder / name
    head = "user,item,rating,time\n" if between == "," else ""
    rows = ((n % 6, n % 5, 3, 1000 - n) for n in range(60))
    path.write_text(head + "".join(between.join(map(str, row)) + "\n" for row in rows))
    titles = folder / "u.item"
    titles.write_text("".join(f"{n}|Film {n} (1990)|x\n" for n in range(5)), "latin-1")
    read = f"ratings:{path},core=3,length=4"
    return Case(path, TEXT, lambda: load_data(read, None, seed=0), [titles])


def ratings_archive(folder: Path) -> Case:
    path = folder / "r.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        rows = ((n % 6, n % 5, 3, n) for n in range(60))
        lines = ("\t".join(map(str, row)) + "\n" for row in rows)
        archive.writestr("ml-100k/u.data", "".join(lines))
        archive.writestr("ml-100k/u.item", "1|Film|x\n")
    return Case(path, BYTES, lambda: load_data(f"ratings:{path},length=4", None, seed=0))


def npz_of_sequences(folder: Path) -> Case:
    path, labels = folder / "x.npz", np.arange(12) % 5
    images = (np.arange(48, dtype=np.int16) % 5 + 1).reshape(12, 4)
    arrays = {"images": images, "labels": labels, "owners": labels}
    parts = ("train", "val", "test")
    named = {f"{part}_{what}": value for part in parts for what, value in arrays.items()}
    np.savez(path, task="rank", num_items=9, **named)
    read = partial(load_data, f"npz:{path}", None, sampled_negatives=2, seed=0)
    return Case(path, BYTES, read)


def npz_file(folder: Path) -> Case:
    path, labels = folder / "x.npz", np.arange(20) % 2
    pixels = np.arange(20 * 9, dtype=np.uint8).reshape(20, 3, 3)
    np.savez(path, train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    return Case(path, BYTES, lambda: load_data(f"npz:{path}", None, seed=0))


def npz_compressed(folder: Path) -> Case:
    path, labels = folder / "x.npz", np.arange(20) % 2
    rows = np.linspace(0, 1, 80, dtype=np.float32).reshape(20, 4)
    np.savez_compressed(
        path, train_images=rows, train_labels=labels, test_images=rows, test_labels=labels,
        train_owners=labels,
    )  # fmt: skip
    return Case(path, BYTES, lambda: load_data(f"npz:{path}", None, seed=0))


def image_folder(folder: Path) -> Case:
    names = ("a.png", "b.jpg", "c.gif", "d.bmp", "e.tif", "f.webp", "g.ppm")
    for label in "xy":
        (folder / "imgs" / label).mkdir(parents=True)
        for name in names:
            Image.linear_gradient("L").resize((6, 5)).save(folder / "imgs" / label / name)
    files = [folder / "imgs" / "x" / name for name in names]
    read = f"folder:{folder / 'imgs'}"
    return Case(files[0], BYTES, lambda: load_data(read, None, seed=0), files[1:])


def split_file(folder: Path) -> Case:
    path, labels = folder / "split.json", torch.arange(12) % 3
    path.write_text(split_json("digits", labels, [torch.arange(0, 6), torch.arange(6, 12)]))
    return Case(path, TEXT, lambda: read_split(path, "digits", labels, 2))


def recipe_file(folder: Path) -> Case:
    path = folder / "r.yaml"
    path.write_text(to_yaml(Recipe()))

    def read() -> None:
        for look in (load_any, read_stored):
            look(path)

    return Case(path, TEXT, read)


def fit_recipe_file(folder: Path) -> Case:
    path = folder / "r.yaml"
    path.write_text(to_yaml(FitRecipe()))
    return Case(path, TEXT, lambda: load_any(path))


def fleet_file(folder: Path) -> Case:
    path = folder / "f.yaml"
    slow = DeviceClass(name="slow", flops=1e9, down=1e6, up=1e6, memory=2**30, clients=(0, 1))
    path.write_text(fleet_text([slow, replace(slow, name="fast", clients=(2,))], "two classes"))
    return Case(path, TEXT, lambda: read_fleet(path))


def rates_file(folder: Path) -> Case:
    path, layout = folder / "sens.json", whole("digits-cnn").layout
    groups = [
        {"name": name, "initial_width": group.width, "accuracy": [0.9, 0.5]}
        for name, group in layout.prunable.items()
    ]
    content = {"format": 1, "kind": "sensitivity", "baseline_accuracy": 0.9, "ratios": [0.1, 0.5]}
    path.write_text(json.dumps(content | {"groups": groups}))
    return Case(path, TEXT, lambda: read_rates(path, 1.0, layout))


def partial_sweep(folder: Path) -> Case:
    out, same = folder / "sens.json", {"model": "m", "seed": 0}
    path = folder / "sens.json.partial"
    tallies = {"l1/conv1/3": {"seen": 10, "correct": 5, "loss_sum": 1.5}}
    path.write_text(json.dumps({"identity": same, "tallies": tallies}))
    return Case(path, TEXT, lambda: read_partial(out, same, force=False))


_LOOKS = itertools.count()


def look_at(run: Path) -> None:
    """Compare a run as a table, and one time in 20, which takes long, as a page."""
    found = compare_runs(find_runs([run], run.parent))
    to_data(found)
    if next(_LOOKS) % 20 == 0:
        make_page(found)


def events_file(folder: Path) -> Case:
    run = write_run(folder / "run", [])
    path = run / "events.jsonl"
    for event in rounds(0.5, 0.6, 0.7):
        events.append(path, event)

    def read() -> None:
        events.find_sound(path)
        look_at(run)
        events.keep(path, 0)

    return Case(path, TEXT, read)


def old_events_file(folder: Path) -> Case:
    run = write_run(folder / "run", rounds(0.5, 0.6, 0.7))
    return Case(run / "events.jsonl", TEXT, lambda: look_at(run), [run / "recipe.yaml"])


def pruning_files(folder: Path) -> Case:
    path = write_pruning(folder / "run", 0.5, 0.8, source="fit-s0", latency=True)
    names = ("report.json", "layout.json", "recipe.yaml")
    return Case(path / "history.jsonl", TEXT, lambda: look_at(path), [path / n for n in names])


def environment_file(folder: Path) -> Case:
    run = write_run(folder / "run", rounds(0.5, 0.6))
    files = [run / "environment.json", run / "command.txt"]
    files[0].write_text('{"fpcli": "0.1", "packages": {"torch": "2.4"}, "cpu_count": 2}\n')
    files[1].write_text("fp train\n")
    return Case(files[0], TEXT, lambda: look_at(run), files[1:])


def checkpoint(folder: Path, sums: bool) -> Case:
    state = ServerState(1, {"w": torch.ones(3)}, Support({"g": torch.arange(2)}), None)
    place = save_checkpoint(folder, state, digest="d", extra={"totals": {}})
    files = [place / name for name in ("meta.json", "state.safetensors", "SHA256SUMS")]

    def read() -> None:
        if sums:  # as somebody would who means harm
            (place / "SHA256SUMS").write_text(list_checksums(place, files[:2]))
        load_newest(folder, method_state=None, digest="d")

    from fpcli.files import list_checksums

    damages = [*TEXT, *BYTES]
    return Case(files[0], damages, read, files[1:2] if sums else files[1:])


def trained_folder(folder: Path) -> Case:
    write_trained(folder, every_way())
    files = [folder / name for name in ("layout.json", "model.safetensors", "mask.safetensors")]
    return Case(files[0], [*TEXT, *BYTES], lambda: read_trained(folder), files[1:])


def exported(folder: Path) -> Case:
    path, trained = folder / "m.safetensors", every_way()
    path.write_bytes(encode_model(trained, Card.of(trained, {})).data)
    return Case(path, [*TEXT, *BYTES], lambda: fpcli.load(path))


def forged_export(folder: Path) -> Case:
    """The header is damaged where it says what the file is, and its checksum is made to fit."""
    from safetensors import safe_open

    from fpcli.export.file import _digest

    path, trained = folder / "m.safetensors", narrow("digits-cnn")
    path.write_bytes(encode_model(trained, Card.of(trained, {})).data)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = folder / "about.json"
        about.write_text(file.metadata()["fpcli"])

    def read() -> None:
        text = about.read_bytes().decode("utf-8", "replace")
        try:
            said = json.loads(text)
            said["sha256"] = _digest(tensors, said)
            text = json.dumps(said)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        path.write_bytes(save(tensors, {"fpcli": text}))
        fpcli.load(path)

    return Case(about, TEXT, read)


def weights(folder: Path, ending: str) -> Case:
    trained = narrow("digits-cnn", ratio=0.0)
    path = folder / f"w.{ending}"
    if ending == "pt":
        torch.save(dict(trained.values), path)
    else:
        path.write_bytes(save({k: x.contiguous() for k, x in trained.values.items()}))
    return Case(
        path, BYTES, lambda: read_weights(path, trained.template, trained.values, Classify(10))
    )


def program(folder: Path, ending: str) -> Case:
    from fpcli.export.formats import PROGRAMS

    trained, path = narrow("digits-cnn"), folder / f"m.{ending}"
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path.write_bytes(PROGRAMS[ending].write(trained.module(), Card.of(trained, {}), 0)[0])
    return Case(path, BYTES, lambda: open_candidate(path))


CASES: dict[str, Callable[[Path], Case]] = {
    "csv": csv_file,
    "ratings": lambda folder: ratings_file(folder, "u.data", "\t"),
    "ratings with header": lambda folder: ratings_file(folder, "x.csv", ","),
    "ratings with double colons": lambda folder: ratings_file(folder, "ratings.dat", "::"),
    "ratings in an archive": ratings_archive,
    "npz of sequences": npz_of_sequences,
    "npz": npz_file,
    "npz compressed": npz_compressed,
    "folder": image_folder,
    "split": split_file,
    "recipe": recipe_file,
    "fit recipe": fit_recipe_file,
    "fleet": fleet_file,
    "rates": rates_file,
    "sweep": partial_sweep,
    "events": events_file,
    "events without checksums": old_events_file,
    "environment": environment_file,
    "pruning": pruning_files,
    "checkpoint": lambda folder: checkpoint(folder, False),
    "forged checkpoint": lambda folder: checkpoint(folder, True),
    "trained": trained_folder,
    "export": exported,
    "forged export": forged_export,
    "weights pt": lambda folder: weights(folder, "pt"),
    "weights safetensors": lambda folder: weights(folder, "safetensors"),
    "pt2": lambda folder: program(folder, "pt2"),
    "onnx": lambda folder: program(folder, "onnx"),
}
SLOW = {"pt2", "onnx"}
"""Their programs take seconds to write, and tens of milliseconds to read."""


@contextmanager
def guarded() -> Iterator[None]:
    """End a reader that takes far too long."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"took longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(case: Case, number: int, seed: int) -> list[str]:
    """Read as many damaged files, and return what went wrong."""
    files = [case.path, *case.others]
    whole_files = {path: path.read_bytes() for path in files}
    case.read()
    found = []
    for turn in range(number):
        for path, data in whole_files.items():
            path.write_bytes(data)
        rng = random.Random(f"{seed}-{turn}")
        path = rng.choice(files)
        path.write_bytes(mutated(whole_files[path], case.damages, rng))
        try:
            with guarded():
                case.read()
        except FpError as error:
            if error.code == "F100" or not error.message:
                found.append(f"{turn}: {error!r}")
        except Exception:
            found.append(f"{turn} {path.name}: {traceback.format_exc(limit=-4)}")
    return found


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, 10) for name in CASES if name not in SLOW]
    + [pytest.param(name, 2000, marks=pytest.mark.slow) for name in CASES],
)
def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    monkeypatch.setattr("fpcli.data.pictures.user_cache_path", lambda name: tmp_path / "cache")
    seed = int.from_bytes(os.urandom(4), "big") if number > 100 else 0
    print(f"seed {seed}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problems = attack(CASES[name](tmp_path), number, seed)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert not problems, f"{len(problems)} of {number} (seed {seed}):\n" + "\n".join(problems[:5])
    assert grown < LIMIT_BYTES
