"""Sub-FedAvg's arithmetic by hand-made numbers, and what holds while its clients prune."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import toy_recipe
from torch import Tensor, nn

from fpcli.engine import memory, server
from fpcli.engine.client_context import ClientContext
from fpcli.engine.exchange import make_job
from fpcli.engine.executors.inline import Inline, Outcome
from fpcli.engine.executors.pool import Pool
from fpcli.engine.federation import RoundRecord
from fpcli.engine.method import Method, merge_answers
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Answer, Ask, ServerState, Timing, Traffic, Work
from fpcli.errors import RecipeError
from fpcli.methods.subfedavg import (
    Options,
    State,
    Sub,
    SubFedAvg,
    count_pruned_percent,
    list_maskable,
    next_percent,
    split_samples,
)
from fpcli.models.build import build
from fpcli.scores.bn_scale import bn_scale, choose_above_share
from fpcli.store.checkpoint import dump_state, load_state
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.masks import drop_percentile, measure_distance
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.blocks import encode_blocks

CIFAR = (3, 32, 32)
OPEN = {"method__accuracy_percent": 0.0, "method__distance_min": -1.0, "method__gate_on": "test"}
HYBRID = OPEN | {"method__variant": "hy", "method__channel_distance_min": -1.0}

AT_ONCE = {"method__accuracy_percent": 10.0}
MASKED, HAS_WIDE_MASKS = AT_ONCE, True


def bits(*rows: str) -> Tensor:
    return torch.tensor([[letter == "1" for letter in row] for row in rows])


def played(setup: Setup, executor: Any = None) -> list[tuple[ServerState, RoundRecord]]:
    executor = executor or Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    return list(server.play(setup.fed, state, executor, totals))


def prepared(home: Path, **changes: Any) -> Setup:
    return prepare_run(toy_recipe("subfedavg", **{"local__epochs": 2} | changes), home)


def test_two_prunings_by_percentile_and_their_distance() -> None:
    """10 sizes .05 .1 .2 .3 ...: position 2.7 gives .27; then 7 from .3: position 1.8 gives .48."""
    w = torch.tensor([[0.9, -0.1, 0.4, -0.7, 0.05], [0.3, -0.8, 0.2, 0.6, -0.5]])
    first = drop_percentile(w, torch.ones(2, 5, dtype=torch.bool), 30.0)
    assert torch.equal(first, bits("10110", "11011"))
    second = drop_percentile(w, first, 30.0)
    assert torch.equal(second, bits("10010", "01011"))
    assert measure_distance({"w": first}, {"w": second}) == pytest.approx(0.2)


def test_equal_weights_stay_and_an_empty_tensor_stays_empty() -> None:
    mask = torch.ones(4, dtype=torch.bool)
    assert drop_percentile(torch.tensor([0.3, -0.3, 0.3, 0.3]), mask, 90.0).all()
    assert not drop_percentile(torch.ones(4), ~mask, 10.0).any()
    assert drop_percentile(torch.zeros(4), mask, 10.0).all()


def test_the_last_step_is_smaller() -> None:
    un, hy = Options(), Options(variant="hy", target_percent=50, step_percent=50)
    assert next_percent(20.0, un) == 10.0
    assert next_percent(27.0022, un) == pytest.approx(4.1067, abs=1e-4)
    assert next_percent(21.0, replace(un, target_percent=30.0)) == 5.0, "900 / 79 is above 5"
    assert next_percent(20.0, hy) == pytest.approx(32.5), "3000 / 80 = 37.5 is above 16"
    assert next_percent(45.0, hy) == pytest.approx(500 / 55)


def test_the_share_pruned_of_lenet_with_open_gates() -> None:
    """Every tensor loses ceil((alive - 1) * p / 100) weights per step; biases never."""
    model = build("subfedavg-cifar", CIFAR, Classify(10), seed=0)
    shapes = {
        name: dict(model.named_parameters())[name].shape for name in list_maskable(model, Options())
    }
    assert sum(prod(shape) for shape in shapes.values()) == 61_770
    values = {
        name: (torch.randperm(prod(shape), generator=torch.manual_seed(0)) + 1.0).reshape(shape)
        for name, shape in shapes.items()
    }
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    rho, shares, steps = 0.0, [], []
    while rho < 30.0:
        steps.append(next_percent(rho, Options()))
        masks = {n: drop_percentile(values[n], masks[n], steps[-1]) for n in masks}
        rho = 100.0 * sum(int((~mask).sum()) for mask in masks.values()) / 62_006
        shares.append(rho)
    assert shares == pytest.approx([9.9619, 18.9304, 27.0022, 29.9874, 30.0068], abs=1e-4)
    assert steps == pytest.approx([10.0, 10.0, 10.0, 4.1067, 0.018], abs=1e-4)


def test_channels_by_the_scale_of_their_batch_norm() -> None:
    """Sorted .05 .10 .30 .45 .50 .60; index 2 of 6 is .30, index 3 is .45."""
    scales = torch.tensor([0.50, 0.10, 0.30, 0.45, 0.05, 0.60])
    assert (
        choose_above_share(scales, 0.45, 3, is_strict=True).tolist() == bits("100101")[0].tolist()
    )
    assert choose_above_share(scales, 0.5, 3, is_strict=True).all(), "only 2 would stay"
    assert (
        choose_above_share(scales, 0.45, 3, is_strict=False).tolist() == bits("101101")[0].tolist()
    )
    assert choose_above_share(scales, 0.45, 6, is_strict=True).all()
    sixteen = torch.rand(16, generator=torch.manual_seed(0))
    assert int(choose_above_share(sixteen, 0.45, 8, is_strict=True).sum()) == 8


def lenet_bn() -> tuple[nn.Module, Layout]:
    model = build("subfedavg-cifar-bn", CIFAR, Classify(10), seed=0)
    return model, trace(model, torch.zeros(1, *CIFAR))


def test_a_smaller_network_computes_what_a_masked_one_does() -> None:
    model, layout = lenet_bn()
    images = torch.randn(8, *CIFAR, generator=torch.manual_seed(0))
    model(images)
    keep = {"conv1": torch.tensor([0, 3, 4]), "conv2": torch.arange(1, 16, 2)}
    support = Support(keep)
    assert support.num_alive(layout) == 35_992
    values = {name: model.state_dict()[name] for name in layout.tensors}
    small = shrink(model, support.gather(layout, values)).eval()
    for number, kept in enumerate(keep.values(), start=1):
        norm = cast(nn.BatchNorm2d, model.get_submodule(f"norm{number}"))
        gone = torch.ones(norm.num_features, dtype=torch.bool).index_fill(0, kept, False)
        norm.weight.data[gone] = 0.0
        norm.bias.data[gone] = 0.0
    model.eval()
    assert torch.allclose(model(images), small(images), atol=1e-6)
    assert list(bn_scale(layout, values)) == ["conv1", "conv2"]
    assert list_maskable(model, Options(variant="hy")) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert "norm1.weight" in list_maskable(model, Options(mask_norms=True))


def asked(layout: Layout, options: Options, support: Support) -> ClientContext:
    site = SimpleNamespace(layout=layout)
    return cast(ClientContext, SimpleNamespace(site=site, options=options, support=support))


def test_the_two_ways_to_count_what_is_pruned() -> None:
    """The official code forgets 120 + 84 + 10 = 214 biases of 62,050 parameters under `hy`."""
    model, layout = lenet_bn()
    values = {name: model.state_dict()[name] for name in layout.tensors}
    hy = Options(variant="hy")
    masks = {n: torch.ones_like(values[n]).bool() for n in list_maskable(model, hy)}
    whole = Support()

    def rho(options: Options, support: Support = whole) -> float:
        return count_pruned_percent(asked(layout, options, whole), values, masks, support)

    assert rho(hy) == 0.0
    assert rho(replace(hy, count="official")) == pytest.approx(100 * 214 / 62_050)
    cut = Support({"conv1": torch.arange(3), "conv2": torch.arange(8)})
    assert rho(hy, cut) == pytest.approx(100 * (1 - 35_992 / 62_050))
    assert rho(Options(count="official")) == pytest.approx(100 * (236 + 22) / 62_050), "0 at start"
    masks["fc3.weight"][:, :42] = False
    assert rho(hy) == pytest.approx(100 * 420 / 62_050)


def test_bytes_of_the_unstructured_variant() -> None:
    model = build("subfedavg-cifar", CIFAR, Classify(10), seed=0)
    values = {name: x.detach() for name, x in model.named_parameters()}
    masks = {name: torch.rand(values[name].shape) < 0.7 for name in list_maskable(model, Options())}
    alive = sum(int(mask.sum()) for mask in masks.values()) + 236

    def size(mask: dict[str, Tensor], is_known: bool) -> int:
        return sum(
            p.nbytes
            for p in encode_blocks("sparse", values, mask, mask if is_known else ()).values()
        )

    assert size({}, False) == 248_024
    assert size(masks, True) == 4 * alive
    assert size(masks, False) == 4 * alive + 7_722


LAYOUT = Layout({"w": TensorSpec((2, 3), True, 1.0), "b": TensorSpec((2,), True)}, {})


def averaged(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Aggregate the two trained clients of the worked example; B has three times the samples."""
    values = {"w": torch.tensor([[1.0, 2, 3], [4, 5, 6]]), "b": torch.zeros(2)}
    trained = [
        ([[2.0, 0, 0], [1, 1, 0]], [1.0, 0], bits("100", "110"), 10),
        ([[4.0, 3, 0], [0, 3, 0]], [3.0, 2], bits("110", "010"), 30),
    ]
    answers = []
    for client, (w, b, mask, num_examples) in enumerate(trained):
        support = Support(mask={"w": mask})
        change = {"w": (torch.tensor(w) - values["w"]) * mask, "b": torch.tensor(b)}
        work = Work(change, {"w": mask}, metrics={"loss": 1.0, "rho": 5.0}, num_steps=1)
        times = Timing(1.0, 1.0, 1.0)
        answers.append(Answer(Ask(client), work, support, num_examples, Traffic(1, 1), times, 0.0))
    notes: dict[Any, Any] = {}
    ctx = prepared(tmp_path).fed.context(1, "round", lambda who, **said: notes.update({who: said}))
    ctx = replace(
        ctx, layout=LAYOUT, travels=LAYOUT, options=Options(**options),
        share_labels=lambda one, other: True,
    )  # fmt: skip
    new = SubFedAvg().aggregate(ctx, ServerState(0, values, Support(), State()), answers)
    assert torch.equal(new.method.clients[1].mask["w"], bits("110", "010"))
    assert notes[0] == {"rho": 5.0}
    assert notes[None] == {"overlap": 2 / 4, "overlap_shared_labels": 2 / 4}
    return {name: value.tolist() for name, value in new.values.items()}


def test_the_mean_is_over_holders(tmp_path: Path) -> None:
    assert averaged(tmp_path) == {"w": [[3, 3, 3], [1, 2, 6]], "b": [2, 1]}


def test_the_mean_by_samples(tmp_path: Path) -> None:
    """(2 + 3 * 4) / 4 = 3.5 and (1 + 3 * 3) / 4 = 2.5 where both hold; biases 2.5 and 1.5."""
    assert averaged(tmp_path, weights="samples") == {
        "w": [[3.5, 3, 3], [1, 2.5, 6]], "b": [2.5, 1.5],
    }  # fmt: skip


def test_the_mean_of_what_all_hold(tmp_path: Path) -> None:
    assert averaged(tmp_path, agg="all-overlap") == {"w": [[3, 2, 3], [4, 2, 6]], "b": [2, 1]}


def test_a_single_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"local.epochs is 1"):
        played(prepared(tmp_path, local__epochs=1))
    played(prepared(tmp_path, local__epochs=1, method__distance_min=-1.0, rounds=1))
    played(prepared(tmp_path, local__epochs=1, method__target_percent=0.0, rounds=1))


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong to variant hy"):
        Options(scale_l1=1e-4)
    with pytest.raises(ValueError, match="belongs to variant un"):
        Options(variant="hy", mask_norms=True)
    with pytest.raises(RecipeError, match="layers with batch norm: none"):
        played(prepared(tmp_path, method__variant="hy", task__model="digits-cnn"))
    with pytest.raises(RecipeError, match=r"layers with batch norm: \['stem'\]"):
        played(prepared(tmp_path, method__variant="hy", method__channel_floors=(3, 8)))


class Unweighted(Method):
    """FedAvg with equal weights."""

    def aggregate(self, ctx: RoundContext, state: ServerState, answers: Any) -> ServerState:
        return merge_answers(ctx, state, answers, weights=[1.0] * len(answers))


@pytest.mark.parametrize("nothing", ["target_percent", "step_percent"])
def test_without_pruning_it_is_unweighted_fedavg_bit_for_bit(nothing: str, tmp_path: Path) -> None:
    own = prepared(tmp_path / "own", **{f"method__{nothing}": 0.0})
    plain = prepare_run(toy_recipe("fedavg", local__epochs=2), tmp_path / "plain")
    plain = replace(plain, fed=replace(plain.fed, method=Unweighted()))
    ends = [played(setup)[-1][0].values for setup in (own, plain)]
    for name in own.fed.travels.tensors:
        assert torch.equal(ends[0][name], ends[1][name]), name


class Watching(Inline):
    """Keeps every message of one exchange; may lose the replies of some jobs."""

    jobs: list[bytes]
    replies: list[bytes]
    lose: Collection[int] = ()

    def run(self, jobs: Any) -> Iterator[Outcome]:
        self.jobs, self.replies = [], []
        lost, self.lose = self.lose, ()
        for outcome in super().run(self._kept(jobs)):
            assert outcome.reply is not None
            self.replies.append(outcome.reply)
            is_lost = outcome.job in lost
            yield replace(outcome, reply=None, error="lost") if is_lost else outcome

    def _kept(self, jobs: Any) -> Iterator[bytes]:
        for job in jobs:
            self.jobs.append(job)
            yield job


def next_round(setup: Setup, state: ServerState, executor: Any) -> tuple[ServerState, RoundRecord]:
    totals = server.begin_training(setup.fed, setup.values, executor)[1]
    return next(server.play(setup.fed, state, executor, totals))


@pytest.mark.parametrize("codec", ["sparse", "dense"])
def test_masks_shrink_and_travel_up_only_when_they_changed(codec: str, tmp_path: Path) -> None:
    """Look at three rounds with open gates and a target of 5 %, reached after the second.

    5 % of 72, 576, 384 and 120 weights: 4 + 29 + 20 + 6 = 59; then 0.11 % of the rest, 1 of each.
    """
    setup = prepared(tmp_path, **OPEN, wire__codec=codec, method__target_percent=5.0, eval_every=9)
    watching = Watching(setup.site)
    before, _ = server.begin_training(setup.fed, setup.values, watching)
    names = [n for n, spec in setup.fed.travels.tensors.items() if len(spec.shape) > 1]
    for number in (1, 2, 3):
        rules = replace(setup.fed.rules, rounds=number + 1)
        setup = replace(setup, fed=replace(setup.fed, rules=rules))
        state, record = next_round(setup, before, watching)
        assert record.refusals == ()
        assert not any(b"#bitmap" in job for job in watching.jobs), "no mask goes down"
        for client, reply in zip(record.clients, watching.replies, strict=True):
            old = before.method.clients.get(client.client, Sub())
            new: Sub = state.method.clients[client.client]
            assert (b"#bitmap" in reply) == bool(client.notes["accepted"])
            assert Support(old.keep, new.mask).is_within(setup.fed.layout, Support(mask=old.mask))
            alive = Support(mask=new.mask).num_alive(setup.fed.travels)
            assert client.notes["rho"] == pytest.approx(100 * (1 - alive / 1206))
            own = memory.recall(setup.site.home, client.client, "model", number + 1)
            assert all(not own[name][~mask].any() for name, mask in new.mask.items())
        clients = state.method.clients.values()
        if all(sub.mask for sub in clients):
            for name in names:
                nobody = ~torch.stack([sub.mask[name] for sub in clients]).any(0)
                assert torch.equal(state.values[name][nobody], before.values[name][nobody])
        before = state
        shares = [59 / 1206, 63 / 1206, 63 / 1206]
        assert [c.notes["rho"] for c in record.clients] == pytest.approx(
            4 * [100 * shares[number - 1]]
        )
        assert [c.notes["accepted"] for c in record.clients] == 4 * [float(number < 3)]


def test_a_lost_reply_does_not_part_server_and_client(tmp_path: Path) -> None:
    setup = prepared(tmp_path, **OPEN, wire__codec="sparse", eval_every=9, rounds=9)
    watching = Watching(setup.site)
    state, _ = server.begin_training(setup.fed, setup.values, watching)
    state, _ = next_round(setup, state, watching)
    watching.lose = (2,)
    after, record = next_round(setup, state, watching)
    assert [refusal.client for refusal in record.refusals] == [2]
    assert sorted(after.masks_held) == [0, 1, 3]
    again, record = next_round(setup, after, watching)
    assert record.refusals == ()
    assert [b"#bitmap" in job for job in watching.jobs] == [False, False, True, False]
    assert sorted(again.masks_held) == [0, 1, 2, 3]


def test_after_a_failed_attempt_everybody_gets_the_masks_again(tmp_path: Path) -> None:
    """Clients may have pruned in an attempt whose replies were lost."""
    setup = prepared(tmp_path, **OPEN, wire__codec="sparse", eval_every=9, rounds=9, min_clients=4)
    watching = Watching(setup.site)
    state, _ = server.begin_training(setup.fed, setup.values, watching)
    state, _ = next_round(setup, state, watching)
    watching.lose = (2,)
    state, record = next_round(setup, state, watching)
    assert (record.attempts, [refusal.client for refusal in record.refusals]) == (2, [2])
    assert [b"#bitmap" in job for job in watching.jobs] == 4 * [True]
    _, record = next_round(setup, state, watching)
    assert record.attempts == 1
    assert [b"#bitmap" in job for job in watching.jobs] == 4 * [False]


def test_channels_leave_for_good_and_statistics_stay_home(tmp_path: Path) -> None:
    """The toy's only group with batch norm has 8 channels, of which 8 - (int(3.6) + 1) = 4 stay."""
    setup = prepared(tmp_path, **HYBRID)
    states = played(setup)
    shapes = []
    for number, (state, record) in enumerate(states, start=1):
        assert record.refusals == ()
        for client in record.clients:
            own = memory.recall(setup.site.home, client.client, "model", number + 1)
            sub: Sub = state.method.clients[client.client]
            support = Support(sub.keep, sub.mask)
            shapes.append(support.block_shapes(setup.fed.layout)["stem.weight"][0])
            gone = [c for c in range(8) if c not in sub.keep["stem"].tolist()]
            assert not own["norm.weight"][gone].any()
            assert own["norm.running_var"][sub.keep["stem"]].ne(1.0).all()
            alive = support.num_alive(setup.fed.travels)
            assert client.notes["rho"] == pytest.approx(100 * (1 - alive / 1206))
        assert torch.equal(state.values["norm.running_var"], torch.ones(8))
    assert min(shapes) == 4
    last = states[-1]
    assert {score.num_examples for score in last[1].evaluation.clients.values()} != {0}
    assert last[1].clients[0].down_bytes < states[0][1].clients[0].down_bytes


@pytest.mark.parametrize("variant", ["un", "hy"])
def test_common_statistics_are_the_mean_over_those_who_keep_the_channel(
    variant: str, tmp_path: Path
) -> None:
    """Under `bn: global` they travel like weights, and clients start from the server's."""
    options = {**HYBRID, "method__variant": variant, "method__bn": "global", "rounds": 2}
    setup = prepared(tmp_path, **options)
    assert "norm.running_var" in setup.fed.travels.tensors
    (first, record), (second, common) = played(setup)
    assert record.refusals == common.refusals == ()
    for state, number in ((first, 2), (second, 3)):
        own = [memory.recall(setup.site.home, client, "model", number) for client in range(4)]
        kept = torch.zeros(4, 8)
        for client, sub in state.method.clients.items():
            kept[client, sub.keep.get("stem", slice(None))] = 1.0
        for name in ("norm.running_mean", "norm.running_var"):
            values = torch.stack([values[name] for values in own])
            mean = (kept * values).sum(0) / kept.sum(0)
            somebody = kept.any(0)
            assert torch.allclose(state.values[name][somebody], mean[somebody], atol=1e-6)
    assert kept.any(0).all() or variant == "hy"
    apart = prepared(tmp_path / "local", **options | {"method__bn": "local"})
    assert "norm.running_var" not in apart.fed.travels.tensors
    last, told = played(apart)[-1]
    assert torch.equal(last.values["norm.running_var"], torch.ones(8))
    assert told.clients[0].down_bytes < common.clients[0].down_bytes


def test_clients_start_a_round_from_the_common_statistics(tmp_path: Path) -> None:
    seen = []

    class Looking(SubFedAvg):
        def loss(self, cx: ClientContext, model: nn.Module, batch: Any) -> Tensor:
            seen.append((cx.round, cx.client, model.get_buffer("norm.running_mean").clone()))
            return super().loss(cx, model, batch)

    for bn in ("global", "local"):
        seen.clear()
        setup = prepared(tmp_path / bn, **OPEN, method__bn=bn, rounds=2)
        setup.site.__dict__["hooks"] = Looking()
        common = played(setup)[0][0].values["norm.running_mean"]
        starts = {}
        for round, client, mean in seen:
            starts.setdefault((round, client), mean)
        own = memory.recall(setup.site.home, 1, "model", 2)["norm.running_mean"]
        assert torch.equal(starts[2, 1], common if bn == "global" else own)
        assert not torch.equal(common, own)


def test_overlaps_of_those_with_and_without_a_label_in_common(tmp_path: Path) -> None:
    setup = prepared(tmp_path, **OPEN, task__partition__kind="shards", rounds=1)
    ((state, record),) = played(setup)
    labels = [set(setup.fed.dataset.train.labels[part].tolist()) for part in setup.parts]
    shares: dict[bool, list[float]] = {True: [], False: []}
    for one, other in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
        first, second = (state.method.clients[client].mask for client in (one, other))
        both = sum(int((first[name] & second[name]).sum()) for name in first)
        either = sum(int((first[name] | second[name]).sum()) for name in first)
        shares[bool(labels[one] & labels[other])].append(both / either)
    assert shares[True] and shares[False]
    means = {kind: sum(found) / len(found) for kind, found in shares.items()}
    assert record.notes == pytest.approx(
        {
            "overlap": sum(shares[True] + shares[False]) / 6,
            "overlap_shared_labels": means[True],
            "overlap_other_labels": means[False],
        }
    )


@pytest.mark.parametrize("options", [OPEN, HYBRID], ids=["un", "hy"])
def test_pruning_in_a_pool_or_resumed_gives_the_same_bits(options: Any, tmp_path: Path) -> None:
    inline = prepared(tmp_path / "inline", **options)
    whole = played(inline)[-1]
    pooled = prepared(tmp_path / "pool", **options)
    pool = Pool(pooled.site, 2, 60.0)
    try:
        other = played(pooled, pool)[-1]
    finally:
        pool.close()
    memory.rewind(inline.site.home, 1)
    fresh = prepared(tmp_path / "inline", **options)
    state = played(prepared(tmp_path / "first", **options))[0][0]
    data, tensors = dump_state(state.method)
    restored = replace(state, method=load_state(State, json.loads(json.dumps(data)), tensors))
    executor = Inline(fresh.site)
    _, totals = server.begin_training(fresh.fed, fresh.values, executor)
    resumed = list(server.play(fresh.fed, restored, executor, totals))[-1]
    for end in (other, resumed):
        assert all(torch.equal(whole[0].values[n], end[0].values[n]) for n in whole[0].values)
        assert [c.notes for c in whole[1].clients] == [c.notes for c in end[1].clients]
        assert whole[1].evaluation == end[1].evaluation


def context(setup: Setup, client: int, round: int) -> ClientContext:
    state = ServerState(round - 1, setup.values, Support())
    return ClientContext(setup.site, make_job(setup.fed, state, Ask(client), round))


def test_what_judges_is_never_trained_on(tmp_path: Path) -> None:
    setup = prepared(tmp_path)
    cx = context(setup, 1, 1)
    samples, judges = split_samples(cx)
    later, same = split_samples(context(setup, 1, 7))
    part = setup.parts[1]
    assert len(judges) == round(0.1 * len(part))
    assert torch.equal(judges.images, same.images)
    seen = torch.cat([images for images, _ in cx.batches(samples=samples)])
    assert len(seen) + len(judges) == len(part)
    held = setup.fed.dataset.normalise(judges.images)
    assert not any((seen == image).flatten(1).all(1).any() for image in held)
    assert torch.equal(later, samples)
    on_test = prepared(tmp_path / "test", method__gate_on="test")
    samples, judges = split_samples(context(on_test, 1, 1))
    assert len(judges) == len(on_test.site.test_parts[1])
    assert torch.equal(samples, part)


def test_clients_that_never_trained_are_judged_by_the_common_model(tmp_path: Path) -> None:
    setup = prepared(tmp_path)
    cx, later = (context(setup, 1, number) for number in (1, 2))
    assert SubFedAvg().view(cx, cx.received).keys() == cx.received.keys()
    cx.remember("model", {"out.bias": torch.ones(10)})
    viewed = SubFedAvg().view(later, cx.received)
    assert torch.equal(viewed["out.bias"], torch.ones(10))


def test_the_l1_penalty_makes_scales_smaller(tmp_path: Path) -> None:
    ends = []
    for strength in (0.0, 0.05):
        setup = prepared(
            tmp_path / str(strength), method__variant="hy", method__scale_l1=strength, rounds=1
        )
        ends.append(played(setup)[-1][0].values["norm.weight"].abs().sum())
    assert ends[1] < ends[0]
