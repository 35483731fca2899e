"""`fp doctor`: whether this machine has what fpcli needs, and what it would use."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import typer

from fpcli.errors import FpError, NeedError
from fpcli.settings import options as o
from fpcli.units import format_bytes
from fpcli.version import __version__

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "CUBLAS_WORKSPACE_CONFIG")
_MODULES = {
    "annotated-types": "annotated_types",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-pruning": "torch_pruning",
}
"""Package -> module, where the two have different names."""
_NEEDED = (
    "annotated-types", "filelock", "matplotlib", "numpy", "pillow", "platformdirs", "pydantic",
    "pyyaml", "rich", "safetensors", "scikit-learn", "scipy", "torch", "torch-pruning",
    "torchvision", "typer",
)  # fmt: skip
_LEAST_FREE_BYTES = 10**8


def run_doctor(ctx: typer.Context, json: o.JsonOutput = False, debug: o.Debug = False) -> None:
    """Check this machine: versions, devices, disk, data."""
    from fpcli.cli import show

    versions, broken = _versions()
    problems = [f"{name} cannot be imported: {reason}" for name, reason in broken.items()]
    data = "not tried"
    if not problems:
        data = _data()
        if data != "ok":
            problems.append(f"the bundled data cannot be loaded: {data}")
    free = shutil.disk_usage(Path.cwd()).free
    if free < _LEAST_FREE_BYTES:
        problems.append(f"only {format_bytes(free)} of disk are free in {Path.cwd()}")
    report: dict[str, Any] = {
        "versions": versions,
        "devices": _devices(),
        "extras": _extras(),
        "disk_free_bytes": free,
        "threads": {name: os.environ.get(name) for name in _THREADS},
        "workers": _workers(),
        "data": {"digits": data},
    }
    error = None
    if problems:
        names = " ".join(broken) or "fpcli"
        hint = f"`pip install --force-reinstall {names}`" if broken else "see the lines above"
        error = NeedError("; ".join(problems), hint=hint)
    ctx.obj.finish(report, show.align(("", ""), _rows(report)), error)


def _versions() -> tuple[dict[str, str | None], dict[str, str]]:
    """Return versions of everything needed, and the reasons of what cannot be imported."""
    versions: dict[str, str | None] = {
        "fpcli": __version__,
        "python": platform.python_version(),
    }
    broken = {}
    for name in _NEEDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
        try:
            import_module(_MODULES.get(name, name))
        except Exception as error:  # a package may fail in any way
            broken[name] = str(error).partition("\n")[0] or type(error).__name__
    return versions, broken


def _devices() -> list[dict[str, Any]]:
    from fpcli.engine.process import num_cores

    devices: list[dict[str, Any]] = [{"name": "cpu", "cores": num_cores()}]
    try:
        import torch

        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            devices.append(
                {
                    "name": f"cuda:{number}",
                    "model": about.name,
                    "memory_bytes": about.total_memory,
                }
            )
    except Exception:  # without torch or a driver there is no such device
        pass
    return devices


def _extras() -> dict[str, bool]:
    """Return for each extra of this package whether all of it is installed."""
    extras: dict[str, bool] = {}
    for line in metadata.requires("fpcli") or ():
        if match := re.match(r"([\w.-]+).*extra\s*==\s*['\"]([\w.-]+)['\"]", line):
            extras[match[2]] = extras.get(match[2], True) and _is_installed(match[1])
    return extras


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _workers() -> str:
    from fpcli.engine.process import num_cores

    cores = num_cores()
    if cores == 1:
        return "inline: one core"
    return f"pool of {cores}: one process per core, at most one per client of a round"


def _data() -> str:
    from fpcli.data.datasets import load_dataset

    try:
        load_dataset("digits", None, validation_fraction=0.1, seed=0)
    except FpError as error:
        return error.message
    except Exception as error:  # whatever a broken installation raises
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return "ok"


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(name, version or "missing") for name, version in report["versions"].items()]
    for device in report["devices"]:
        about = f"{device['cores']} cores" if "cores" in device else device["model"]
        if "memory_bytes" in device:
            about += f", {format_bytes(device['memory_bytes'])}"
        rows.append((f"device {device['name']}", about))
    for name, is_there in report["extras"].items():
        about = "installed" if is_there else f"not installed: `pip install 'fpcli[{name}]'`"
        rows.append((f"extra {name}", about))
    rows.append(("free disk here", format_bytes(report["disk_free_bytes"])))
    for name, value in report["threads"].items():
        rows.append((name, value or "not set"))
    rows.append(("--workers auto", report["workers"]))
    rows += [(f"data {name}", state) for name, state in report["data"].items()]
    return rows
