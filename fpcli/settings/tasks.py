"""What is learned, and who holds the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from fpcli.settings.flags import TASK, Flag

PartitionKind = Literal[
    "iid", "dirichlet", "shards", "dominant", "classes", "missing", "quantity", "natural", "file"
]

Law = Literal["dirichlet", "power"]

Augment = Literal["none", "crop", "crop-flip"]

TaskKind = Literal["auto", "classify", "regress", "rank"]


DATA_DIR = Flag(
    "--data-dir DIR",
    "Folder of downloaded data, as `fp data fetch` leaves it",
    TASK,
    default="$FP_DATA_DIR",
    envvar="FP_DATA_DIR",
)
"""Wherever a command reads data."""

NORMALISE = Flag(
    "--normalise HOW",
    "What the network gets: auto (by constants of the data), none (values as read, bytes 0 to "
    "255), unit (0 to 1), imagenet, or MEAN/STD of that, such as 0.1307/0.3081",
    TASK,
    known=("auto", "none", "unit", "imagenet"),
)
"""Wherever a network gets data."""


@dataclass(frozen=True)
class Partition:
    """How the training data is split over the clients."""

    panel: ClassVar[str] = TASK

    kind: Annotated[PartitionKind, Flag("--partition KIND")] = "iid"
    """How it is split: iid, dirichlet, shards, dominant, classes, missing, quantity, natural or
    file. `iid` deals evenly; `dirichlet`, `shards`, `dominant`, `classes` and `missing` give every
    client its own mix of classes, `quantity` its own size; `natural` goes by the samples' owners,
    `file` by a file."""
    alpha: Annotated[float, Gt(0), Flag("--alpha X")] = 0.5
    """Evenness of a `dirichlet` or `quantity` split, above 0: the smaller, the more clients
    differ."""
    shards_per_client: Annotated[int, Ge(1)] = 2
    """Pieces of label-sorted data that each client gets under `shards`."""
    dominant_share: Annotated[float, Ge(0), Le(1)] = 0.4
    """Fraction of a client's samples that have its one main label under `dominant`, in total; 0 is
    `iid`."""
    classes_per_client: Annotated[int, Ge(1)] = 2
    """Classes that each client holds under `classes`."""
    missing_classes: Annotated[int, Ge(0)] = 2
    """Classes that each client lacks under `missing`."""
    size_law: Law = "dirichlet"
    """Sizes under `quantity`: drawn from a `dirichlet` of `alpha`, or falling as a `power`."""
    exponent: Annotated[float, Gt(0)] = 1.0
    """Under the `power` law the r-th largest client is proportional to r to the minus this."""
    sizes: tuple[Annotated[float, Gt(0)], ...] = ()
    """Relative sizes under `quantity`, one per client; none means those of `size_law`."""
    file: str = ""
    """Split that `file` reads, as `fp data split -o` writes it."""
    imbalance: Annotated[float, Ge(1)] = 1.0
    """Long tail: the first class keeps this many times the samples of the last, the others in
    between; samples are left out, then `kind` splits the rest."""
    min_size: Annotated[int, Ge(1)] = 1
    """Smallest allowed number of samples of a client."""


@dataclass(frozen=True)
class FitTask:
    """What is learned."""

    panel: ClassVar[str] = TASK

    data: Annotated[str, Flag("--data NAME", known="datasets")] = "digits"
    """Data: a name of `fp data list`, `folder:`, `csv:`, `npz:` or `ratings:PATH`, or
    `module:function`."""
    model: Annotated[
        str,
        Flag(
            "--model NAME",
            "Network: {names}, also NAME-gn (group norm) and NAME@0.5 (half the width), "
            "`torchvision:NAME` or `module:function`",
            default="the data's usual one",
            known="models",
        ),
    ] = ""
    """Network: a known name or `torchvision:NAME`, perhaps with `-gn` (group norm) or `@0.5` (a
    factor of all widths) behind it; empty means the usual one for the data."""
    kind: Annotated[TaskKind, Flag("--task KIND", before="--model")] = "auto"
    """What is learned: auto, classify, regress or rank. `auto` is what the data says; a table, or
    arrays, with whole numbers as labels are classes unless it is `regress`."""
    loss: Annotated[Literal["auto", "mse", "l1"], Flag("--loss NAME", before="--model")] = "auto"
    """What training makes small where numbers are predicted: mse (squared error, the usual one) or
    l1 (absolute error). Classes have cross-entropy, the next item has that of a sampled one."""
    sampled_negatives: Annotated[int, Ge(0), Lt(10_000)] = 0
    """Where items are ranked: random items besides the right one, among which `sampled_hr@10` and
    the like are judged too, as papers do with 99; 0 judges among all items only."""
    data_dir: Annotated[str, replace(DATA_DIR, before="--model")] = ""
    validation_fraction: Annotated[float, Gt(0), Lt(0.5)] = 0.1
    """Fraction of the training data set aside for decisions, so that the test data makes none."""
    normalise: Annotated[str, NORMALISE] = "auto"
    """What the network gets: `auto` images and tables of mean 0 and deviation 1 by the data set's
    constants, or else those of its training data; `none` values as they are read, bytes as 0 to
    255; `unit` images from 0 to 1; `imagenet` these by ImageNet's mean and deviation of three
    channels; `MEAN/STD` these by numbers of one's own, one per channel with commas between, as
    `0.1307/0.3081`. Tables take `auto`, `none`, and `MEAN/STD` of their own values."""
    head: Annotated[Literal["kept", "new"], Flag("--head kept|new")] = "kept"
    """Last layer of weights from a file: theirs, or a new one for the data's classes. `new` gives
    the last linear layer or convolution its initial values, whatever width the file's has."""
    augment: Annotated[
        Literal["auto", "none", "crop", "crop-flip"],
        Flag("--augment KIND", default="auto = crop-flip for CIFAR, else none"),
    ] = "auto"
    """Random change of every training image: none, crop, crop-flip or auto. `crop` shifts it by up
    to an eighth of its side, `crop-flip` mirrors half of them too; `auto` is `crop-flip` for CIFAR,
    else `none`."""

    def decide_augment(self) -> Augment:
        """Return how training images are changed: what is said, or the usual for the data."""
        if self.augment != "auto":
            return self.augment
        return "crop-flip" if self.data.startswith("cifar") else "none"


@dataclass(frozen=True)
class StartTask(FitTask):
    """What is learned, and from where."""

    start: Annotated[str, Flag("-w/--weights FILE|RUN", before="--data-dir")] = ""
    """Start from these weights: a file (.safetensors, .pt), a run, or a folder of a trained model.
    Empty means freshly initialised ones."""


@dataclass(frozen=True)
class TrainTask(StartTask):
    """What is learned, and who holds the data."""

    clients: Annotated[int, Ge(1), Flag("--clients N")] = 10
    """Clients that the training data is split over."""
    partition: Partition = field(default_factory=Partition)
    """How it is split."""
    withhold: tuple[Annotated[int, Ge(0)], ...] = ()
    """Classes whose samples no client trains on, and which do not count as validation or test
    data."""
    server_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the training samples that the server has and no client, of each class alike, for
    methods in which it trains."""
    server_samples: Annotated[int, Ge(0)] = 0
    """The same as a number of samples, in place of a share."""
    augment: Augment = "none"
    """Random change of every training image: `crop` shifts it by up to an eighth of its side,
    `crop-flip` mirrors half of them too."""
