"""What every code of an error, refusal or warning means: its causes and its remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fpcli import errors as e


@dataclass(frozen=True)
class ErrorPage:
    """What there is to say about one code.

    Attributes:
        code: as it is printed, ``F301``.
        meaning: what is wrong.
        causes: the usual ones, most frequent first.
        remedies: what to do.
        status: exit status of the command; None where it goes on.
    """

    code: str
    meaning: str
    causes: str
    remedies: str
    status: int | None = None


def _describe(error: type[e.FpError], causes: str, remedies: str) -> ErrorPage:
    meaning = (error.__doc__ or "").replace("``", "`")
    return ErrorPage(error.code, meaning, causes, remedies, error.exit_status)


_REFUSED = "The reply is left out, and the round goes on with the others"
_DROPPED = (
    "Nothing is to be done: the round goes on with the others. Lower `fleet.dropout` to have fewer."
)

_PAGES = (
    ErrorPage(
        "F100",
        "A mistake of fpcli itself.",
        "Something that no check foresaw. The message names a file with the traceback.",
        "Report it with that file. `--debug` shows the traceback at once.",
        status=e.FpError.exit_status,
    ),
    ErrorPage(
        "F130",
        "The command was stopped by Ctrl-C (SIGINT).",
        "Somebody pressed Ctrl-C. A run finishes its round and keeps a checkpoint.",
        "The hint has the command that goes on, in the same bits.",
        status=130,
    ),
    ErrorPage(
        "F143",
        "The command was stopped by SIGTERM.",
        "A scheduler, a shutdown or `kill`. A run finishes its round and keeps a checkpoint.",
        "The hint has the command that goes on, in the same bits.",
        status=143,
    ),
    _describe(
        e.UsageError,
        "A command, option, name or key of `--set` with a typing error; a value of another type or "
        "outside its range; options that exclude each other; a run's name that is taken; a file "
        "that exists already.",
        "The hint names the nearest word or the way out. `fp COMMAND --help` lists the options, "
        "`fp recipe schema --method NAME` the keys with their ranges.",
    ),
    _describe(
        e.RecipeError,
        "A key with a typing error; a value of another type or outside its range; a number "
        "without its unit; an option of another method; code that only the file names.",
        "The message has file and line. `fp recipe schema --method NAME` lists all keys with "
        "their ranges, `fp recipe check FILE` checks without running.",
    ),
    ErrorPage(
        "F302",
        "A warning: a setting has no effect in the run's number of rounds.",
        "A first pruning, an interval or a drop of the learning rate comes after the last round.",
        "Give more rounds, or an earlier one to the setting. Nothing needs to be done where more "
        "rounds are to follow by `--resume`.",
    ),
    _describe(
        e.DataError,
        "Data that was never fetched, or lies elsewhere; a damaged file; images of several sizes; "
        "missing numbers or labels; weights or a run of another network or data set.",
        "`fp data fetch NAME` gets a data set, `--data-dir` says where it is, `fp data check NAME` "
        "reads all of it and says what is wrong.",
    ),
    _describe(
        e.LayoutError,
        "Channels that are mixed in the network (shuffles); several outputs; weights that are "
        "shared, parametrised or quantised; inputs too small for the network.",
        "Take the parametrisation off or give one output. `fedavg` trains networks that cannot "
        "be traced.",
    ),
    _describe(
        e.CodeError,
        "A function with another signature than the one it is called by; a bug in it, in `forward` "
        "or in a hook; a name that its file does not have.",
        "The error names the line of yours that failed. `--debug` shows the whole traceback.",
    ),
    _describe(
        e.WireError,
        "Damage on the way; a second reply; a client with another codec or version. As a reply's "
        "code it is a warning.",
        f"{_REFUSED}. As an error it means that a file of the run is damaged: `--resume` uses the "
        "checkpoint before.",
    ),
    ErrorPage(
        "F402",
        "A client's reply has values that are not finite.",
        "Its training diverged, or its data holds such values.",
        f"{_REFUSED}. Lower `local.lr`, or set `local.clip_norm`.",
    ),
    ErrorPage(
        "F403",
        "A client's reply has a tensor of another shape than was planned.",
        "A method's `train` changed the model; a client that is no client of this run.",
        f"{_REFUSED}. Mend the method: it returns the model that it was given.",
    ),
    ErrorPage(
        "F404",
        "A client's reply lacks a tensor, or has one too many.",
        "A method's `train` left parameters out or added some.",
        f"{_REFUSED}. Mend the method: it returns the model that it was given.",
    ),
    ErrorPage(
        "F405",
        "A client's reply has a tensor that is not of float32.",
        "A method's `train` changed the type of the model.",
        f"{_REFUSED}. Mend the method: it returns float32.",
    ),
    ErrorPage(
        "F406",
        "A client's reply has a count, a loss or a time that cannot be.",
        "More samples than the client has, a loss that is not finite, negative seconds.",
        f"{_REFUSED}. Mend the method, or lower `local.lr` where the loss is not finite.",
    ),
    ErrorPage(
        "F407",
        "A client's reply has masks or channels outside what it was sent.",
        "A method whose clients choose, without saying so in its traits; a mask that does not fit "
        "its values.",
        f"{_REFUSED}. Mend the method, or its `Traits`.",
    ),
    ErrorPage(
        "F408",
        "A client reports an error of its own.",
        "Its training diverged, its data does not fit the network, or the method's code failed.",
        f"{_REFUSED}. The warning has the client's words: mend what it reports.",
    ),
    ErrorPage(
        "F409",
        "A client's reply came after the deadline.",
        "A slow device or link, or a deadline that is too short for them.",
        f"{_REFUSED}. Raise `--deadline`, or give slow clients smaller models.",
    ),
    ErrorPage(
        "F410",
        "A client did not reply.",
        "Its worker process ended, was killed, or hung.",
        "The job is repeated once; then the round goes on with the others. Fewer `--workers` need "
        "less memory.",
    ),
    ErrorPage("F411", "A simulated client dropped out before its job arrived.",
              "`fleet.dropout`.", _DROPPED),
    ErrorPage("F412", "A simulated client dropped out during training.",
              "`fleet.dropout`.", _DROPPED),
    ErrorPage("F413", "A simulated client dropped out after its upload.",
              "`fleet.dropout`.", _DROPPED),
    _describe(
        e.ClientError,
        "Clients that are away, drop out, are late or report errors, round after round.",
        "Raise `--round-retries`, `--deadline` or `fleet.availability`, or lower `--min-clients`; "
        "`fp explain` has the codes of the single refusals.",
    ),
    _describe(
        e.NeedError,
        "An extra that is not installed; a full disk or a folder that cannot be written; no such "
        "device; a method that needs samples of the server's own; a plugin of another version.",
        "The hint has the command that installs it or the setting that does without. `fp doctor` "
        "checks the machine.",
    ),
    ErrorPage(
        "F502",
        "The memory of this machine or of its device is used up.",
        "Large batches, many workers, a large model or data set.",
        "Lower `--batch-size` or `--workers`, or take a smaller model. A run goes on by "
        "`fp resume RUN`.",
        status=e.NeedError.exit_status,
    ),
    _describe(
        e.ResumeError,
        "A wrong folder; a run that another process works on; a recipe that was changed; no "
        "checkpoint that is whole.",
        "`fp compare runs` lists the runs. `--force` takes a changed recipe, or starts over where "
        "nothing usable is left.",
    ),
    _describe(
        e.DivergedError,
        "A learning rate that is too high; a loss or a method's step that divides by almost "
        "nothing.",
        "Lower `local.lr` (`fit.lr`, `--lr`), or set `local.clip_norm`; the last finite "
        "checkpoint is kept.",
    ),
    _describe(
        e.CheckError,
        "A target accuracy was not reached; an exported file's outputs differ; no ratio meets "
        "`--params`, `--macs` or `--bytes`; a condition of `--fail-if` holds.",
        "The result is there where there is one. The message has the number that was missed.",
    ),
    ErrorPage(
        "F802",
        "No share of channels makes the model forget the class and spares the others.",
        "A class that all layers share; a limit that is too low; too few rounds of fine-tuning.",
        "Raise `--max-ratio` or `--finetune-rounds`, or give a share by `--ratio`.",
        status=e.CheckError.exit_status,
    ),
)  # fmt: skip

PAGES: Mapping[str, ErrorPage] = {page.code: page for page in _PAGES}
"""Code -> what there is to say about it, in the order of the codes."""
