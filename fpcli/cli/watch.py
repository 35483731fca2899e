"""Follow a run: what is said while rounds or epochs go by, on the screen and in log.txt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fpcli.cli import show
from fpcli.cli.session import Session, emit, join_lines, to_json
from fpcli.engine.federation import ClientRecord, RoundRecord, Totals
from fpcli.engine.quorum import describe_refusals
from fpcli.engine.types import ServerState
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Score
from fpcli.train import fit_run
from fpcli.train.fit_run import EpochRecord, FitSetup
from fpcli.train.run_summary import round_to_event
from fpcli.train.setup import Setup
from fpcli.units import format_bytes, format_seconds


class Watch:
    """What the watchers of all kinds of runs share.

    Args:
        session: collects the warnings.
        folder: whose log.txt gets every line.
        is_quiet: the screen shows warnings only.
        is_moving: a terminal shows a bar instead of one line per round.
    """

    unit: ClassVar[str] = "round"
    option: ClassVar[str] = "--rounds"

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        *,
        is_quiet: bool = False,
        is_moving: bool = True,
    ) -> None:
        self._session = session
        self._folder = folder
        self._is_quiet = is_quiet
        self._display = show.Display(is_moving=is_moving and not is_quiet, unit=self.unit)
        # Asked once, since a bar on the terminal puts something else in the place of stderr.
        self._dot = show.dot()
        self._total = 0
        self._seconds: list[float] = []

    def _begin(
        self, parts: Sequence[str], done: int, total: int, notes: Sequence[str] = ()
    ) -> None:
        """Show what is about to run, and what was done to its data."""
        self._total = total
        for text in (self._dot.join(parts), *notes):
            self._say(text)
        if done >= total:
            self._say(f"all {total} {self.unit}s are done; {self.option} N asks for more")
        elif done:
            self._say(f"going on after {self.unit} {done}")
        self._display.begin(done, total)

    def _show(self, number: int, parts: Sequence[str], real_s: float, totals: Totals) -> None:
        """Show one round."""
        self._seconds.append(real_s)
        count = f"{self.unit} {number:>{len(str(self._total))}}/{self._total}"
        line = self._dot.join([count, *parts, f"real {format_seconds(totals.real_s)}"])
        self._folder.add_log(line)
        if self._display.is_moving:
            left = sum(self._seconds) / len(self._seconds) * (self._total - number)
            remaining = f"left {format_seconds(left)}" if left else ""
            self._display.update(number, remaining, self._dot.join(parts))
        elif not self._is_quiet:
            self._display.line(line)

    def message(self, text: str) -> None:
        """Show a warning or remark above the progress."""
        text = join_lines(text)
        if text.startswith("warning: "):
            self._session.warnings.append(text.removeprefix("warning: "))
        self._folder.add_log(text)
        self._display.line(text)

    def end(self) -> None:
        """Stop redrawing the screen."""
        self._display.end()

    def _say(self, text: str) -> None:
        self._folder.add_log(text)
        if not self._is_quiet:
            self._display.line(text)

    def _emit(self, event: Mapping[str, Any]) -> None:
        if self._session.is_lines:
            emit(to_json(event))


class RunWatcher(Watch):
    """The watcher of `fp train`.

    Args:
        is_verbose: the screen shows every client of a round.
        more: those of `Watch`.
    """

    def __init__(
        self, session: Session, folder: RunFolder, *, is_verbose: bool = False, **more: bool
    ) -> None:
        super().__init__(session, folder, **more)
        self._is_verbose = is_verbose

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        """Show what is about to run."""
        parts, fed = header(setup, folder, executor), setup.fed
        self._begin(parts, state.round, fed.rules.rounds, fed.dataset.notes)

    def round(self, record: RoundRecord) -> None:
        """Show one round, and warn of replies that were not used and of what the method noted."""
        parts = [*scores(record), *sizes(record)]
        self._show(record.round, parts, record.real_s, record.totals)
        noted = record.notes.get("warning")
        lines = [f"round {record.round}: {noted}"] if noted else []
        for text in [*refusal_lines(record), *lines]:
            self.message(f"warning: {text}")
        if self._is_verbose:
            for client in record.clients:
                self._say("  " + self._dot.join(client_parts(client)))
        self._emit(round_to_event(record))


class FitWatcher(Watch):
    """The watcher of `fp fit`."""

    unit = "epoch"
    option = "--force --epochs"

    def start(self, setup: FitSetup, folder: Path, state: ServerState) -> None:
        """Show what is about to run."""
        recipe = setup.recipe
        device = f"{recipe.threads} threads" if recipe.threads > 1 else "1 thread"
        parts = [
            "fit",
            recipe.task.data,
            f"{recipe.task.model} ({setup.cost.params:,} params)",
            f"{len(setup.dataset.train):,} training samples",
            f"seed {recipe.seed}",
            device if recipe.device == "cpu" else recipe.device,
            str(folder),
        ]
        self._begin(parts, state.round, recipe.fit.epochs, setup.dataset.notes)

    def round(self, record: EpochRecord) -> None:
        """Show one epoch."""
        parts = [
            format_first(record.test),
            f"loss {record.loss:.4f}",
            f"lr {record.lr:.2g}",
        ]
        self._show(record.epoch, parts, record.real_s, record.totals)
        self._emit(fit_run.epoch_to_event(record))


def header(setup: Setup, folder: Path, executor: str) -> list[str]:
    """Return the parts of the line that says what runs, where and how."""
    fed, task = setup.fed, setup.recipe.task
    params = count_cost(fed.layout, Support()).params
    num_idle = fed.num_examples.count(0)
    idle = f" ({num_idle} without training samples)" if num_idle else ""
    at_server = fed.server_side.num_examples
    return [
        fed.method_name,
        task.data,
        f"{task.model} ({params:,} params)",
        f"{len(fed.num_examples)} clients{idle}, {fed.rules.clients_per_round} per round",
        *([f"server with {at_server:,} samples"] if at_server else ()),
        f"seed {fed.seed}",
        executor,
        str(folder),
    ]


def scores(record: RoundRecord) -> list[str]:
    """Return a test metric, training loss and ratios, each where the round has them."""
    parts = []
    if record.evaluation:
        parts.append(format_first(record.evaluation.test))
    parts.append(f"loss {record.loss:.4f}")
    if span := ratio_span(client.notes for client in record.clients):
        parts.append(f"ratio {span[0]:.2f} to {span[1]:.2f}")
    return parts


def format_first(test: Score) -> str:
    """Return the first metric of a score on test data, as in `test acc 96.9%`."""
    name, value = next(iter(test.metrics.items()))
    return f"test {show.format_briefly(name, value)}"


def sizes(record: RoundRecord) -> list[str]:
    """Return the traffic and the simulated clock since the start of the run."""
    totals = record.totals
    traffic = f"down {format_bytes(totals.down_bytes)} up {format_bytes(totals.up_bytes)}"
    return [traffic, f"clock {format_seconds(totals.clock_s)}"]


def client_parts(client: ClientRecord) -> list[str]:
    """Return what a round looked like for one client."""
    simulated = client.compute_s + client.down_s + client.up_s
    parts = [f"client {client.client}", f"loss {client.loss:.4f}"]
    if span := ratio_span([client.notes]):
        parts.append(f"ratio {span[0]:.2f}")
    parts.append(f"{client.params:,} params")
    parts.append(f"down {format_bytes(client.down_bytes)} up {format_bytes(client.up_bytes)}")
    return [*parts, f"clock {format_seconds(simulated)}", f"real {format_seconds(client.real_s)}"]


def ratio_span(notes: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return the lowest and the highest ``ratio`` of clients' notes, or None without any.

    >>> ratio_span([{"ratio": 0.5}, {}, {"ratio": 0.2}])
    (0.2, 0.5)
    """
    ratios = [note["ratio"] for note in notes if isinstance(note.get("ratio"), int | float)]
    return (min(ratios), max(ratios)) if ratios else None


def refusal_lines(record: RoundRecord) -> list[str]:
    """Return one line per kind of refusal in a round, naming its clients."""
    used = f"; {len(record.clients)} of {len(record.cohort)} used"
    return describe_refusals(f"round {record.round}", record.refusals, used)
