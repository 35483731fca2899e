"""HeteroFL's arithmetic by hand-made numbers, and its rounds against FedAvg and plain torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from torch import Tensor, nn
from torch.nn import functional

from fpcli.data.batches import batches
from fpcli.engine import server
from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.planning import foresee
from fpcli.errors import RecipeError
from fpcli.methods.heterofl import (
    HeteroFL,
    Options,
    assign_level,
    draw_level,
    find_class_tensors,
    keep_own_rows,
    parse_levels,
    scale_outputs,
)
from fpcli.models.build import build
from fpcli.rng import stream
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.merge import Contribution, merge
from fpcli.structure.patterns import keep_window
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify, mask_foreign_logits
from fpcli.train.setup import Setup, prepare_run


def played(tmp_path: Path, method: str = "heterofl", **changes: Any) -> tuple[Setup, Any, Any]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / method)
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    rounds = list(server.play(setup.fed, state, executor, totals))
    return setup, rounds[-1][0], [record for _, record in rounds]


def test_levels_are_read_from_a_text() -> None:
    assert parse_levels("a1-b1-e3") == [("a", 1), ("b", 1), ("e", 3)]
    options = Options(levels="b1-e3")
    assert (options.largest, options.rate("e")) == (0.5, 0.0625)
    assert Options(levels="b1", shrink=0.25).largest == 0.25


@pytest.mark.parametrize("levels", ["", "a", "a0", "1a", "a1-", "a1,b1", "A1", "a1-b1-a2"])
def test_impossible_levels_are_refused(levels: str) -> None:
    with pytest.raises(ValueError, match="levels"):
        Options(levels=levels)


def test_fixed_levels_stand_in_blocks_and_the_remainder_has_the_last() -> None:
    """a2-b8 with 103 clients: blocks of 10, so 20 clients at a, 80 at b, and 3 left over at b."""
    levels = [assign_level("a2-b8", client, 103) for client in range(103)]
    assert levels == ["a"] * 20 + ["b"] * 83
    with pytest.raises(RecipeError, match="need at least 10 clients, there are 9"):
        assign_level("a2-b8", 0, 9)


def test_drawn_levels_follow_the_proportions() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn = [draw_level("a1-b1-e2", rng) for _ in range(2000)]
    assert drawn.count("a") / 2000 == pytest.approx(0.25, abs=0.03)
    assert drawn.count("e") / 2000 == pytest.approx(0.5, abs=0.03)


def test_the_loss_with_own_logits_only() -> None:
    """Logits (2, -1, .5), classes 0 and 1 of the client, target 0: softmax of (2, -1, 0)."""
    logits = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    own = torch.tensor([True, True, False])
    loss = functional.cross_entropy(mask_foreign_logits(logits, own), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.169846, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-0.156205, 0.042010, 0.0], abs=1e-6)


def test_scaler_divides_hidden_layers_only_and_leaves_nothing_behind() -> None:
    """Two hidden layers at 1/4 make 1 * 4 * 4 = 16; the output layer is not scaled."""
    layers = [nn.Linear(1, 1, bias=False) for _ in range(3)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    for layer in layers:
        nn.init.ones_(layer.weight)
    one = torch.ones(1, 1)
    with scale_outputs(model, 0.25, but={"4"}):
        assert model(one).item() == 16.0
    with pytest.raises(RuntimeError), scale_outputs(model, 0.25):
        model(torch.ones(1, 2))
    assert model(one).item() == 1.0


def vector(width: int) -> tuple[Layout, str]:
    member = Member("x", 0, torch.arange(width).reshape(width, 1))
    return Layout({"x": TensorSpec((width,), True)}, {"g": Group("g", width, (member,))}), "x"


def averaged(old: Tensor, clients: list[tuple[float, list[float]]]) -> list[float]:
    layout, name = vector(len(old))
    contributions = []
    for share, sent in clients:
        support = Support(keep_window(layout, share))
        received = support.gather(layout, {name: old})[name]
        contributions.append(Contribution(support, {name: torch.tensor(sent) - received}, 1.0))
    return merge(layout, {name: old}, contributions, absent="skip")[name].tolist()


def test_a_parameter_is_averaged_over_its_holders_or_kept() -> None:
    """Widths 4, 2, 1: (1 + 3 + 8) / 3, (2 + 6) / 2, 3, 4; without the first (3 + 8) / 2, 6, old."""
    old = torch.tensor([10.0, 20.0, 30.0, 40.0])
    a, b, c = (1.0, [1.0, 2.0, 3.0, 4.0]), (0.5, [3.0, 6.0]), (0.25, [8.0])
    assert averaged(old, [a, b, c]) == pytest.approx([4, 4, 3, 4])
    assert averaged(old, [b, c]) == pytest.approx([5.5, 6, 30, 40])


OUTPUT = Layout(
    {
        "hidden.weight": TensorSpec((3, 5), True, 1.0),
        "fc.weight": TensorSpec((3, 3), True, 1.0),
        "fc.bias": TensorSpec((3,), True),
    },
    {
        "hidden": Group(
            "hidden",
            3,
            (
                Member("hidden.weight", 0, torch.arange(3)[:, None], produces=True),
                Member("fc.weight", 1, torch.arange(3)[:, None]),
            ),
        ),
        "fc": Group(
            "fc",
            3,
            (
                Member("fc.weight", 0, torch.arange(3)[:, None], produces=True),
                Member("fc.bias", 0, torch.arange(3)[:, None]),
            ),
            protected=True,
        ),
    },
)


def test_rows_of_classes_count_for_their_owners_only() -> None:
    """Old bias 0; labels {0, 2} send 1, labels {2} send 3: (1, kept 0, (1 + 3) / 2)."""
    assert find_class_tensors(OUTPUT, 3) == ["fc.weight", "fc.bias"]
    assert find_class_tensors(OUTPUT, 4) == []
    values = {name: torch.zeros(spec.shape) for name, spec in OUTPUT.tensors.items()}
    contributions = []
    for labels, sent in (([0, 2], 1.0), ([2], 3.0)):
        own = torch.zeros(3, dtype=torch.bool)
        own[labels] = True
        support = keep_own_rows(OUTPUT, Support({"hidden": torch.tensor([0, 1])}), own)
        delta = {k: torch.full_like(v, sent) for k, v in support.gather(OUTPUT, values).items()}
        contributions.append(Contribution(support, delta, 1.0))
    new = merge(OUTPUT, values, contributions, absent="skip")
    assert new["fc.bias"].tolist() == [1, 0, 2]
    assert new["fc.weight"].tolist() == [[1, 1, 0], [0, 0, 0], [2, 2, 0]]
    assert new["hidden.weight"][:, 0].tolist() == [2, 2, 0]


def test_who_owns_every_class_has_no_mask() -> None:
    support = Support({"hidden": torch.tensor([0])})
    assert keep_own_rows(OUTPUT, support, torch.ones(3, dtype=torch.bool)) is support
    assert keep_own_rows(OUTPUT, support, None) is support


@pytest.mark.parametrize("kind", ["prefix", "roll", "random"])
def test_unchanged_copies_give_the_global_model_back(kind: str, tmp_path: Path) -> None:
    setup, state, _ = played(tmp_path, local__lr=0.0, method__window=kind)
    for name in setup.fed.travels.tensors:
        assert torch.equal(state.values[name], setup.values[name]), name


def test_equal_widths_with_all_classes_are_fedavg_bit_for_bit(tmp_path: Path) -> None:
    same = {"task__partition__kind": "iid", "local__clip_norm": 1.0}
    _, plain, _ = played(tmp_path, "fedavg", **same)
    setup, ours, records = played(
        tmp_path, method__levels="a1", method__weighting="samples", **same
    )
    assert all(bool(own.all()) for own in ours.method.classes.values())
    for name in setup.fed.travels.tensors:
        assert torch.equal(plain.values[name], ours.values[name]), name
    assert {client.notes["level"] for client in records[-1].clients} == {"a"}


def test_levels_and_windows_of_a_round(tmp_path: Path) -> None:
    options = {"method__levels": "b1-c1", "method__mode": "fix", "method__window": "roll"}
    setup, state, records = played(tmp_path, **options)
    fed = setup.fed
    notes = [client.notes for client in records[0].clients]
    assert [n["level"] for n in notes] == ["b", "b", "c", "c"]
    assert [n["width"] for n in notes] == [1.0, 1.0, 0.5, 0.5]
    assert state.support.keep["stem"].tolist() == [0, 1, 2, 3]
    starts = []
    for number in range(1, 6):
        wide, _, _, narrow = foresee(fed, state, number)
        assert narrow.note == {"width": 0.5}
        assert wide.support.keep["hidden"].tolist() == list(range(6))
        starts.append(narrow.support.keep["stem"].tolist())
    assert starts == [[0, 1], [1, 2], [2, 3], [0, 3], [0, 1]]


def test_random_windows_differ_between_clients(tmp_path: Path) -> None:
    recipe = toy_recipe("heterofl", method__levels="a1-b9", method__window="random")
    setup = prepare_run(recipe, tmp_path)
    fed = setup.fed
    state, _ = server.begin_training(fed, setup.values, Inline(setup.site))
    keeps = [ask.support.keep.get("hidden") for ask in foresee(fed, state, 1)]
    drawn = {tuple(keep.tolist()) for keep in keeps if keep is not None}
    assert len(drawn) > 1
    assert {len(keep) for keep in drawn} == {6}


def test_the_server_learns_the_classes_before_the_first_round(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("heterofl", task__partition__kind="shards"), tmp_path)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    labels = setup.fed.dataset.train.labels
    for client, part in enumerate(setup.parts):
        own = state.method.classes[client].nonzero().flatten()
        assert torch.equal(own, labels[part].unique())
    whole = 4 * sum(value.numel() for value in setup.values.values())
    assert totals.down_bytes < 4 * whole
    _, state, _ = played(tmp_path, method__class_rows="all", rounds=1)
    assert state.method is None


def test_rows_of_a_class_that_nobody_has_stay_as_they_were(tmp_path: Path) -> None:
    changes = {"task__partition__kind": "shards", "clients_per_round": 1, "rounds": 1}
    setup, state, records = played(tmp_path, **changes)
    own = state.method.classes[records[0].cohort[0]]
    assert 0 < int(own.sum()) < 10
    for name in ("out.weight", "out.bias"):
        moved = (state.values[name] != setup.values[name]).reshape(10, -1).any(1)
        assert torch.equal(moved, own), name


@pytest.mark.parametrize("is_pooled", [False, True])
def test_batch_norm_statistics_are_those_of_the_merged_model(
    is_pooled: bool, tmp_path: Path
) -> None:
    """Push every client's batches through a copy of the stem and collect by hand."""
    changes = {"method__pooled_var": is_pooled, "executor__channels_last": False}
    setup, state, _ = played(tmp_path, rounds=1, **changes)
    data = setup.fed.dataset
    model = build("nets:tiny", data.input_shape, data.task, seed=7, allow_code=True)
    model.load_state_dict({**model.state_dict(), **state.values})
    seen = []
    for client, part in enumerate(setup.parts):
        order = stream(7, "client/batches/0", 1, client)
        for x, _ in batches(data.train, part, data.normalise, batch_size=64, generator=order):
            seen.append(model.stem(x).detach().transpose(0, 1).flatten(1))
    if is_pooled:
        mean, var = torch.cat(seen, 1).mean(1), torch.cat(seen, 1).var(1)
    else:
        mean = torch.stack([x.mean(1) for x in seen]).mean(0)
        var = torch.stack([x.var(1) for x in seen]).mean(0)
    assert torch.allclose(state.values["norm.running_mean"], mean, atol=1e-5)
    assert torch.allclose(state.values["norm.running_var"], var, atol=1e-5)


def test_clients_judge_the_model_with_its_statistics_and_at_its_width(tmp_path: Path) -> None:
    """A client with all classes judges the whole test set, as the server does."""
    changes = {"task__partition__kind": "iid", "eval_clients": True, "method__levels": "b1-c1"}
    _, state, records = played(tmp_path, **changes)
    evaluation = records[-1].evaluation
    assert state.values["norm.running_mean"].abs().max() > 0.01
    assert len(evaluation.clients) == 4
    for score in evaluation.clients.values():
        assert score.metrics["accuracy"] == evaluation.test.metrics["accuracy"]
        assert score.loss == pytest.approx(evaluation.test.loss)


def test_local_accuracy_is_that_of_the_global_model_with_each_clients_own_logits(
    tmp_path: Path,
) -> None:
    """Count right predictions by hand, with the logits of classes that a client lacks at 0."""
    changes = {"task__partition__kind": "shards", "eval_clients": True, "rounds": 2}
    setup, state, records = played(tmp_path, executor__channels_last=False, **changes)
    data, scores = setup.fed.dataset, records[-1].evaluation.clients
    model = build("nets:tiny", data.input_shape, data.task, seed=7, allow_code=True)
    model.load_state_dict({**model.state_dict(), **state.values})
    logits, labels = model.eval()(data.normalise(data.test.images)).detach(), data.test.labels
    for client, part in enumerate(setup.parts):
        own = data.train.labels[part].unique().tolist()
        mine = [place for place, label in enumerate(labels.tolist()) if label in own]
        foreign = [label for label in range(10) if label not in own]
        alone = logits.index_fill(1, torch.tensor(foreign), 0.0)
        for found, said in (
            (logits, scores[client].metrics["accuracy"]),
            (alone, scores[client].metrics["local_accuracy"]),
        ):
            right = (found[mine].argmax(1) == labels[mine]).double().mean()
            assert said == pytest.approx(float(right))
    assert any(
        score.metrics["local_accuracy"] != score.metrics["accuracy"] for score in scores.values()
    )


def test_the_smallest_client_gets_and_sends_26376_bytes_of_tensors(tmp_path: Path) -> None:
    _, _, records = played(
        tmp_path, rounds=1, task__model="hetero-cnn", method__levels="a1-e1", method__mode="fix"
    )
    small = records[0].clients[-1]
    assert small.params == 6594
    for sent in (small.down_bytes, small.up_bytes):
        assert 0 < sent - 26376 < 3000


@pytest.mark.parametrize(("is_scaled", "is_masked"), [(True, True), (False, True), (True, False)])
def test_the_training_loss_layer_by_layer(is_scaled: bool, is_masked: bool, tmp_path: Path) -> None:
    """Every hidden layer is divided by the width, logits of absent classes are 0."""
    setup = prepare_run(
        toy_recipe("heterofl", task__model="digits-cnn", task__partition__kind="shards"), tmp_path
    )
    options = Options(scaler=is_scaled, masked_loss=is_masked)
    own = setup.fed.classes[1]
    cx: Any = SimpleNamespace(
        site=setup.site, own_classes=own, note={"width": 0.25}, options=options
    )
    model = build("digits-cnn", (1, 8, 8), Classify(10), seed=0)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = setup.fed.dataset.train.labels[setup.parts[1]]
    y = labels[:6]
    h: Tensor = x
    for name, layer in model.named_children():
        h = layer(h)
        if is_scaled and name in ("conv1", "conv2", "fc1"):
            h = h * 4
    if is_masked:
        for label in set(range(10)) - set(labels.tolist()):
            h[:, label] = 0
    want = functional.cross_entropy(h, y)
    assert HeteroFL().loss(cx, model, (x, y)).item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_a_round_averages_over_holders_and_owners(weighting: str, tmp_path: Path) -> None:
    """Sum and count every trained value in dense coordinates by hand."""
    recipe = toy_recipe(
        "heterofl", method__weighting=weighting, method__levels="b1-c1-e2", method__mode="fix"
    )
    setup = prepare_run(recipe, tmp_path)
    fed, executor = setup.fed, Inline(setup.site)
    state, _ = server.begin_training(fed, setup.values, executor)
    answers = exchange(fed, state, foresee(fed, state, 1), executor, round=1).answers
    assert len(answers) == 4
    ctx = fed.context(1, "round", lambda *_, **__: None)
    new = fed.method.aggregate(ctx, state, answers)
    for name, old in setup.values.items():
        total, count = torch.zeros_like(old), torch.zeros_like(old)
        if name not in fed.travels.tensors:
            assert torch.equal(new.values[name], old)
            continue
        for answer in answers:
            weight = answer.num_examples if weighting == "samples" else 1
            values, held = answer.support.scatter(fed.layout, answer.work.values)
            share = held[name] * weight
            if name.startswith("out."):
                own = state.method.classes[answer.ask.client]
                share = share * own.reshape(-1, *[1] * (old.dim() - 1))
            total += values[name] * share
            count += share
        assert not bool((count > 0).all()) or name.startswith("out.")
        want = old + torch.where(count > 0, total / count.clamp(min=1), 0.0)
        assert torch.allclose(new.values[name], want, atol=1e-6), name
