"""Sections of commands that read no recipe: `fp sensitivity`, `fp export`, `fp bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from fpcli.settings.flags import RUN, Flag

SWEEP, WHICH, HOW = "Sweep", "Which model", "How"
DTYPES = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True)
class SweepChoice:
    """What is swept, and what judges."""

    score: Annotated[
        list[str] | None,
        Flag(
            "--score NAME",
            "What ranks channels, such as l1, taylor, nisp or the controls random and largest; "
            "may be repeated: one curve each",
            SWEEP,
            default="l1",
            known="scores",
        ),
    ] = None
    ratios: Annotated[
        str,
        Flag(
            "--ratios FIRST:LAST:STEP",
            "Shares of a group's channels to remove; or a list 0.1,0.5",
            SWEEP,
        ),
    ] = "0.1:0.9:0.1"
    samples: Annotated[int, Ge(1), Flag("--samples N", "Images that judge", SWEEP)] = 2000
    split: Annotated[
        str,
        Flag(
            "--split NAME",
            "Which images judge: validation, or test as in the paper",
            SWEEP,
            known=("validation", "test"),
        ),
    ] = "validation"
    retrain: Annotated[
        int,
        Ge(0),
        Flag(
            "--retrain EPOCHS", "Also train every cut model for so long and judge it again", SWEEP
        ),
    ] = 0
    lr: Annotated[float, Ge(0), Flag("--lr X", "Constant learning rate of it", SWEEP)] = 0.001
    max_drop: Annotated[
        float,
        Ge(0),
        Flag(
            "--max-drop POINTS",
            "Loss of accuracy that counts as harmless in the last column",
            SWEEP,
        ),
    ] = 1.0
    seed: Annotated[int, Flag("--seed N", "Seed of all draws", RUN)] = 0


@dataclass(frozen=True)
class SourceChoice:
    """Which model of a run is meant."""

    round: Annotated[
        Annotated[int, Ge(0)] | None,
        Flag("--round N", "From this round's checkpoint", WHICH, default="the final model"),
    ] = None
    client: Annotated[
        str | None,
        Flag(
            "--client K[,K]",
            "The model that the next plan gives this client, with the newest checkpoint's "
            "values; of a personalised method the one that it predicts with",
            WHICH,
            default="the global model",
        ),
    ] = None
    all_clients: Annotated[bool, Flag("--all-clients", "Those of all clients", WHICH)] = False
    ratio: Annotated[
        Annotated[float, Ge(0), Le(1)] | None,
        Flag(
            "--ratio R",
            "Cut this share of every group's channels, lowest score first",
            WHICH,
            default="none",
        ),
    ] = None


@dataclass(frozen=True)
class FormatChoice:
    """In which form models are written."""

    to: Annotated[
        str,
        Flag(
            "--to FORMAT[,FORMAT]",
            "safetensors, onnx, pt2",
            HOW,
            known=("safetensors", "onnx", "pt2"),
        ),
    ] = "safetensors"
    dtype: Annotated[
        str,
        Flag(
            "--dtype NAME", f"Of weights in safetensors: {', '.join(DTYPES)}", HOW, known=(*DTYPES,)
        ),
    ] = "float32"
    dense: Annotated[
        bool, Flag("--dense", "Store masked tensors dense too", HOW, default="where smaller")
    ] = False
    atol: Annotated[
        float,
        Ge(0),
        Flag(
            "--atol X",
            "Largest difference of outputs of file and model; more is exit 8",
            HOW,
            default="1e-5",
        ),
    ] = 1e-05
    opset: Annotated[
        int, Ge(0), Flag("--opset N", "Of ONNX", HOW, default="the exporter's usual one")
    ] = 0


@dataclass(frozen=True)
class BenchChoice:
    """What is timed, and for how long."""

    batch: Annotated[str, Flag("--batch N[,N]", "Samples of a batch", HOW)] = "1,64"
    threads: Annotated[str, Flag("--threads N[,N]", "Threads of one operation", HOW)] = "1"
    seconds: Annotated[
        float,
        Ge(0),
        Flag("--seconds X", "About how long all timing may take; slow models take longer", HOW),
    ] = 10.0
    crossover: Annotated[
        bool,
        Flag(
            "--crossover",
            "Instead of models, time single layers dense and sparse, to see from which sparsity "
            "on skipping weights pays on this machine",
            HOW,
        ),
    ] = False
