"""The options of commands that set no key of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from fpcli.settings.flags import OUTPUT, RUN, TASK, Flag
from fpcli.settings.recipes import PruneRecipe
from fpcli.settings.tasks import DATA_DIR

DTYPES = ("float32", "float16", "bfloat16", "int8")
WHICH = "Which model"

RecipeName = Annotated[
    str | None,
    Flag(
        "-c/--preset/--recipe NAME|FILE",
        "Recipe: a YAML file or a shipped name (`tiny`: two rounds of `fp train`)",
        TASK,
        default="none",
        known="recipes",
    ),
]
Settings = Annotated[
    list[str] | None,
    Flag("--set KEY=VALUE", "Set any key of the recipe; may be repeated", TASK, known="settings"),
]
DataDir = Annotated[str | None, DATA_DIR]
_RUNS = Flag("--runs DIR", "Folder of all runs", RUN)
Runs = Annotated[Path, _RUNS]
ReplaceFile = Annotated[bool, Flag("--force", "Replace a file that exists")]
ReplaceFiles = Annotated[bool, Flag("--force", "Replace files that exist", OUTPUT)]
JsonOutput = Annotated[bool, Flag("--json", "Print the result as one JSON object", OUTPUT)]
Quiet = Annotated[bool, Flag("-q/--quiet", "Show warnings and the result only", OUTPUT)]
Debug = Annotated[bool, Flag("--debug", "Show the traceback of an error", OUTPUT)]


@dataclass(frozen=True)
class Output:
    """How a command that takes its time shows what it does."""

    json: JsonOutput = False
    quiet: Quiet = False
    no_progress: Annotated[bool, Flag("--no-progress", panel=OUTPUT, envvar="FP_NO_PROGRESS")] = (
        False
    )
    """No moving bar (or set FP_NO_PROGRESS=1)."""
    debug: Debug = False


@dataclass(frozen=True)
class RunOutput(Output):
    """How a command that trains shows it."""

    panel: ClassVar[str] = OUTPUT

    json_lines: Annotated[bool, Flag("--json-lines", before="--quiet")] = False
    """Print rounds or epochs as lines of JSON, the result last."""


@dataclass(frozen=True)
class FitOptions:
    """Options of `fp fit`, and of all commands that make a run or go on with one."""

    panel: ClassVar[str] = RUN

    recipe: RecipeName = None
    set_: Settings = None
    name: Annotated[str | None, Flag("--name NAME", default="fit-DATA-MODEL[-DIGEST]-sSEED")] = None
    """Folder of the run; `auto` numbers the default where it is taken."""
    runs: Runs = Path("runs")
    resume: Annotated[str | None, Flag("--resume RUN", known="runs")] = None
    """Go on with an earlier run."""
    force: Annotated[bool, Flag("--force")] = False
    """Replace a run of that name; with --resume: change recipe, start over."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Show the recipe and the model's size, write nothing."""


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """Options of `fp train`."""

    name: Annotated[
        str | None,
        Flag("--name NAME", default="METHOD-DATA-MODEL[-PARTITION][-FLEET][-DIGEST]-sSEED"),
    ] = None
    """Folder of the run, named after what is not the default; `auto` numbers it where taken."""
    track: Annotated[
        str | None,
        Flag(
            "--track tensorboard|wandb",
            default="none",
            known=("tensorboard", "wandb"),
            before="--name",
        ),
    ] = None
    """Also feed these, with commas between; wandb stays offline without WANDB_MODE."""
    verbose: Annotated[bool, Flag("-v/--verbose", panel=OUTPUT, before="--no-progress")] = False
    """Show every client of every round."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Show the recipe and the first round's plan, write nothing."""


@dataclass(frozen=True)
class ModelOptions:
    """Which trained model `fp prune` and `fp sensitivity` are about."""

    panel: ClassVar[str] = RUN

    source: Annotated[
        str | None, Flag("[RUN|DIR|MODEL]", default="the newest run", known="sources")
    ] = None
    """A run, an output folder, or a model's name with -w."""
    weights: Annotated[Path | None, Flag("-w/--weights FILE", panel=TASK, default="none")] = None
    """Weights of a model: .safetensors, .pt."""


@dataclass(frozen=True)
class PruneOptions(ModelOptions):
    """Options of `fp prune`."""

    recipe: RecipeName = None
    set_: Settings = None
    runs: Runs = Path("runs")
    force: Annotated[bool, Flag("--force")] = False
    """Replace an earlier result in that folder."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Show what would be cut, train and write nothing."""
    latency: Annotated[bool, Flag("--latency", panel=OUTPUT)] = False
    """Time forward passes of 1 and 64 images, before and after."""
    out: Annotated[Path, Flag("-o/--out DIR", panel=OUTPUT)] = Path("out")
    """Where the result goes."""


@dataclass(frozen=True)
class SweepOptions(ModelOptions):
    """Options of `fp sensitivity`: what is swept, and what judges."""

    panel: ClassVar[str] = "Sweep"

    model: Annotated[str | None, PruneRecipe.flags["task.model"]] = None
    data: Annotated[str | None, PruneRecipe.flags["task.data"]] = None
    data_dir: DataDir = None
    normalise: Annotated[str | None, PruneRecipe.flags["task.normalise"]] = None
    score: Annotated[list[str] | None, Flag("--score NAME", default="l1", known="scores")] = None
    """What ranks channels, such as l1, taylor, nisp or the controls random and largest; may be
    repeated: one curve each."""
    ratios: Annotated[str, Flag("--ratios FIRST:LAST:STEP")] = "0.1:0.9:0.1"
    """Shares of a group's channels to remove; or a list 0.1,0.5."""
    samples: Annotated[int, Ge(1), Flag("--samples N")] = 2000
    """Images that judge."""
    split: Annotated[str, Flag("--split NAME", known=("validation", "test"))] = "validation"
    """Which images judge: validation, or test as in the paper."""
    retrain: Annotated[int, Ge(0), Flag("--retrain EPOCHS")] = 0
    """Also train every cut model for so long and judge it again."""
    lr: Annotated[float, Ge(0), Flag("--lr X")] = 0.001
    """Constant learning rate of it."""
    max_drop: Annotated[float, Ge(0), Flag("--max-drop POINTS")] = 1.0
    """Loss that counts as harmless in the last column: points of accuracy, or percent of another
    metric."""
    seed: Annotated[int, Flag("--seed N", panel=RUN)] = 0
    """Seed of all draws."""
    runs: Runs = Path("runs")
    force: Annotated[bool, Flag("--force", panel=RUN)] = False
    """Replace an earlier result."""
    out: Annotated[Path, Flag("-o/--out FILE", panel=OUTPUT)] = Path("sens.json")
    """The result; pictures go beside it."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of `fp export`: which model of a run is meant, and in which form it is written."""

    panel: ClassVar[str] = "How"

    source: Annotated[str | None, Flag("[RUN|DIR]", default="the newest run", known="runs")] = None
    """A run, or an output folder of `fp prune`."""
    round: Annotated[
        Annotated[int, Ge(0)] | None, Flag("--round N", panel=WHICH, default="the final model")
    ] = None
    """From this round's checkpoint."""
    client: Annotated[
        str | None, Flag("--client K[,K]", panel=WHICH, default="the global model")
    ] = None
    """The model that the next plan gives this client, with the newest checkpoint's values; of a
    personalised method the one that it predicts with."""
    all_clients: Annotated[bool, Flag("--all-clients", panel=WHICH)] = False
    """Those of all clients."""
    ratio: Annotated[
        Annotated[float, Ge(0), Le(1)] | None, Flag("--ratio R", panel=WHICH, default="none")
    ] = None
    """Cut this share of every group's channels, lowest score first."""
    runs: Annotated[Path, replace(_RUNS, panel=WHICH)] = Path("runs")
    model: Annotated[str | None, Flag("--model CODE", panel=TASK)] = None
    """The run's network, where it is code of yours."""
    data: Annotated[str | None, Flag("--data CODE", panel=TASK)] = None
    """Likewise its data (rounds, clients, --quantise)."""
    data_dir: DataDir = None
    method: Annotated[str | None, Flag("--method CODE", panel=TASK)] = None
    """Likewise its method."""
    to: Annotated[str, Flag("--to FORMAT[,FORMAT]", known=("safetensors", "onnx", "pt2"))] = (
        "safetensors"
    )
    """safetensors, onnx, pt2."""
    dtype: Annotated[
        str, Flag("--dtype NAME", f"Of weights in safetensors: {', '.join(DTYPES)}", known=DTYPES)
    ] = "float32"
    dense: Annotated[bool, Flag("--dense", default="where smaller")] = False
    """Store masked tensors dense too."""
    with_normalise: Annotated[bool, Flag("--with-normalise")] = False
    """Put the normalisation into onnx and pt2, which then take values as they are read, and predict
    numbers in their own units."""
    quantise: Annotated[str | None, Flag("--quantise int8", default="none", known=("int8",))] = None
    """Let onnx compute with 8 bits, calibrated on training data and judged on test data."""
    atol: Annotated[float, Ge(0), Flag("--atol X", default="1e-5")] = 1e-05
    """Largest difference of outputs of file and model, relative to the largest output where that is
    a predicted number above 1; more is exit 8."""
    opset: Annotated[int, Ge(0), Flag("--opset N", default="the exporter's usual one")] = 0
    """Of ONNX."""
    out: Annotated[
        Path | None, Flag("-o/--out DIR", panel=OUTPUT, default="`export` in the run")
    ] = None
    """Where the files go."""
    force: Annotated[bool, Flag("--force", panel=OUTPUT)] = False
    """Replace files that are there."""
    show_loader: Annotated[bool, Flag("--show-loader", panel=OUTPUT)] = False
    """Print code that reads the safetensors without fpcli."""
    json: JsonOutput = False
    quiet: Quiet = False
    debug: Debug = False


@dataclass(frozen=True)
class BenchOptions:
    """Options of `fp bench`: what is timed, and for how long."""

    panel: ClassVar[str] = "How"

    paths: Annotated[list[Path] | None, Flag("PATH...", known="runs")] = None
    """Runs, output folders of `fp prune`, .safetensors of `fp export`, .onnx, .pt2; the others are
    compared with the first."""
    batch: Annotated[str, Flag("--batch N[,N]")] = "1,64"
    """Samples of a batch."""
    threads: Annotated[str, Flag("--threads N[,N]")] = "1"
    """Threads of one operation."""
    seconds: Annotated[float, Ge(0), Flag("--seconds X")] = 10.0
    """About how long all timing may take; slow models take longer."""
    crossover: Annotated[bool, Flag("--crossover")] = False
    """Instead of models, time single layers dense and sparse, to see from which sparsity on
    skipping weights pays on this machine."""
    model: Annotated[str | None, Flag("--model CODE", panel=TASK)] = None
    """The network, where it is code of yours."""
    out: Annotated[Path | None, Flag("-o/--out FILE.png", panel=OUTPUT, default="none")] = None
    """Draw bars, also as SVG beside."""
    save_profile: Annotated[
        Path | None, Flag("--save-profile FILE.yaml", panel=OUTPUT, default="none")
    ] = None
    """Write this machine and the first model's training step, layer by layer, as a fleet file for
    `fp train --fleet`."""
    force: ReplaceFiles = False
    json: JsonOutput = False
    quiet: Quiet = False
    debug: Debug = False


@dataclass(frozen=True)
class SplitOptions:
    """Options of `fp data split`."""

    name: Annotated[str | None, Flag("NAME", default="digits", known="datasets")] = None
    """Data set: a name, `npz:PATH` or `module:function`."""
    recipe: RecipeName = None
    set_: Settings = None
    out: Annotated[Path | None, Flag("-o/--out FILE.json", panel=OUTPUT, default="none")] = None
    """Write the split, and a picture of it beside."""
    force: ReplaceFiles = False
    json: JsonOutput = False
    debug: Debug = False


@dataclass(frozen=True)
class PlotChoice:
    """What a figure of `fp plot` shows."""

    panel: ClassVar[str] = "Figure"

    y: Annotated[
        str,
        Flag(
            "--y WHAT",
            default="the first metric of what is learned: acc, mae or ndcg@10",
            known=(
                "acc", "mae", "r2", "hr@10", "ndcg@10", "mrr", "validation_accuracy", "loss",
                "training_loss", "clients_acc", "local_acc", "withheld_accuracy", "bytes", "clock",
                "real",
            ),
        ),
    ] = ""  # fmt: skip
    """What is drawn: a metric on test data (acc, mae, hr@10), with `validation_`, `clients_`,
    `local_` or `withheld_` before it that of others; loss, training_loss, bytes, clock, real."""
    x: Annotated[
        str,
        Flag(
            "--x WHAT",
            default="rounds; macs with results of `fp prune`",
            known=("rounds", "bytes", "clock", "real", "macs", "params"),
        ),
    ] = ""
    """Over what: rounds (or epochs), bytes, clock, real; with results of `fp prune` also macs,
    params."""
    band: Annotated[str, Flag("--band WHAT", known=("range", "interval"))] = "range"
    """What seeds are shown as beside their mean: range (lowest to highest), or interval (95 % of
    the mean)."""
    size: Annotated[str, Flag("--size WxH", default="3.3x2.4, one column, for each data set")] = ""
    """Inches."""
