"""The conformance suite: what must hold for every method, ours and those of other packages."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import runpy
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import toy_recipe
from tasked import ink
from torch import Tensor, nn

from fpcli import methods, plugins
from fpcli.engine import server
from fpcli.engine.client_context import ClientContext
from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord, Totals
from fpcli.engine.method import Method
from fpcli.engine.planning import choose_cohort, foresee
from fpcli.engine.types import ServerState, Support, Work
from fpcli.errors import DataError, RecipeError
from fpcli.recipe.load import load_recipe
from fpcli.settings.recipes import Recipe
from fpcli.store import events
from fpcli.store.checkpoint import dump_state, load_state
from fpcli.store.run_folder import RunFolder
from fpcli.structure.cost import count_cost
from fpcli.train import federated_run, setup
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire import CODECS
from fpcli.wire.message import MaskError, unpack_job

ROOT = Path(__file__).parents[2]
TOYS = {"masked": "toys:Masked", "personal": "toys:Personal", "asking": "toys:Asking"}
SHIPPED = sorted(methods.METHODS)
HOOKS = (
    "begin", "select", "ask", "absorb", "plan", "aggregate", "loss", "train", "answer", "view",
)  # fmt: skip
EVERY = [*plugins.list_names("methods"), *TOYS]
TRACES = ROOT / "tests" / "traces"


@functools.cache
def look_up(name: str, what: str) -> Mapping[str, object] | None:
    """Return what a method's own test file tells about it, if anything.

    ``AT_ONCE`` are settings with which it does within three rounds what it is for; ``MASKED`` are
    those with which it leaves out single weights at once; ``HAS_WIDE_MASKS`` says that its masks
    take more bytes than they save on a network as small as the toy, or that clients prune only what
    has come down already.
    """
    path = Path(__file__).parent / f"test_{name.replace('-', '_')}.py"
    return runpy.run_path(str(path)).get(what) if path.exists() else None


def eager_recipe(name: str, **changes: Any) -> Recipe:
    """Return the toy recipe with which a method does what it is for."""
    return toy_recipe(name, **(dict(look_up(name, "AT_ONCE") or {}) | changes))


# What golden traces promise on every processor. Their network has no kink and few weights, so no
# derivative jumps and no two ranks nearly meet: masks, and with them counts and bytes, are exact.
# Losses of all methods and rounds under six settings of the instruction sets (the usual one; ATen
# default, AVX2; oneDNN SSE4.1, AVX2; MKL compatible) were at most 6e-8 apart, in later rounds too.
# Starts off by 1e-5 of each weight, a hundred roundings, move them by at most 1e-6. Ten times that
# is still far below what a change of an algorithm does (1e-3).
LOSS_ATOL = 1e-5
# Ratios are float64: drawn, or a few sums and products of such.
RATIO_RTOL = 1e-12


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, reference in TOYS.items():
        monkeypatch.setitem(methods.METHODS, name, reference)
    # Smoke recipes draw; here it would take longer than the runs.
    monkeypatch.setattr(federated_run, "draw_run", lambda history, folder: [])


class Quiet:
    """A watcher that only collects."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.messages: list[str] = []

    def start(self, setup: Setup, folder: Path, executor: str, state: ServerState) -> None:
        """Ignore."""

    def round(self, record: RoundRecord) -> None:
        self.records.append(record)

    def message(self, text: str) -> None:
        self.messages.append(text)


def train(tmp_path: Path, run: str, method: str, **changes: Any) -> federated_run.Summary:
    recipe = eager_recipe(method, **changes)
    return federated_run.play_federated(recipe, RunFolder.create(tmp_path, run, recipe), Quiet())


def plain(value: Any) -> Any:
    """Return something that compares by value: data classes and tensors become JSON."""
    data, tensors = dump_state(value)
    return data, {name: tensor.tolist() for name, tensor in tensors.items()}


def without_seconds(path: Path) -> list[Any]:
    """Return a run's events without the measured seconds."""
    stripped = events.read_events(path / "events.jsonl")
    for event in stripped:
        event.pop("real_s", None)
        for client in event.get("clients", []):
            client.pop("real_s")
    return stripped


@pytest.mark.parametrize("name", EVERY)
def test_pooled_and_resumed_runs_give_the_same_bits(name: str, tmp_path: Path) -> None:
    """As a run that is whole and inline."""
    whole = train(tmp_path, "whole", name)
    pool = train(tmp_path, "pool", name, executor__kind="pool", executor__workers=2)
    train(tmp_path, "parts", name, rounds=1)
    recipe = eager_recipe(name)
    folder = RunFolder.open(tmp_path / "parts")
    stored = load_recipe(
        folder.recipe, flags={"task.model": recipe.task.model}
    )  # code is named anew
    resumed = federated_run.play_federated(recipe, folder, Quiet(), stored=stored)
    assert whole.state_sha256 == pool.state_sha256 == resumed.state_sha256
    state_type = plugins.lookup("methods", name).State
    state = plain(newest_state(tmp_path / "whole", state_type, recipe))
    for run in ("pool", "parts"):
        # The shorter run evaluated its last round; all evaluate every round, so all events agree.
        assert without_seconds(tmp_path / run) == without_seconds(tmp_path / "whole")
    assert plain(newest_state(tmp_path / "parts", state_type, recipe)) == state


def test_rounding_at_random_gives_the_same_bits_everywhere(tmp_path: Path) -> None:
    """With another codec each way; what the clients get differs from what the server holds."""
    flags = {"task__model": "digits-cnn", "rounds": 2}
    short = flags | {"wire__down": "int8-stochastic", "wire__up": "ternary"}
    inline = train(tmp_path, "inline", "fedmp", **short)
    pool = train(tmp_path, "pool", "fedmp", executor__kind="pool", executor__workers=2, **short)
    assert inline.state_sha256 == pool.state_sha256
    assert train(tmp_path, "whole", "fedmp", **flags).state_sha256 != inline.state_sha256
    ours, whole = (
        events.read_events(tmp_path / run / "events.jsonl")[0] for run in ("inline", "whole")
    )
    assert 1 / 4 < ours["down_bytes"] / whole["down_bytes"] < 1 / 3
    assert 1.6 / 32 < ours["up_bytes"] / whole["up_bytes"] < 1 / 8


def newest_state(run: Path, state_type: type | None, recipe: Any) -> ServerState:
    from fpcli.recipe.load import digest_recipe
    from fpcli.store.checkpoint import load_newest

    state, _, warnings = load_newest(run, method_state=state_type, digest=digest_recipe(recipe))
    assert warnings == []
    return state


class Watched:
    """Calls a method's server hooks and checks that they leave their arguments as they were."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._method, name)
        if name not in HOOKS[:6]:
            return attribute

        def call(ctx: Any, *arguments: Any) -> Any:
            before = [plain(argument) for argument in arguments]
            out = attribute(ctx, *arguments)
            if name == "plan":
                assert plain(attribute(ctx, *arguments)) == plain(out), "plan is not pure"
            assert [plain(argument) for argument in arguments] == before, f"{name} changed them"
            self.calls[name] += 1
            return out

        return call


@pytest.mark.parametrize("name", EVERY)
def test_hooks_are_pure_and_uploads_stay_within_plans(name: str, tmp_path: Path) -> None:
    setup = prepare_run(eager_recipe(name), tmp_path / "memory")
    watched = Watched(setup.fed.method)
    fed = dataclasses.replace(setup.fed, method=watched)  # type: ignore[arg-type]
    executor = Inline(setup.site)
    state, totals = server.begin_training(fed, setup.values, executor)
    for _ in range(2):
        state, record = next(server.play(fed, state, executor, totals))
        totals = record.totals
        assert record.refusals == ()
    assert watched.calls.total() >= 8
    assert watched.calls["plan"] == 2, "once for the whole cohort"
    asks = foresee(fed, state, 3)
    answers = exchange(fed, state, asks, executor, round=3).answers
    assert len(answers) == len(asks)
    for answer in answers:
        assert answer.support.is_within(fed.layout, answer.ask.support)
        shapes = answer.support.block_shapes(fed.travels)
        assert {k: tuple(v.shape) for k, v in answer.work.values.items()} == shapes


class Telling:
    """Calls a method's `train`, and sends along what `cx.commit` says that the server will read."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        work = self._method.train(cx, model)
        told = cx.commit(work.values, work.mask)
        stats = {**work.stats, **{f"told/{name}": value for name, value in told.items()}}
        return dataclasses.replace(work, stats=stats)


@pytest.mark.parametrize(
    ("name", "codec"),
    [*((name, "qsgd4") for name in EVERY), *(("masked", codec) for codec in CODECS)],
)
def test_a_client_knows_what_the_server_will_read(name: str, codec: str, tmp_path: Path) -> None:
    setup = prepare_run(eager_recipe(name, wire__up=codec), tmp_path / "memory")
    fed, executor = setup.fed, Inline(setup.site)
    state, _ = server.begin_training(fed, setup.values, executor)
    setup.site.__dict__["hooks"] = Telling(setup.site.hooks)
    asks = foresee(fed, state, 1)
    answers = exchange(fed, state, asks, executor, round=1).answers
    assert len(answers) == len(asks)
    for answer in answers:
        for tensor, value in answer.work.values.items():
            assert torch.equal(answer.work.stats[f"told/{tensor}"], value)


class Counting(Inline):
    """Keeps the lengths of all jobs and replies."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.site)
        self.sizes: dict[str, list[int]] = {"down": [], "up": []}
        self._run, self._limit = setup.fed.run, setup.site.limit_bytes

    def run(self, jobs: Any) -> Any:
        for outcome in super().run(self._counted(jobs)):
            self.sizes["up"].append(len(outcome.reply))
            yield outcome

    def _counted(self, jobs: Any) -> Any:
        for job in jobs:
            self.sizes["down"].append(len(job))
            try:
                header = unpack_job(job, limit_bytes=self._limit).header
            except MaskError as error:  # its masks are those that the client remembers
                header = error.header
            assert header.run == self._run
            yield job


class Played(NamedTuple):
    """Three rounds: what they began with, and ended with; lengths of messages after each."""

    setup: Setup
    start: ServerState
    end: ServerState
    records: list[RoundRecord]
    sizes: list[dict[str, list[int]]]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Played]:
    """Return a function of a method's name that gives its rounds, which are played once."""

    @functools.cache
    def get(name: str) -> Played:
        home = tmp_path_factory.mktemp("memory")
        setup = prepare_run(eager_recipe(name, wire__codec="sparse"), home)
        executor = Counting(setup)
        state, totals = server.begin_training(setup.fed, setup.values, executor)
        start, records, sizes = state, [], []
        for after, record in server.play(setup.fed, state, executor, totals):
            state = after
            records.append(record)
            sizes.append({way: [*lengths] for way, lengths in executor.sizes.items()})
        return Played(setup, start, state, records, sizes)

    return get


@pytest.mark.parametrize("name", EVERY)
def test_recorded_bytes_are_payload_lengths(name: str, play: Callable[[str], Played]) -> None:
    setup, _, _, records, sizes = play(name)
    if setup.fed.traits.models == "personal":  # judging personal models is not traffic
        records, num = records[:1], len(records[0].cohort)
        sizes = [{way: lengths[:num] for way, lengths in sizes[0].items()}]
    for record, lengths in zip(records, sizes, strict=True):
        assert record.totals.down_bytes == sum(lengths["down"])
        assert record.totals.up_bytes == sum(lengths["up"])


def without(setup: Setup, clients: Collection[int], how: str) -> Setup:
    """Return a federation in which clients are `empty` (without any sample), `away` in every round,
    or, if they are the last ones, `gone`."""
    fed, site = setup.fed, setup.site
    if how == "away":
        own = {c: dataclasses.replace(fed.fleet.level(c), availability=0.0) for c in clients}
        fleet = dataclasses.replace(fed.fleet, own=own)
        return dataclasses.replace(setup, fed=dataclasses.replace(fed, fleet=fleet))

    def left(parts: Sequence[Tensor]) -> list[Tensor]:
        cut = [part[:0] if client in clients else part for client, part in enumerate(parts)]
        return cut[: min(clients)] if how == "gone" else cut

    parts, withheld = left(site.parts), left(site.withheld_parts)
    sizes, num_withheld = (tuple(map(len, these)) for these in (parts, withheld))
    site = dataclasses.replace(
        site,
        indices=torch.cat(parts),
        num_examples=sizes,
        withheld_indices=torch.cat(withheld) if withheld else None,
        num_withheld=num_withheld,
    )
    fed = dataclasses.replace(fed, num_examples=sizes, num_withheld=num_withheld)
    return dataclasses.replace(setup, fed=fed, site=site)


def played(setup: Setup, home: Path) -> tuple[ServerState, list[RoundRecord]]:
    executor = Inline(dataclasses.replace(setup.site, home=home))
    state, totals = server.begin_training(setup.fed, setup.values, executor, setup.support)
    rounds = list(server.play(setup.fed, state, executor, totals))
    return rounds[-1][0], [record for _, record in rounds]


WITHOUT_CLASSES = [
    name for name in EVERY
    if name not in TOYS and not plugins.lookup("methods", name).traits.needs_classes
]  # fmt: skip


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs learn a number of every image, which all clients have as many of."""

    def deal(recipe: Any, dataset: Any, reserved: Tensor) -> tuple[Tensor, ...]:
        rest = torch.arange(len(dataset.train))
        return tuple(rest[~torch.isin(rest, reserved)].tensor_split(recipe.task.clients))

    def reserve(recipe: Any, dataset: Any) -> Tensor:
        return torch.arange(0, len(dataset.train), 10)[: 50 * (recipe.task.server_share > 0)]

    def choose_tests(dataset: Any, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.arange(len(dataset.test)).tensor_split(len(parts))

    monkeypatch.setattr(setup, "load_data", lambda recipe: ink())
    monkeypatch.setattr(setup, "share_out", deal)
    monkeypatch.setattr(setup, "choose_server_samples", reserve)
    monkeypatch.setattr(setup, "choose_personal_tests", choose_tests)


@pytest.mark.parametrize("name", WITHOUT_CLASSES)
def test_numbers_are_learned_and_a_resumed_run_ends_in_the_same_bits(
    name: str, numbers: None, tmp_path: Path
) -> None:
    changes = {**(look_up(name, "AT_ONCE") or {}), "eval_every": 1}
    whole = train(tmp_path, "whole", name, rounds=2, **changes)
    train(tmp_path, "parts", name, rounds=1, **changes)
    recipe = toy_recipe(name, rounds=2, **changes)
    folder = RunFolder.open(tmp_path / "parts")
    resumed = federated_run.play_federated(recipe, folder, Quiet(), stored=recipe)
    assert resumed.state_sha256 == whole.state_sha256
    assert without_seconds(tmp_path / "whole") == without_seconds(tmp_path / "parts")
    first, last = (event["loss"] for event in events.read_events(folder.events))
    assert last < first
    assert whole.test.keys() == {"mae", "r2"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("subfedavg", {}), ("prunefl", {"method__loss": "one_hot"})],
)
def test_what_needs_classes_says_so(
    name: str, options: Mapping[str, str], numbers: None, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="learns classes only; data `ink` has a number") as caught:
        prepare_run(toy_recipe(name, **options), tmp_path / "memory")
    assert caught.value.where == "method.name"


EMPTY = {
    # Even clients have fast devices, so that a time model of the slowest client is the same.
    "first, middle and last": ("away", (0, 2, 4, 6)),
    "all of a cohort": ("away", ()),
    "the last two": ("gone", (5, 6)),
}


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Setup]:
    """Return a function of a method's name that gives a federation of seven clients."""

    @functools.cache
    def get(name: str) -> Setup:
        changes = {"task__clients": 7, "clients_per_round": 2, "rounds": 2, "eval_every": 2}
        return prepare_run(eager_recipe(name, **changes), tmp_path_factory.mktemp("memory"))

    return get


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("name", EVERY)
def test_clients_without_samples_are_as_if_they_were_not_there(
    name: str, case: str, seven: Callable[[str], Setup], tmp_path: Path
) -> None:
    full = seven(name)
    how, clients = EMPTY[case]
    if not clients:
        ctx = full.fed.context(1, "round", lambda *_, **__: None)
        clients = choose_cohort(full.fed, ctx, ServerState(0, {}, Support()))
        assert len(clients) == 2
    ends = []
    for kind in ("empty", how):
        state, records = played(without(full, clients, kind), tmp_path / kind)
        seen = []
        for record in records:
            assert record.refusals == ()
            assert not {*record.cohort} & {*clients}
            scores = record.evaluation.clients if record.evaluation else {}
            judged = {c: score for c, score in scores.items() if c not in clients}
            assert kind == "away" or judged == scores  # who is away is judged all the same
            measured = {"real_s": 0.0, "totals": None, "evaluation": None}
            plain_clients = [dataclasses.replace(client, real_s=0.0) for client in record.clients]
            told = dataclasses.replace(record, **measured, clients=tuple(plain_clients))
            totals = dataclasses.replace(record.totals, real_s=0.0)
            seen.append((plain(told), totals, judged))
        ends.append((plain(state if how == "away" else state.values), seen))
    assert ends[0] == ends[1]


def test_nobody_with_samples_is_one_clear_error(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("fedavg"), tmp_path / "memory")
    with pytest.raises(DataError, match="no client has a training sample") as caught:
        without(setup, range(4), "empty")
    assert "task.withhold" in caught.value.hint


@pytest.mark.parametrize("name", EVERY)
def test_size_work_and_bytes_fall_together(name: str, play: Callable[[str], Played]) -> None:
    setup, start, _, records, _ = play(name)
    full = count_cost(setup.fed.layout, start.support)
    clients = sorted((c for r in records for c in r.clients), key=lambda client: client.params)
    assert len(clients) == sum(len(record.cohort) for record in records) >= 6
    for small, large in itertools.pairwise(clients):
        if small.params < large.params:
            if name != "masked":  # whose random masks may lie in layers of other sizes
                assert small.macs <= large.macs
            if name != "masked" and not look_up(name, "HAS_WIDE_MASKS"):
                assert small.down_bytes < large.down_bytes
    assert all(client.params <= full.params for client in clients)


def test_methods_that_mask_weights_are_known() -> None:
    for name in SHIPPED:
        traits = plugins.lookup("methods", name).traits
        masks = traits.cuts == "weights" or traits.remembers_masks or traits.uploads == "entries"
        assert look_up(name, "MASKED") is not None or not masks


@pytest.mark.parametrize("name", [n for n in SHIPPED if look_up(n, "MASKED") is not None])
def test_what_is_masked_is_not_sent_by_default(name: str, tmp_path: Path) -> None:
    totals = {}
    for codec in ("usual", "dense"):
        own = {"wire__codec": codec} if codec == "dense" else {}
        setup = prepare_run(
            toy_recipe(name, **(look_up(name, "MASKED") or {}), **own), tmp_path / codec
        )
        state, records = played(setup, tmp_path / f"{codec}-memory")
        is_exact = setup.fed.context(1, "round", lambda *_, **__: None).is_upload_exact
        totals[codec] = (records[-1].totals.up_bytes, plain(state.values), is_exact)
    assert totals["usual"][0] < totals["dense"][0]
    if totals["usual"][2]:
        assert totals["usual"][1] == totals["dense"][1], "what arrives is the same"


@pytest.mark.parametrize("name", EVERY)
def test_state_survives_saving(name: str, play: Callable[[str], Played]) -> None:
    setup, _, state, _, _ = play(name)
    data, tensors = dump_state(state.method)
    again = load_state(setup.fed.method.State, json.loads(json.dumps(data)), tensors)
    assert plain(again) == plain(state.method)
    assert type(again) is type(state.method)


@pytest.mark.parametrize("name", EVERY)
def test_hooks_fit_together(name: str) -> None:
    method: Method = plugins.lookup("methods", name)()
    does = {hook: getattr(type(method), hook) is not getattr(Method, hook) for hook in HOOKS}
    assert sum(does.values()) <= 6
    assert does["answer"] <= does["ask"]
    assert does["absorb"] <= does["answer"]
    (base,) = type(method).__bases__
    assert base is Method or base.__bases__ == (Method,), "it extends no more than one"
    assert method.source
    assert type(method).__doc__


@pytest.mark.parametrize("name", SHIPPED)
def test_page_and_recipe_exist(name: str) -> None:
    page = ROOT / "recipes" / name / "README.md"
    assert len(page.read_text()) > 800
    assert list((ROOT / "recipes" / name).glob("*.yaml"))
    options = plugins.lookup("methods", name).Options
    for field in dataclasses.fields(options):
        assert f"`{field.name}`" in page.read_text(), f"{field.name} is not on the page"


def test_the_files_are_the_methods() -> None:
    assert len(SHIPPED) >= 14
    for name in SHIPPED:
        assert (ROOT / "fpcli/methods" / f"{name.replace('-', '_')}.py").is_file()
        assert issubclass(plugins.lookup("methods", name), Method)


def trace(tmp_path: Path, run: str, name: str, model: str = "nets:smooth") -> list[dict[str, Any]]:
    """Return what a golden trace keeps of every round of a short run."""
    train(tmp_path, run, name, task__model=model)
    return [
        {
            "cohort": event["cohort"],
            "down_bytes": event["down_bytes"],
            "up_bytes": event["up_bytes"],
            "params": [client["params"] for client in event["clients"]],
            "loss": event["loss"],
            "ratios": [c["notes"]["ratio"] for c in event["clients"] if "ratio" in c["notes"]],
        }
        for event in events.read_events(tmp_path / run / "events.jsonl")
    ]


def assert_is_golden(name: str, found: list[dict[str, Any]]) -> None:
    golden = json.loads((TRACES / f"{name}.json").read_text())
    assert len(found) == len(golden) == 3
    for number, (got, want) in enumerate(zip(found, golden, strict=True), 1):
        for key in ("cohort", "down_bytes", "up_bytes", "params"):
            assert got[key] == want[key], f"round {number}: {key}"
        assert got["loss"] == pytest.approx(want["loss"], abs=LOSS_ATOL), f"round {number}: loss"
        assert got["ratios"] == pytest.approx(want["ratios"], rel=RATIO_RTOL), f"round {number}"


@pytest.mark.processor
@pytest.mark.parametrize("name", SHIPPED)
def test_golden_trace(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = trace(tmp_path, "run", name)
    if request.config.getoption("--update-traces"):
        (TRACES / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    assert_is_golden(name, found)


@pytest.mark.processor
@pytest.mark.parametrize("name", SHIPPED)
def test_no_golden_trace_hangs_on_a_last_digit(name: str, tmp_path: Path) -> None:
    """Another start, off by far more than processors differ, gives it too: nothing is a tie."""
    assert_is_golden(name, trace(tmp_path, "run", name, "nets:nudged"))


def test_totals_add_up(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("fedmp"), tmp_path / "memory")
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    records = [r for _, r in server.play(setup.fed, state, Inline(setup.site), Totals())]
    for part in ("clock_s", "down_bytes", "up_bytes"):
        total = sum(getattr(record, part) for record in records)
        assert getattr(records[-1].totals, part) == pytest.approx(total)
    slowest = [max(c.compute_s + c.down_s + c.up_s for c in r.clients) for r in records]
    assert [record.clock_s for record in records] == pytest.approx(slowest)
    assert torch.tensor(slowest).min() > 0
