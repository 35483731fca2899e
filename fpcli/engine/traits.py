"""Traits: what the engine must know of a method before it runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True)
class Traits:
    """What the engine must know of a method before it runs; ``fp methods NAME`` tells it in words.

    A trait that is not named has the value of FedAvg.
    """

    cuts: Literal["nothing", "channels", "weights"] = "nothing"
    """What sub-models go without: nothing, whole channels, so that they are smaller, or single
    weights."""
    sub_models: Literal["equal", "own"] = "equal"
    """Whether clients of one round may get different ones."""
    models: Literal["common", "personal"] = "common"
    """Whether one model is judged, or one per client, each on its own test samples."""
    masks_by: Literal["server", "client"] = "server"
    """Who says what is masked; a client may go on with less than it received."""
    remembers_masks: bool = False
    """Clients keep the masks they last had, and are not sent them again."""
    uploads: Literal["all", "entries"] = "all"
    """Whether clients leave entries out of their change, by the mask of their work: such an entry
    did not change, and the client held and trained it all the same."""
    buffers: Literal["merged", "local"] = "merged"
    """Whether running statistics of batch norm travel and are merged like weights, or stay where
    they are; clients then start from fresh ones, or from what they remember."""
    coordinates: bool = False
    """Clients are told which channels they hold (client memory under sub-models); otherwise the
    widths of the tensors tell them enough and no index travels."""
    trains_sparse: bool = False
    """Weights off the mask of a plan stay 0 in every step of local training, so that layers may
    skip them (``executor.sparse``)."""
    starts_pruned: bool = False
    """Goes on from a pruned model of ``task.start`` as it is, as methods do that cut nothing."""
    judges: Literal["held", "sent"] = "held"
    """Which common model is judged and written out: as the server holds it, or as it is sent, with
    the rounding of ``wire.down``."""
    needs_server_data: bool = False
    """The server needs samples of its own (``task.server_share``)."""
    needs_classes: bool = False
    """It can learn nothing but classes."""

    def to_words(self) -> dict[str, str]:
        """Return in words what a user should know, by its subject: what is cut, whose sub-models
        and models there are, and in what else the method differs from FedAvg."""
        values = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return dict(_IN_WORDS[value] for value in values if value in _IN_WORDS)


_IN_WORDS: Mapping[tuple[str, str | bool], tuple[str, str]] = {
    ("cuts", "nothing"): ("cuts", "nothing: clients train the whole model"),
    ("cuts", "channels"): ("cuts", "channels: sub-models are smaller"),
    ("cuts", "weights"): ("cuts", "single weights: sub-models are sparse"),
    ("sub_models", "equal"): ("sub-models", "one for all clients of a round"),
    ("sub_models", "own"): ("sub-models", "may differ from client to client"),
    ("models", "common"): ("models", "one for all"),
    ("models", "personal"): ("models", "one per client, judged on test samples of its classes"),
    ("masks_by", "client"): ("masks", "the client's own choice, within what it received"),
    ("remembers_masks", True): ("masks travel", "only to clients that may not have them yet"),
    ("uploads", "entries"): (
        "uploads",
        "some entries of the change; the others count as unchanged",
    ),
    ("buffers", "local"): ("batch norm statistics", "stay with the clients"),
    ("coordinates", True): ("channel indices", "travel along, so that clients remember by channel"),
    ("trains_sparse", True): ("training", "layers may skip masked weights (executor.sparse)"),
    ("starts_pruned", True): ("start", "goes on from a pruned model (task.start) as it is"),
    ("judges", "sent"): ("judged", "what is sent of the model, rounded by wire.down"),
    ("needs_server_data", True): ("server data", "needed (task.server_share)"),
    ("needs_classes", True): ("learns", "classes only"),
}
"""Trait and value -> subject and words; a value that has none is that of FedAvg and not told."""
