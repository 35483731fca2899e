"""How clients, the server and one machine train, and how much is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from fpcli.settings.flags import AMOUNT, METHOD, RETRAINING, TRAINING, Flag

Share = Annotated[float, Gt(0), Lt(1)]

Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class MethodChoice:
    """The method, and its own options beside its name."""

    panel: ClassVar[str] = METHOD

    name: Annotated[str, Flag("--method NAME", known="methods")] = "fedavg"
    """What `fp methods` lists; its options: `--set method.KEY=VALUE`."""
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"is_open": True})
    """Values for the fields of the method's `Options`; in a recipe they stand beside `name`."""


@dataclass(frozen=True)
class PrunerChoice(MethodChoice):
    """The method, and its own options beside its name."""

    panel: ClassVar[str] = AMOUNT

    name: Annotated[str, Flag("--method NAME", known="pruners")] = "filters"
    """How what goes is chosen; its options: `--set method.KEY=VALUE`."""


@dataclass(frozen=True)
class LocalConfig:
    """How a client trains on its own data."""

    panel: ClassVar[str] = TRAINING

    epochs: Annotated[int, Ge(1), Flag("--epochs N")] = 1
    """Passes of a client over its data per round."""
    batch_size: Annotated[int, Ge(1), Flag("--batch-size N")] = 32
    """Samples of a client's training step."""
    optimizer: Annotated[Optimizer, Flag("--optimizer NAME")] = "sgd"
    """What makes steps of gradients: sgd or adam (beta 0.9 and 0.999), which starts anew in every
    round."""
    lr: Annotated[float, Ge(0), Flag("--lr X")] = 0.1
    """Learning rate of a client's training; Adam wants a hundredth of what SGD does."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Momentum of SGD; it starts at 0 in every round."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Factor of the squared-norm penalty on all parameters."""
    clip_norm: Annotated[float, Ge(0)] = 0.0
    """Largest norm of a step's whole gradient; 0 does not clip."""
    lr_drop_at: tuple[Annotated[int, Ge(1)], ...] = ()
    """Rounds from which on the learning rate is multiplied by `lr_drop`, once for each."""
    lr_drop: Annotated[float, Gt(0)] = 0.1
    """Factor on the learning rate at the rounds of `lr_drop_at`."""


@dataclass(frozen=True)
class ServerConfig:
    """What the server does with the mean change of a round."""

    optimizer: Literal["none", "momentum", "adam", "yogi", "adagrad"] = "none"
    """`none` adds the change; the others take it as a gradient and keep moments of it."""
    lr: Annotated[float, Gt(0)] | None = None
    """Server learning rate; null means 1 for `none` and `momentum`, 0.01 for the others."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Decay of the first moment (paper: beta_1; it takes 0 for `adagrad`)."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Decay of the second moment of `adam` and `yogi`."""
    tau: Annotated[float, Gt(0)] = 0.001
    """Degree of adaptivity of `adam`, `yogi` and `adagrad`: the smaller, the more."""

    @property
    def rate(self) -> float:
        """The server learning rate, with its default."""
        usual = 1.0 if self.optimizer in ("none", "momentum") else 0.01
        return usual if self.lr is None else self.lr


@dataclass(frozen=True)
class FitConfig:
    """How one model is trained where the data is."""

    panel: ClassVar[str] = TRAINING

    epochs: Annotated[int, Ge(0), Flag("--epochs N")] = 30
    """Passes over the training data."""
    batch_size: Annotated[int, Ge(1), Flag("--batch-size N")] = 128
    """Samples of a training step."""
    optimizer: Annotated[Optimizer, Flag("--optimizer NAME")] = "sgd"
    """What makes steps of gradients: sgd or adam (beta 0.9 and 0.999)."""
    lr: Annotated[float, Ge(0), Flag("--lr X")] = 0.1
    """Learning rate at the start; Adam wants a hundredth of what SGD does."""
    momentum: Annotated[float, Ge(0), Lt(1), Flag("--momentum X")] = 0.9
    """Momentum of SGD, below 1."""
    weight_decay: Annotated[float, Ge(0), Flag("--weight-decay X")] = 0.0005
    """Factor of the squared-norm penalty on all parameters."""
    schedule: Annotated[Literal["cosine", "constant", "steps"], Flag("--schedule KIND")] = "cosine"
    """How the learning rate falls: as half a cosine to 0, not at all (constant), or by steps, to a
    tenth at each of `drop_at` (half and three quarters of the training)."""
    drop_at: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.5, 0.75)
    """Under `steps`: shares of the training at which the learning rate is divided by 10."""
    clip_norm: Annotated[float, Ge(0)] = 0.0
    """Largest norm of a step's whole gradient; 0 does not clip."""


@dataclass(frozen=True)
class PruneChoice:
    """How much goes, from where, and in how many steps."""

    panel: ClassVar[str] = AMOUNT

    ratio: Annotated[Annotated[float, Ge(0), Lt(1)] | None, Flag("--ratio X")] = None
    """Share that GOES of every group's channels (or as the method says)."""
    params: Annotated[Share | None, Flag("--params X")] = None
    """Share of the parameters that STAYS, in place of a ratio."""
    macs: Annotated[Share | None, Flag("--macs X")] = None
    """Share of the multiply-adds that STAYS, in place of a ratio."""
    bytes: Annotated[Share | None, Flag("--bytes X")] = None
    """Share of the bytes that STAYS, in place of a ratio."""
    rates: Annotated[tuple[str, ...], Flag("--rate PLACE=X")] = ()
    """A place's own ratio: `conv1=0.5`, `2-19=0.6` (layers by number), `stage1=0.3`,
    `*.conv1=0.2`; may be repeated, and a later one wins."""
    rates_file: Annotated[str, Flag("--rates FILE")] = ""
    """Result of `fp sensitivity` that ratios are read from."""
    max_drop: Annotated[float, Ge(0), Flag("--max-drop POINTS")] = 1.0
    """Points of accuracy, or percent of another metric, that a group may lose by that file."""
    ignore: Annotated[tuple[str, ...], Flag("--ignore PLACE")] = ()
    """Place that nothing is removed from, named as in `--rate`; may be repeated. In a network that
    cannot be traced, modules named so are not looked into, and what meets them stays whole."""
    steps: Annotated[int, Ge(1), Flag("--steps N", panel=RETRAINING)] = 1
    """Equal portions, with retraining after each."""
    recalibrate: Annotated[
        Annotated[int, Ge(0)] | None,
        Flag("--recalibrate N", panel=RETRAINING, default="20 without --finetune, else 0"),
    ] = None
    """Training batches on which batch norm is measured again after each cut, without gradients.
    Null means 20 where the network has batch norm and nothing is trained, else 0."""
    round_to: Annotated[int, Ge(1), Flag("--round-to N")] = 1
    """Kept channels are a multiple of this where a group is wide enough."""


@dataclass(frozen=True)
class RetrainConfig(FitConfig):
    """How the model is trained after each step."""

    panel: ClassVar[str] = RETRAINING

    epochs: Annotated[int, Ge(0), Flag("--finetune EPOCHS")] = 0
    """Passes over the training data after each step."""
    lr: Annotated[
        float, Ge(0), Flag("--lr X", default="a tenth of the training's", before="--batch-size")
    ] = 0.0
    """Learning rate of retraining. 0 means a tenth of the rate that the model was trained with."""
    schedule: Literal["cosine", "constant", "steps"] = "constant"
