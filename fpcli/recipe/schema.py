"""What a recipe may say: one frozen data class per section, with its defaults and their docs."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from fpcli.data.augment import Augment
from fpcli.data.partition import Partition
from fpcli.engine.central import FitConfig
from fpcli.engine.server_optimizer import ServerConfig
from fpcli.fleet.classes import DeviceClass
from fpcli.wire.headers import LocalConfig

FORMAT = 1
"""The newest recipe format that this version reads."""


@dataclass(frozen=True)
class FitTask:
    """What is learned."""

    data: str = "digits"
    """Data set: a name of `fp data list`, or `npz:PATH`, `folder:PATH` or `csv:PATH`."""
    model: str = ""
    """Network: a known name or `torchvision:NAME`, perhaps with `-gn` (group norm) or `@0.5` (a
    factor of all widths) behind it; empty means the usual one for the data."""
    data_dir: str = ""
    """Folder that holds downloaded data, as `fp data fetch` leaves it."""
    validation_fraction: Annotated[float, Gt(0), Lt(0.5)] = 0.1
    """Fraction of the training data set aside for decisions, so that the test data makes none."""
    augment: Literal["auto", "none", "crop", "crop-flip"] = "auto"
    """Random change of every training image: `crop` shifts it by up to an eighth of its side,
    `crop-flip` mirrors half of them too; `auto` is `crop-flip` for CIFAR, else `none`."""


@dataclass(frozen=True)
class Task(FitTask):
    """What is learned, and who holds the data."""

    clients: Annotated[int, Ge(1)] = 10
    """Number of clients that the training data is split over."""
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
    start: str = ""
    """Folder of a run, or of a trained model, whose weights the first round starts from; empty
    means freshly initialised ones."""
    augment: Augment = "none"
    """Random change of every training image: `crop` shifts it by up to an eighth of its side,
    `crop-flip` mirrors half of them too."""


@dataclass(frozen=True)
class MethodChoice:
    """The method, and its own options beside its name."""

    name: str = "fedavg"
    """A name of `fp methods`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values for the fields of the method's `Options`; in a recipe they stand beside `name`."""


@dataclass(frozen=True)
class FleetChoice:
    """The simulated hardware of the clients."""

    profile: str = "two-speed"
    """A named mix of devices and links, or a YAML file with classes of devices."""
    variation: Annotated[float, Ge(0)] = 0.1
    """Spread of speeds from round to round: standard deviation of their logarithm."""
    link_variation: Annotated[float, Ge(0)] | None = None
    """The same for the links' bandwidths; null means as `variation`."""
    availability: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of rounds in which a client can be chosen."""
    dropout: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that what a chosen client does in a round is lost."""
    dropout_when: Literal["any", "before", "training", "after"] = "any"
    """Where that happens: before the job arrives, during training, after the upload, or any."""
    deadline_s: Annotated[float, Gt(0)] | None = None
    """Simulated seconds after which an update, or an answer to a question, is too late; null waits
    for everyone."""
    server: str = "server"
    """What the server computes on, where a method makes it work: `server` (200 GFLOP/s, ours), a
    class of the fleet, or a board that a fleet file may name."""
    devices: tuple[DeviceClass, ...] = ()
    """What the fleet file said; with it `profile` is a mere name."""


@dataclass(frozen=True)
class WireChoice:
    """How tensors become bytes."""

    codec: str = "dense"
    """`dense` sends every value of a sub-model, `sparse` leaves out masked ones where it pays;
    `float16`, `int8` and `int8-stochastic` shorten the rest too. `qsgd2` to `qsgd8` and `ternary`
    are for changes, hence for `up`: few networks survive weights that are rounded so coarsely."""
    down: str | None = None
    """Codec of what the server sends; null means `codec`."""
    up: str | None = None
    """Codec of what clients send; null means `codec`."""


@dataclass(frozen=True)
class ExecutorChoice:
    """Where the clients' work runs."""

    kind: Literal["auto", "inline", "pool"] = "auto"
    """`inline` runs clients one after the other, `pool` in processes; `auto` picks by workers."""
    workers: Annotated[int, Ge(0)] = 0
    """Processes of a pool; 0 means as many as the machine has use for."""
    device: str = "cpu"
    """Torch device that clients train on, such as `cpu` or `cuda`."""
    channels_last: bool = True
    """Keep images with the channel as the last axis in memory, which is often faster."""
    client_timeout_s: Annotated[float, Gt(0)] | None = 600.0
    """Real seconds after which one client's job counts as failed; null waits for ever."""
    sparse: Literal["off", "auto", "always"] = "off"
    """Skip masked weights in real time: `auto` where a measurement at the start of the run, kept in
    its folder, finds that faster, `always` wherever it can be done. Last digits may differ."""


@dataclass(frozen=True)
class Recipe:
    """One run, completely."""

    recipe: Annotated[int, Ge(1)] = FORMAT
    """Format number of the recipe."""
    task: Task = field(default_factory=Task)
    """What is learned."""
    method: MethodChoice = field(default_factory=MethodChoice)
    """How it is learned."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """How a client trains."""
    server: ServerConfig = field(default_factory=ServerConfig)
    """What the server does with the mean change of a round."""
    fleet: FleetChoice = field(default_factory=FleetChoice)
    """Simulated hardware."""
    wire: WireChoice = field(default_factory=WireChoice)
    """Bytes."""
    executor: ExecutorChoice = field(default_factory=ExecutorChoice)
    """Where the work runs."""
    rounds: Annotated[int, Ge(1)] = 30
    """Number of rounds of training."""
    clients_per_round: Annotated[int, Ge(0)] = 0
    """Number of clients in a round's cohort; 0 means all."""
    eval_every: Annotated[int, Ge(1)] = 1
    """Rounds from one evaluation to the next."""
    eval_clients: bool = False
    """Judge each client's model on the test samples of its own classes too, with and without the
    logits of other classes; personalised methods always do."""
    checkpoint_every: Annotated[int, Ge(1)] = 10
    """Rounds from one checkpoint to the next."""
    min_clients: Annotated[int, Ge(1)] = 1
    """Usable replies without which a round does not count."""
    round_retries: Annotated[int, Ge(0)] = 2
    """Times a round with too few usable replies is tried again."""
    target_accuracy: Annotated[float, Gt(0), Le(1)] | None = None
    """Validation accuracy, a fraction, at which the run is done; null trains all rounds."""
    seed: Annotated[int, Ge(0)] = 0
    """Where every random stream starts from."""


@dataclass(frozen=True)
class FitRecipe:
    """One plain training where all data is in one place, completely."""

    recipe: Annotated[int, Ge(1)] = FORMAT
    """Format number of the recipe."""
    task: FitTask = field(default_factory=FitTask)
    """What is learned."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How."""
    device: str = "cpu"
    """Torch device to train on, such as `cpu` or `cuda`."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads of one operation; 0 means as many as there are cores, but 1 where a step is below a
    thousand million multiply-adds. Other numbers, other bits."""
    checkpoint_every: Annotated[int, Ge(1)] = 1
    """Epochs from one checkpoint to the next."""
    target_accuracy: Annotated[float, Gt(0), Le(1)] | None = None
    """Validation accuracy, a fraction, at which training is done; null trains all epochs."""
    seed: Annotated[int, Ge(0)] = 0
    """Where every random stream starts from."""


class OptionRow(NamedTuple):
    """One field of an options class, as text for a table."""

    name: str
    type: str
    default: str
    doc: str


def field_docs(cls: type) -> dict[str, str]:
    """Return the text literal under each field of a class, inherited ones too, in one line each.

    >>> field_docs(WireChoice)["codec"][:28]
    '`dense` sends every value of'
    """
    inherited = [field_docs(base) for base in cls.__bases__ if is_dataclass(base)]
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    docs = {name: text for found in inherited for name, text in found.items()}
    body = node.body if isinstance(node, ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.target.id] = " ".join(following.value.value.split())
    return docs


def default_of(item: Field[Any]) -> Any:
    """Return a data class field's default, or ``MISSING`` where it has none."""
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def options_table(cls: type) -> list[OptionRow]:
    """Return name, type with range, default and doc of every field of a data class.

    >>> options_table(FleetChoice)[1][:3]
    ('variation', 'number >= 0', '0.1')
    """
    docs = field_docs(cls)
    hints = get_type_hints(cls, include_extras=True)
    return [
        OptionRow(
            item.name,
            type_text(hints[item.name]),
            _default_text(default_of(item)),
            docs.get(item.name, ""),
        )
        for item in fields(cls)
    ]


def _default_text(value: Any) -> str:
    if value is MISSING:
        return ""
    if isinstance(value, str) and value:
        return value
    return json.dumps(value, default=str)


_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
}


def type_text(hint: Any) -> str:
    """Describe a type in words.

    >>> type_text(Annotated[float, Ge(0), Lt(1)])
    'number >= 0 and < 1'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [text for item in arguments[1:] for text in _bounds(item)]
        return " ".join([type_text(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(choice) for choice in arguments)
    if origin in (list, tuple):
        return f"list of {type_text(arguments[0])}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _bounds(item: Any) -> list[str]:
    match item:
        case Ge(ge=bound):
            return [f">= {bound}"]
        case Gt(gt=bound):
            return [f"> {bound}"]
        case Le(le=bound):
            return [f"<= {bound}"]
        case Lt(lt=bound):
            return [f"< {bound}"]
        case GroupedMetadata():
            return [text for part in item for text in _bounds(part)]
    return []
