"""`fp export`: from a run or a pruned model to files for devices, and what they are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fpcli.cli.session import Session
from fpcli.cli.words import make_importable
from fpcli.errors import UsageError, suggest
from fpcli.settings import options as o
from fpcli.settings.metrics import find_metric

if TYPE_CHECKING:
    from fpcli.data.datasets import Dataset
    from fpcli.engine.trained import Trained
    from fpcli.export.source import ExportSource
    from fpcli.export.write import ExportChoice, Written

_HARMLESS = 1.0
"""Loss by quantising, in points of accuracy or percent of another metric, that needs no warning."""


def run_export(ctx: typer.Context, given: o.ExportOptions) -> None:
    """Write trained models as small files that work without fpcli."""
    session: Session = ctx.obj
    if given.show_loader:
        from importlib.resources import files

        text = (files("fpcli.export") / "reader.py").read_text("utf-8")
        session.finish({"loader": text}, text.rstrip("\n"))
    else:
        _Call(session, ctx.params).export()


@dataclass(frozen=True)
class _Call:
    """One call and its options."""

    session: Session
    options: Mapping[str, Any]

    def export(self) -> None:
        """Find the models, write them, show what became of them."""
        from fpcli.export.write import write_models
        from fpcli.train.model_source import find_folder

        choice, clients = self._choice(), self._clients()
        word = self.options["source"]
        folder = find_folder(word, self.options["runs"])
        if folder is None:
            raise UsageError(
                f"`{word}` is a model, not a folder of one",
                hint="give a run, or an output folder of `fp prune`",
                where=word,
            )
        models = self._models(folder, clients)
        out = self.options["out"] or folder / "export"
        force = self.options["force"]
        dataset = self._data_of(models[0].trained) if choice.is_quantised else None
        written = write_models(
            models, choice, out, dataset=dataset, force=force, tell=self.session.note
        )
        self.session.warnings += warn_of_int8(written)
        if any(model.trained.inputs is None for model in models):
            self.session.warnings.append(
                "class names and normalisation are unknown: the model was written by an older "
                "version, or from bare weights"
            )
        self.session.warn()
        self.session.finish(
            {"files": [_fields(file) for file in written]}, _text(models, written, choice)
        )

    def _data_of(self, trained: Trained) -> Dataset:
        """Return the data that activations are calibrated on, and that judges the result."""
        from fpcli.train.model_source import load_data_of

        data_dir = self.options["data_dir"]
        dataset = load_data_of(trained, self.options["data"], data_dir and Path(data_dir))
        for text in dataset.notes:
            self.session.note(text)
        return dataset

    def _choice(self) -> ExportChoice:
        from fpcli.export.formats import PROGRAMS
        from fpcli.export.write import EXPORT_FORMATS, ExportChoice

        options = self.options
        formats = tuple(dict.fromkeys(word.strip() for word in options["to"].split(",")))
        for name in formats:
            _check_known("--to", name, EXPORT_FORMATS)
        _check_known("--dtype", options["dtype"], o.DTYPES)
        if options["dtype"] != "float32" and formats != ("safetensors",):
            raise UsageError(
                f"--dtype {options['dtype']} is for safetensors alone",
                hint="export the other formats by another call, without --dtype",
                where="--dtype",
            )
        if options["opset"] and "onnx" not in formats:
            raise UsageError("--opset is for onnx", hint="add `--to onnx`", where="--opset")
        if options["quantise"] is not None:
            _check_known("--quantise", options["quantise"], ("int8",))
            if "onnx" not in formats:
                raise UsageError(
                    "--quantise is for onnx",
                    hint="add `--to onnx`; `--dtype int8` makes safetensors smaller",
                    where="--quantise",
                )
        if options["with_normalise"] and formats == ("safetensors",):
            raise UsageError(
                "--with-normalise: safetensors hold weights, and no program that could normalise",
                hint="add `--to onnx` or `--to pt2`; the card in every file says what it takes",
                where="--with-normalise",
            )
        for name in formats:
            if name in PROGRAMS:
                PROGRAMS[name].check_installed(f"--to {name}")
        return ExportChoice(
            formats,
            options["dtype"],
            options["dense"],
            options["with_normalise"],
            options["atol"],
            options["opset"],
            options["quantise"] is not None,
        )

    def _clients(self) -> tuple[int, ...] | None:
        """Return whose models are wanted: none's, given ones', or None for all clients'."""
        word = self.options["client"]
        if self.options["all_clients"]:
            if word is not None:
                raise UsageError(
                    "--client and --all-clients exclude each other",
                    hint="give one of them",
                    where="--client",
                )
            return None
        try:
            return (
                tuple(dict.fromkeys(int(part) for part in word.split(",")))
                if word is not None
                else ()
            )
        except ValueError as error:
            raise UsageError(
                f"--client: `{word}` is no list of numbers", hint="`--client 3`", where="--client"
            ) from error

    def _models(self, folder: Path, clients: tuple[int, ...] | None) -> list[ExportSource]:
        from fpcli.export.source import read_final_model, read_round_models

        options = self.options
        code = {
            "task.model": options["model"],
            "task.data": options["data"],
            "method.name": options["method"],
        }
        make_importable(code.values())
        if options["round"] is None and clients == ():
            models = [read_final_model(folder, code=options["model"] or "")]
        else:
            flags = {**code, "task.data_dir": options["data_dir"]}
            models, absent = read_round_models(
                folder, round=options["round"], clients=clients, flags=flags
            )
            if absent:
                numbers = ", ".join(map(str, absent))
                self.session.warnings.append(f"without a model of their own: clients {numbers}")
        ratio = options["ratio"]
        return models if ratio is None else [model.cut(ratio) for model in models]


def _check_known(flag: str, word: str, names: Sequence[str]) -> None:
    if word not in names:
        hint = suggest(word, names) or f"known: {', '.join(names)}"
        raise UsageError(f"{flag}: unknown `{word}`", hint=hint, where=flag)


def _fields(file: Written) -> dict[str, Any]:
    return {
        "format": file.format,
        "path": str(file.path),
        "bytes": file.bytes,
        "max_difference": file.max_difference,
        "sha256": file.sha256,
        "takes": file.takes,
        **({f"same_{file.answers}": file.num_same} if file.answers else {}),
        "max_weight_error": file.max_weight_error,
        **_int8_fields(file),
    }


def _int8_fields(file: Written) -> dict[str, Any]:
    if file.judged is None:
        return {}
    before, after = file.judged
    return {
        file.metric: {"before": before, "after": after},
        "float32_bytes": file.float32_bytes,
        "calibrated_on": file.calibrated_on,
    }


def warn_of_int8(written: Sequence[Written]) -> list[str]:
    """Return a line for every file that predicts clearly worse than the model it was made from."""
    lines = []
    for file in written:
        if file.judged is not None:
            metric, (before, after) = find_metric(file.metric), file.judged
            if not metric.reaches(after, metric.find_limit(before, _HARMLESS)):
                lines.append(
                    f"{file.path.name}: 8 bits change test {metric.name} by "
                    f"{metric.format_change(before, after)}; without --quantise nothing is lost"
                )
    return lines


def _text(models: Sequence[ExportSource], written: Sequence[Written], choice: ExportChoice) -> str:
    """Return a table of the models and one of the files."""
    from fpcli.cli import show
    from fpcli.structure.cost import count_cost
    from fpcli.structure.support import Support

    sizes = []
    for model in models:
        trained = model.trained
        now, whole = (count_cost(trained.layout, x) for x in (trained.support, Support()))
        share = f"{now.params / whole.params:.1%}"
        sizes.append((model.name, f"{now.params:,}", share, f"{now.macs:,.0f}"))
    head = ("model", "parameters", "of all", "multiply-adds")
    rows = [
        (file.path.name, f"{file.bytes:,} B", file.detail, _check_text(file, choice))
        for file in written
    ]
    tables = [
        show.align(head, sizes, right=(1, 2, 3)),
        show.align(("file", "size", "", "read again, on 32 inputs"), rows, right=(1,)),
    ]
    tables += [_int8_text(file, *file.judged) for file in written if file.judged]
    if choice.is_raw:
        tables.append("\n".join(f"{file.path.name} takes {file.takes}" for file in written))
    tables.append(f"wrote {written[0].path.parent}")
    return "\n\n".join(tables)


def _int8_text(file: Written, before: float, after: float) -> str:
    metric = find_metric(file.metric)
    return (
        f"{file.path.name} computes with 8 bits, calibrated on {file.calibrated_on} training "
        f"samples: test {metric.name} {metric.format(after)}, {file.bytes:,} B; in float32 "
        f"{metric.format(before)}, {file.float32_bytes:,} B"
    )


def _check_text(file: Written, choice: ExportChoice) -> str:
    from fpcli.export.write import NUM_INPUTS

    if file.max_difference == file.max_weight_error == 0:
        return "outputs equal bit for bit"
    text = f"max difference {file.max_difference:.1e}"
    same = f"; {file.num_same} of {NUM_INPUTS} {file.answers} equal" if file.answers else ""
    if file.judged is not None:
        return f"max difference {file.max_difference:.2g}{same}"
    if file.max_weight_error:
        return f"{text}, of weights {file.max_weight_error:.1e}{same}"
    return f"{text} <= {choice.atol:g}" + f", equal {file.answers}" * bool(file.answers)
