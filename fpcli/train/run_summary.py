"""What is told about a round and about a whole run, as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fpcli.engine.federation import RoundRecord
from fpcli.structure.layout import Tensors


@dataclass(frozen=True)
class Summary:
    """The result of a run; its fields are the contract of ``fp train --json``.

    Accuracies are fractions; ``best_accuracy`` is the test accuracy in the round with the highest
    validation accuracy; ``clock_s`` is simulated; params and macs are the global model's.
    """

    run: str
    method: str
    rounds: int
    clients: int
    seed: int
    accuracy: float
    best_accuracy: float
    loss: float
    down_bytes: int
    up_bytes: int
    clock_s: float
    real_s: float
    params: int
    macs: float
    state_sha256: str
    clients_accuracy: Mapping[str, float] | None = None
    local_accuracy: Mapping[str, float] | None = None


@dataclass(frozen=True)
class FitSummary:
    """The result of plain training; its fields are the contract of ``fp fit --json``.

    Accuracies are fractions; ``accuracy`` and ``loss`` are those of the final model on the test
    data, ``best_accuracy`` that of the epoch with the highest validation accuracy.
    """

    run: str
    epochs: int
    seed: int
    accuracy: float
    best_accuracy: float
    loss: float
    real_s: float
    params: int
    macs: float
    state_sha256: str


def state_sha256(values: Tensors) -> str:
    """Return one SHA-256 over all server tensors, so that two runs can be compared bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode())
        digest.update(values[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def round_to_event(record: RoundRecord) -> dict[str, Any]:
    """Return a round's record as one flat JSON object of the event stream."""
    event: dict[str, Any] = {
        "event": "round",
        "round": record.round,
        "cohort": list(record.cohort),
        "loss": record.loss,
        "down_bytes": record.down_bytes,
        "up_bytes": record.up_bytes,
        "round_s": record.clock_s,
        "clock_s": record.totals.clock_s,
        "total_down_bytes": record.totals.down_bytes,
        "total_up_bytes": record.totals.up_bytes,
        "real_s": record.real_s,
        "params": record.cost.params,
        "macs": record.cost.macs,
        "coverage": record.coverage,
        "notes": dict(record.notes),
        "attempts": record.attempts,
        "clients": [asdict(client) for client in record.clients],
        "rejected": [asdict(r) for r in record.refusals if not r.is_dropped],
        "dropped": [asdict(r) for r in record.refusals if r.is_dropped],
    }
    if record.evaluation:
        event["validation"] = asdict(record.evaluation.validation)
        event["test"] = asdict(record.evaluation.test)
        if record.evaluation.withheld:
            event["withheld"] = asdict(record.evaluation.withheld)
        if clients := record.evaluation.clients:
            event["personal"] = {client: score.accuracy for client, score in clients.items()}
            event["local"] = {client: score.local_accuracy for client, score in clients.items()}
            event["clients_accuracy"] = _over_clients(event["personal"])
            event["local_accuracy"] = _over_clients(event["local"])
    return event


def _over_clients(accuracies: Mapping[int, float]) -> dict[str, float]:
    values = torch.tensor(list(accuracies.values()), dtype=torch.float64)
    return {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
    }
