"""What is told about a round and about a whole run, as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from fpcli.engine.federation import RoundRecord
from fpcli.settings.metrics import BEST, find_metric, name_of_clients
from fpcli.store.events import EVENT_FORMAT
from fpcli.structure.layout import Tensors


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well a trained model does, by the metrics of its task.

    Attributes:
        test: metric -> value of the last evaluated model on test data; shares are fractions.
        best: likewise in the round with the best validation value of the task's first metric.
        loss: of the last evaluated model on test data.
        personal: metric -> mean, standard deviation and lowest value over the clients' own models;
            empty where these are not judged.
    """

    test: Mapping[str, float]
    best: Mapping[str, float]
    loss: float
    personal: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return every field as the contract of ``--json`` has it: metrics beside the others by
        their names, such as ``accuracy`` and ``best_accuracy``, and their directions."""
        mine = {item.name for item in fields(Judged)}
        others = {x.name: getattr(self, x.name) for x in fields(self) if x.name not in mine}
        first = [*others][: [*others].index("seed") + 1]
        metrics = {**self.test, **{BEST + name: value for name, value in self.best.items()}}
        return {
            **{name: others.pop(name) for name in first},
            **metrics,
            "loss": self.loss,
            **others,
            **{name_of_clients(name): spread for name, spread in self.personal.items()},
            "directions": {name: find_metric(name).direction for name in self.test},
        }


@dataclass(frozen=True, kw_only=True)
class Summary(Judged):
    """The result of a run, for ``fp train --json``.

    ``clock_s`` is simulated; params and macs are the global model's.
    """

    run: str
    method: str
    rounds: int
    clients: int
    seed: int
    down_bytes: int
    up_bytes: int
    clock_s: float
    real_s: float
    params: int
    macs: float
    state_sha256: str


@dataclass(frozen=True, kw_only=True)
class FitSummary(Judged):
    """The result of plain training, for ``fp fit --json``."""

    run: str
    epochs: int
    seed: int
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
        "format": EVENT_FORMAT,
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
        event["validation"] = record.evaluation.validation.to_event()
        event["test"] = record.evaluation.test.to_event()
        if record.evaluation.withheld:
            event["withheld"] = record.evaluation.withheld.to_event()
        if clients := record.evaluation.clients:
            event["personal"] = {
                name: {client: score.metrics[name] for client, score in clients.items()}
                for name in next(iter(clients.values())).metrics
            }
    return event


def summarise_clients(personal: Mapping[str, Mapping[Any, float]]) -> dict[str, dict[str, float]]:
    """Return metric -> mean, standard deviation and lowest value of what an event has of each
    client's own model."""
    summaries = {}
    for name, of_clients in personal.items():
        values = torch.tensor(list(of_clients.values()), dtype=torch.float64)
        summaries[name] = {
            "mean": float(values.mean()),
            "std": float(values.std(correction=0)),
            "min": float(values.min()),
        }
    return summaries
