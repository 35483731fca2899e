"""Read every tensor of a file of `fp export` with torch and safetensors alone; copy it freely."""

import json

import torch
from safetensors import safe_open


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Return name -> float32 tensor in its true shape, whether it is stored dense or sparse."""
    with safe_open(path, framework="pt") as file:
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shapes = json.loads(file.metadata()["fpcli"])["shapes"]
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, whole in tensors.items():
        place = parts.get(f"{name}#index", torch.arange(whole.numel()))
        if f"{name}#bitmap" in parts:
            place = (parts[f"{name}#bitmap"][:, None] >> torch.arange(8) & 1).flatten().nonzero()
        whole.view(-1)[place.flatten().long()] = parts[name].float().flatten()
        whole *= parts.get(f"{name}#scale", torch.ones(())).view([-1, 1, 1, 1, 1][: whole.dim()])
    return tensors
