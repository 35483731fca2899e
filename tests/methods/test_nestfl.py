"""NestFL's nested order, levels and weights by hand-made numbers, and its rounds against FedAvg."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from contexts import context
from torch import Tensor

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.planning import choose_cohort, foresee
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import ServerState
from fpcli.errors import RecipeError
from fpcli.methods.nestfl import (
    NestFL,
    Options,
    State,
    average_scores,
    count_copies,
    cut_levels,
    find_deadline,
    find_level,
    find_levels,
    mix_own,
    nest_channels,
)
from fpcli.models.build import build
from fpcli.scores.magnitude import l1
from fpcli.settings.learning import LocalConfig
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.patterns import keep_leading, sort_leading
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify
from fpcli.train.setup import Setup, prepare_run

AT_ONCE: dict[str, Any] = {
    "method__first_event": 1,
    "method__interval": 1,
    "method__deadline_s": 0.02,
}
WIDTHS = (1.0, 0.75, 0.5, 0.25)


def played(
    tmp_path: Path, method: str = "nestfl", *, support: Support | None = None, **changes: Any
) -> tuple[Setup, list[tuple[ServerState, Any]]]:
    """Return a toy run's states and records."""
    home = tmp_path / str(len([*tmp_path.iterdir()]))
    home.mkdir()
    setup = prepare_run(toy_recipe(method, **changes), home)
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor, support)
    return setup, list(server.play(setup.fed, state, executor, totals))


def row_of_four() -> Layout:
    """Return a layout of four channels with one parameter each."""
    member = Member("x", 0, torch.arange(4).reshape(4, 1))
    return Layout({"x": TensorSpec((4,), True)}, {"g": Group("g", 4, (member,))})


def round_context(setup: Setup, round: int = 1, **changes: Any) -> RoundContext:
    ctx = setup.fed.context(round, "round", lambda client, **values: None)
    return replace(ctx, cohort=tuple(range(len(ctx.num_examples))), **changes)


def test_events_sort_the_smallest_set_so_far() -> None:
    """A channel that has left stays behind, though its score is the largest later on."""
    layout, order = row_of_four(), dict[str, Tensor]()
    events = ([0.9, 0.2, 0.5, 0.7], [0.4, 5.0, 0.6, 0.3], [1.0, 9.0, 0.8, 9.0])
    for width, scores in zip(WIDTHS, events, strict=False):
        order = sort_leading(layout, order, {"g": torch.tensor(scores)}, width)
    assert order["g"].tolist() == [0, 2, 3, 1]
    kept = [keep_leading(layout, order, width) for width in WIDTHS]
    assert kept[0] == {}
    assert [keep["g"].tolist() for keep in kept[1:]] == [[0, 2, 3], [0, 2], [0]]


def test_of_equal_scores_the_larger_index_leaves_first() -> None:
    order = sort_leading(row_of_four(), {}, {"g": torch.tensor([1.0, 2.0, 1.0, 2.0])}, 1.0)
    assert order["g"].tolist() == [1, 3, 0, 2]


def test_events_come_when_they_are_due() -> None:
    options = Options(first_event=10, interval=5)
    counts = {0: 1, 9: 1, 10: 2, 14: 2, 15: 3, 20: 4, 99: 4}
    assert {elapsed: options.count_levels(elapsed) for elapsed in counts} == counts
    assert Options(build="prebuilt").count_levels(0) == 4
    assert Options(widths=(1.0,), first_event=0).count_levels(7) == 1
    assert Options(first_event=0).count_levels(0) == 2


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        (0.0, [1.2833333, 1.1, 1.2333333, 0.9666667]),
        (1.0, [1.2153846, 1.1, 1.22, 0.98]),  # weights 10, 15, 7.5
    ],
)
def test_a_parameter_is_averaged_over_its_holders(psi: float, expected: list[float]) -> None:
    layout = row_of_four()
    options = Options(psi=psi, build="prebuilt", deadline_s=1.0)
    known = State({"g": torch.tensor([0, 2, 3, 1])}, num_levels=4)
    ctx: Any = SimpleNamespace(
        options=options, layout=layout, travels=layout, log=lambda *_, **__: 0
    )
    supports = cut_levels(ctx, known, 4)
    sent = {1: (10, [0.1, 0.1, 0.1, 0.1]), 2: (20, [0.2, 0.3, -0.1]), 4: (30, [0.4])}
    answers: Any = [
        SimpleNamespace(
            ask=SimpleNamespace(record={"level": level}),
            support=supports[level - 1],
            work=SimpleNamespace(values={"x": torch.tensor(change)}),
            num_examples=num,
        )
        for level, (num, change) in sent.items()
    ]
    state = ServerState(40, {"x": torch.ones(4)}, Support(), known)
    new = NestFL().aggregate(ctx, state, answers)
    assert new.values["x"].tolist() == pytest.approx(expected, abs=1e-6)
    assert new.method == known


@pytest.fixture(scope="module")
def conv2() -> Layout:
    model = build("conv2", (1, 28, 28), Classify(62), seed=0)
    return trace(model, torch.zeros(2, 1, 28, 28))


def test_sizes_of_the_levels(conv2: Layout) -> None:
    costs = [count_cost(conv2, Support(keep_leading(conv2, {}, width))) for width in WIDTHS]
    assert [cost.params for cost in costs] == [6_603_710, 3_738_974, 1_683_454, 437_150]
    assert [cost.bytes for cost in costs] == [4 * cost.params for cost in costs]


def toy_model() -> tuple[Any, Layout, dict[str, Tensor]]:
    model = build("nets:tiny", (1, 8, 8), Classify(10), seed=3, allow_code=True).eval()
    layout = trace(model, torch.zeros(2, 1, 8, 8))
    state = model.state_dict()
    return model, layout, {name: state[name] for name in layout.tensors}


def test_levels_lie_in_one_another_whatever_the_scores() -> None:
    _, layout, values = toy_model()
    order: dict[str, Tensor] = {}
    rng = torch.Generator().manual_seed(0)
    for event in range(3):
        drawn = {n: torch.rand(g.width, generator=rng) for n, g in layout.prunable.items()}
        order = sort_leading(layout, order, drawn, WIDTHS[event])
        supports = [Support(keep_leading(layout, order, width)) for width in WIDTHS]
        for large, small in itertools.pairwise(supports):
            small.check(layout)
            assert small.is_within(layout, large)
            assert small.num_alive(layout) < large.num_alive(layout)
            back, held = small.scatter(layout, small.gather(layout, values))
            for name, value in values.items():
                assert torch.equal(torch.where(held[name] > 0, back[name], value), value)


def test_a_small_model_computes_what_the_whole_one_does_without_the_others() -> None:
    model, layout, values = toy_model()
    support = Support(keep_leading(layout, sort_leading(layout, {}, l1(layout, values), 1.0), 0.5))
    block = support.gather(layout, values)
    small = shrink(model, {n: x.clone() for n, x in block.items()}).eval()
    assert sum(p.numel() for p in small.parameters()) == support.num_alive(layout)
    zeroed = shrink(model, support.scatter(layout, block)[0]).eval()
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small(x), zeroed(x), atol=1e-5, rtol=1e-5)


def test_one_level_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    _, plain = played(tmp_path, "fedavg")
    _, ours = played(tmp_path, method__widths=[1.0])
    for name, value in plain[-1][0].values.items():
        assert torch.equal(value, ours[-1][0].values[name]), name


def test_everybody_at_one_level_is_fedavg_on_the_small_model(tmp_path: Path) -> None:
    setup, ours = played(tmp_path, method__build="prebuilt", method__levels=[3])
    order = ours[0][0].method.order
    support = Support(keep_leading(setup.fed.layout, order, 0.5))
    _, plain = played(tmp_path, "fedavg", support=support)
    _, held = support.scatter(setup.fed.layout, support.gather(setup.fed.layout, setup.values))
    for name, value in plain[-1][0].values.items():
        assert torch.equal(value, ours[-1][0].values[name]), name
        assert torch.equal(value[held[name] == 0], setup.values[name][held[name] == 0]), name


def test_fixed_levels_are_heterofl_without_its_tricks(tmp_path: Path) -> None:
    same: dict[str, Any] = {"task__model": "digits-cnn", "local__clip_norm": 0.0, "rounds": 2}
    theirs: dict[str, Any] = {
        "method__levels": "a1-b1", "method__mode": "fix", "method__scaler": False,
        "method__masked_loss": False, "method__class_rows": "all", "method__weighting": "samples",
    }  # fmt: skip
    _, hetero = played(tmp_path, "heterofl", **same, **theirs)
    ours: dict[str, Any] = {
        "method__widths": [1.0, 0.5],
        "method__build": "fixed",
        "method__levels": [1, 1, 2, 2],
    }
    setup, fixed = played(tmp_path, **same, **ours)
    assert fixed[-1][0].method.order == {}
    for name in setup.fed.layout.parameters.tensors:
        assert torch.equal(hetero[-1][0].values[name], fixed[-1][0].values[name]), name


def test_levels_appear_one_by_one_and_what_left_stays_behind(tmp_path: Path) -> None:
    setup, rounds = played(tmp_path, rounds=5, **AT_ONCE)
    orders = [state.method.order for state, _ in rounds]
    assert [state.method.num_levels for state, _ in rounds] == [1, 2, 3, 4, 4]
    assert [state.method.built for state, _ in rounds] == [0, 2, 3, 4, 4]
    for event, (before, after) in enumerate(itertools.pairwise(orders[1:4]), 1):
        for name, group in setup.fed.layout.prunable.items():
            num = len(keep_leading(setup.fed.layout, {}, WIDTHS[event])[name])
            assert sorted(before[name][:num].tolist()) == sorted(after[name][:num].tolist())
            assert torch.equal(before[name][num:], after[name][num:])
            assert len(after[name]) == group.width
    # The event looks at the model with which the round begins.
    second = sort_leading(setup.fed.layout, {}, l1(setup.fed.layout, rounds[0][0].values), 1.0)
    assert all(torch.equal(orders[1][name], blocks) for name, blocks in second.items())


def test_bytes_and_work_fall_with_the_level(tmp_path: Path) -> None:
    _, rounds = played(tmp_path, method__build="prebuilt", method__levels=[1, 2, 3, 4], rounds=1)
    clients = rounds[0][1].clients
    assert [client.notes["level"] for client in clients] == [1, 2, 3, 4]
    assert [client.notes["ratio"] for client in clients] == [0.0, 0.25, 0.5, 0.75]
    for key in ("params", "macs", "down_bytes", "up_bytes"):
        for large, small in itertools.pairwise(getattr(client, key) for client in clients):
            assert small < large, key


def test_the_level_is_the_largest_that_meets_the_deadline_and_fits(tmp_path: Path) -> None:
    """100 samples, 3 passes of 2 operations: 600 s per million multiply-adds at 1 MFLOP/s, and
    8 s down, 16 s up per million bytes."""
    setup = prepare_run(toy_recipe("nestfl"), tmp_path)
    ctx = round_context(setup, num_examples=(100,))
    device = replace(
        ctx.device(0), flops_per_s=1e6, down_bps=1e6, up_bps=0.5e6, memory_bytes=10_000_000
    )
    sizes = [(1.0e6, 2_000_000), (0.5e6, 1_000_000), (0.1e6, 500_000)]
    # Seconds are 648, 324 and 72; a device holds 4 numbers per parameter (momentum).
    assert count_copies(ctx.local) == 4
    assert count_copies(LocalConfig()) == 3
    assert count_copies(LocalConfig(optimizer="adam")) == 5
    for limit_s, level in ((648.5, 1), (647.5, 2), (323.5, 3), (71.5, None)):
        assert find_level(ctx, device, sizes, limit_s) == level
    small = replace(device, memory_bytes=4_000_000)
    assert find_level(ctx, small, sizes, 1000.0) == 2
    assert find_level(ctx, replace(device, memory_bytes=3_999_999), sizes, 1000.0) == 3
    assert find_level(ctx, replace(device, memory_bytes=1), sizes, 1000.0) is None


def test_a_slower_device_never_gets_a_larger_model(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("nestfl", fleet__profile="ten-speed"), tmp_path)
    ctx = round_context(setup)
    sizes = [ctx.size(support) for support in cut_levels(ctx, State(), 4)]
    limit_s, device = find_deadline(ctx), ctx.device(0)
    levels = []
    for _ in range(8):
        levels.append(find_level(ctx, device, sizes, limit_s) or 5)
        device = replace(
            device, flops_per_s=device.flops_per_s / 2, down_bps=device.down_bps / 2,
            up_bps=device.up_bps / 2,
        )  # fmt: skip
    assert levels == sorted(levels)
    assert len({*levels}) >= 3


def test_the_deadline_is_the_median_with_the_whole_model(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("nestfl", fleet__profile="two-speed"), tmp_path)
    ctx = round_context(setup, round=5)
    devices = {client: ctx.fleet.at(0, client) for client in range(4)}
    seconds = [time.total_s for time in ctx.times(Support(), devices).values()]
    assert find_deadline(ctx) == pytest.approx(median(seconds))
    assert find_deadline(replace(ctx, options=Options(deadline_s=3.0))) == 3.0


def test_static_levels_are_those_of_the_last_event(tmp_path: Path) -> None:
    """Conditions change much from round to round, so that levels by them do, too."""
    changes: dict[str, Any] = {"method__build": "prebuilt", "fleet__variation": 1.0, "rounds": 1}
    found = {}
    for level in ("runtime", "static"):
        setup = prepare_run(toy_recipe("nestfl", method__level=level, **changes), tmp_path / level)
        rounds = [round_context(setup, round) for round in range(1, 9)]
        supports = cut_levels(rounds[0], State(), 4)
        known = State(num_levels=4, built=1)
        found[level] = [find_levels(ctx, known, supports, ctx.cohort) for ctx in rounds]
    assert found["static"] == [found["runtime"][0]] * 8
    assert len({str(levels) for levels in found["runtime"]}) > 1


def test_slow_devices_can_be_left_out(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"fleet__profile": "two-speed", "fleet__variation": 0.0}
    flags |= {"task__partition__kind": "iid", "method__build": "prebuilt"}
    setup = prepare_run(toy_recipe("nestfl", **flags), tmp_path / "a")
    ctx = round_context(setup)
    smallest = ctx.size(cut_levels(ctx, State(), 4)[-1])
    fast, slow = (ctx.time(client, ctx.device(client), smallest).total_s for client in (0, 1))
    assert slow > 1.3 * fast
    flags |= {"method__drop_slow": True, "method__deadline_s": 1.2 * fast}
    setup = prepare_run(toy_recipe("nestfl", **flags), tmp_path / "b")
    state = ServerState(0, setup.values, Support())
    assert choose_cohort(setup.fed, round_context(setup), state) == (0, 2)
    recipe = toy_recipe("nestfl", **flags | {"method__drop_slow": False})
    fed = prepare_run(recipe, tmp_path / "c").fed
    levels = [ask.record["level"] for ask in foresee(fed, state, 1)]
    assert levels == [4, 4, 4, 4]
    flags["method__deadline_s"] = 0.5 * fast
    setup = prepare_run(toy_recipe("nestfl", **flags), tmp_path / "d")
    with pytest.raises(RecipeError, match=r"no client meets the deadline of .* s in round 1"):
        choose_cohort(setup.fed, round_context(setup), state)


def test_scores_of_devices_are_averaged_by_samples() -> None:
    layout = row_of_four()
    answers: Any = [
        SimpleNamespace(
            num_examples=num, support=Support(keep), work=SimpleNamespace(stats={"g": scores})
        )
        for num, keep, scores in (
            (10, {}, torch.tensor([1.0, 2.0, 3.0, 4.0])),
            (30, {"g": torch.tensor([0, 2])}, torch.tensor([5.0, 7.0])),
        )
    ]
    means = average_scores(layout, answers)["g"]
    assert means[[0, 2]].tolist() == pytest.approx([4.0, 6.0])


@pytest.mark.parametrize("score", ["taylor", "l1"])
def test_devices_score_before_an_event(score: str, tmp_path: Path) -> None:
    """In the rounds that events follow, with 4 bytes per channel."""
    own: dict[str, Any] = {"method__score_source": "devices", "method__score": score}
    own |= {"method__first_event": 1, "method__interval": 2, "method__widths": [1.0, 0.5, 0.25]}
    setup, rounds = played(tmp_path, **own, method__levels=[1], rounds=5)
    states = [state.method for state, _ in rounds]
    assert [bool(state.scores) for state in states] == [True, False, True, False, False]
    assert [state.num_levels for state in states] == [1, 2, 2, 3, 3]
    expected = sort_leading(setup.fed.layout, {}, states[0].scores, 1.0)
    assert all(torch.equal(states[1].order[name], blocks) for name, blocks in expected.items())
    assert all(bool((scores > 0).all()) for scores in states[0].scores.values())
    scored, without = (record.clients[0].up_bytes for _, record in rounds[:2])
    channels = sum(group.width for group in setup.fed.layout.prunable.values())
    assert 4 * channels <= scored - without < 4 * channels + 200


def test_devices_start_from_a_mixture_with_their_own_weights(tmp_path: Path) -> None:
    """Own parts of an earlier sub-model do not count where the last one had none."""
    setup = prepare_run(toy_recipe("nestfl", method__personal_mix=0.25), tmp_path)
    layout, values = setup.fed.layout, setup.values

    def at(round: int, width: float) -> Any:
        support = Support(keep_leading(layout, {}, width))
        received = support.gather(layout, values)
        return context(setup.site, received, round=round, keep=support.keep)

    first = mix_own(at(1, 1.0))
    assert all(torch.equal(first[name], value) for name, value in values.items())
    for round, width, shift in ((1, 1.0, 5.0), (2, 0.5, 1.0)):
        cx = at(round, width)
        own = {name: value + shift for name, value in cx.received.items()}
        cx.remember("model", own)
        cx.remember("round", {name: torch.full_like(x, round) for name, x in own.items()})
    start = mix_own(at(3, 1.0))
    support = Support(keep_leading(layout, {}, 0.5))
    _, held = support.scatter(layout, support.gather(layout, values))
    for name, spec in layout.tensors.items():
        own_part = 0.25 * held[name] * spec.is_parameter
        torch.testing.assert_close(start[name], values[name] + own_part)
    seen = NestFL().view(at(3, 1.0), values)
    for name, value in values.items():
        torch.testing.assert_close(seen[name], (value + 1.0) * held[name])


def test_a_change_is_measured_from_the_mixture(tmp_path: Path) -> None:
    """Without a learning rate devices change nothing, whatever they start from."""
    own: dict[str, Any] = {"method__personal_mix": 0.5, "task__model": "digits-cnn"}
    _, rounds = played(tmp_path, **own, local__lr=0.0)
    setup, moved = played(tmp_path, **own, local__lr=0.01)
    _, plain = played(tmp_path, task__model="digits-cnn", local__lr=0.01)
    for name, value in setup.values.items():
        assert torch.equal(rounds[-1][0].values[name], value), name
        assert torch.equal(moved[0][0].values[name], plain[0][0].values[name]), "nothing is own yet"
    assert any(
        not torch.equal(moved[1][0].values[name], value)
        for name, value in plain[1][0].values.items()
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"widths": ()}, "begin with 1"),
        ({"widths": (0.5, 0.25)}, "begin with 1"),
        ({"widths": (1.0, 0.5, 0.5)}, "smaller ones"),
        ({"levels": (1, 5)}, "there are 4 widths"),
        ({"levels": (1, 2), "drop_slow": True}, "levels by hand"),
        ({"levels": (1, 2), "deadline_s": 1.0}, "levels by hand"),
        ({"score": "taylor"}, "set score_source devices"),
        ({"score_source": "devices", "build": "prebuilt"}, "a round before the first event"),
        ({"score_source": "devices", "first_event": 0}, "a round before the first event"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Options(**options)


def test_levels_that_never_exist_are_told() -> None:
    method = NestFL()
    (line,) = method.idle(Options(), 30)
    assert line == (
        "`method.widths` has 4 levels, of which the run of 30 rounds gets 3; lower "
        "method.first_event or method.interval, or set rounds above 30"
    )
    assert method.idle(Options(), 31) == []
    assert method.idle(Options(build="prebuilt"), 1) == []
    assert method.idle(Options(widths=(1.0,)), 1) == []


def test_events_due_together_are_one_sort(tmp_path: Path) -> None:
    """A server that goes on at a later round has missed none."""
    setup = prepare_run(toy_recipe("nestfl", **AT_ONCE), tmp_path)
    state = ServerState(9, setup.values, Support())
    known = nest_channels(round_context(setup, 10), state)
    expected = sort_leading(setup.fed.layout, {}, l1(setup.fed.layout, setup.values), 1.0)
    assert (known.num_levels, known.built) == (4, 10)
    assert all(torch.equal(known.order[name], blocks) for name, blocks in expected.items())
