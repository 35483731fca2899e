"""What is pruned stays silent, who has nothing left stays away, and asking is counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from torch import Tensor

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.timing import work_seconds
from fpcli.engine.types import Answer, Ask, ServerState, Timing, Traffic, Work
from fpcli.errors import ClientError, DataError, LayoutError, RecipeError
from fpcli.methods.unlearn import COUNTS, RIGHT, State, Unlearn, read_answers, sum_counts
from fpcli.scores.tfidf import measure_class_means
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.train.setup import Setup, prepare_run


def made(tmp_path: Path, **changes: Any) -> Setup:
    return prepare_run(toy_recipe("unlearn", **changes), tmp_path / "memory")


def begun(setup: Setup) -> tuple[ServerState, Any]:
    return server.begin_training(setup.fed, setup.values, Inline(setup.site), setup.support)


def test_pruned_channels_stay_silent_through_training(tmp_path: Path) -> None:
    setup = made(tmp_path, method__ratio=0.4, method__scope="global", rounds=2)
    state, totals = begun(setup)
    (scored,) = state.method.classes
    assert {layer: len(x) for layer, x in scored.scores.items()} == {"stem": 8, "branch": 8}
    assert sum(len(channels) for channels in scored.pruned.values()) == 6  # of 16
    for new, _ in server.play(setup.fed, state, Inline(setup.site), totals):
        state = new
    model = shrink(setup.fed.template, state.support.gather(setup.fed.layout, state.values))
    keep = state.support.keep.get("stem", torch.arange(8)).tolist()
    x = torch.randn(4, 1, 8, 8)
    seen = 0
    for is_training in (True, False):
        model.train(is_training)
        stem = model.norm(model.stem(x))  # type: ignore[operator]
        outs = {"stem": stem, "branch": model.branch(torch.relu(stem))}  # type: ignore[operator]
        for layer, channels in scored.pruned.items():
            for channel in set(channels.tolist()) & set(keep):
                assert not bool(outs[layer][:, keep.index(channel)].any())
                seen += 1
        assert bool(outs["stem"].any())
    assert seen > 0


def test_scores_are_those_of_all_data_in_one_place(tmp_path: Path) -> None:
    setup = made(tmp_path, task__withhold=(3,))
    (scored,) = begun(setup)[0].method.classes
    model = shrink(setup.fed.template, {k: v.clone() for k, v in setup.values.items()})
    data = setup.fed.dataset
    everything = [(data.normalise(data.train.images), data.train.labels)]
    expected = measure_class_means(model, everything, 10)
    for layer, value in expected.activations.items():
        assert torch.allclose(scored.activations[layer], value, atol=1e-5)
    assert scored.target == 3


def test_asking_is_traffic_and_time_of_all_samples(tmp_path: Path) -> None:
    asked, silent = made(tmp_path), made(tmp_path, method__ratio=0.0)
    totals, nothing = begun(asked)[1], begun(silent)[1]
    assert (nothing.up_bytes, nothing.down_bytes, nothing.clock_s) == (0, 0, 0)
    assert totals.up_bytes > 4 * (16 * 10 * 4 + 10 * 4)
    assert totals.down_bytes > 4 * sum(4 * x.numel() for x in asked.values.values())
    seeing = Ask(0, "score-000", sees_withheld=True)
    blind = dataclasses.replace(seeing, sees_withheld=False)
    times = [work_seconds(asked.fed, x, 0, 0, 0)[0] for x in (seeing, blind)]
    num, more = asked.fed.num_examples[0], asked.fed.num_withheld[0]
    assert more > 0
    assert times[0] / times[1] == pytest.approx((num + more) / num)


def test_ratio_0_changes_nothing(tmp_path: Path) -> None:
    setup = made(tmp_path, method__ratio=0.0)
    state, _ = begun(setup)
    assert all(torch.equal(state.values[name], x) for name, x in setup.values.items())
    assert (state.support.keep, state.support.mask) == ({}, {})


def test_classes_are_forgotten_one_after_the_other(tmp_path: Path) -> None:
    setup = made(tmp_path, task__withhold=(5, 2), method__ratio=0.2, method__scope="global")
    state, _ = begun(setup)
    first, second = state.method.classes
    assert (first.target, second.target) == (5, 2)
    for layer, channels in first.pruned.items():
        assert not set(channels.tolist()) & set(second.pruned[layer].tolist())
        assert not bool(second.activations[layer][:, channels].any())
    assert sum(len(x) for one in (first, second) for x in one.pruned.values()) == 6
    assert not torch.equal(first.activations["branch"], second.activations["branch"])


def test_the_second_question_is_about_the_model_without_the_first_class(tmp_path: Path) -> None:
    options: dict[str, Any] = {"method__ratio": 0.4, "method__scope": "layer"}
    _, one = begun(made(tmp_path, task__withhold=(5,), **options))
    state, both = begun(made(tmp_path, task__withhold=(5, 2), **options))
    assert state.support.keep  # channels that are gone do not travel
    assert one.down_bytes < both.down_bytes < 2 * one.down_bytes


def test_clients_count_what_is_right_before_after_pruning_and_at_the_end(tmp_path: Path) -> None:
    setup = made(tmp_path, method__counts_right=True, rounds=2, eval_every=2)
    state, totals = begun(setup)
    silent = begun(made(tmp_path))[1]
    assert totals.down_bytes > 1.5 * silent.down_bytes  # one more question
    before, pruned = state.method.told
    labels = setup.fed.dataset.train.labels
    model = shrink(setup.fed.template, {k: v.clone() for k, v in setup.values.items()}).eval()
    hits = model(setup.fed.dataset.normalise(setup.fed.dataset.train.images)).argmax(1) == labels
    assert before.tolist() == [labels[hits].bincount(minlength=10).tolist(),
                               labels.bincount(minlength=10).tolist()]  # fmt: skip
    assert before[1].tolist() == pruned[1].tolist()
    played = list(server.play(setup.fed, state, Inline(setup.site), totals))
    assert [len(state.method.told) for state, _ in played] == [2, 3]
    assert played[1][1].down_bytes > played[0][1].down_bytes


def test_counts_that_cannot_be_do_not_count() -> None:
    good = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    wrong = [-good, good.flip(0), good[:1], torch.ones(2, 3), torch.tensor(1)]
    wrong += [good.float(), good > 0, torch.ones(2, 0, dtype=torch.int32)]
    # It has ten samples: more of one class, more in all, and so many that their sum is none.
    wrong += [torch.tensor([[1, 2], [3, 8]]), torch.tensor([[0, 0], [11, 0]])]
    wrong += [torch.tensor([[0, 0, 0, 0], [2**62] * 4])]
    answers = [answer(**{RIGHT: x}) for x in [good, *wrong, good]]
    assert sum_counts([answer(), *answers]).tolist() == [[2, 4], [6, 8]]
    with pytest.raises(ClientError, match="no client's count"):
        sum_counts([answer()])


def test_a_share_that_is_still_to_be_found(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="auto` is no share yet"):
        begun(made(tmp_path, method__ratio="auto"))


def test_a_client_without_a_single_sample_says_nothing(tmp_path: Path) -> None:
    empty = told({COUNTS: torch.zeros(10, dtype=torch.int32)}, 0)
    layout = made(tmp_path).fed.layout
    for answers in ([empty, answer()], [answer(), empty]):
        assert len(read_answers(layout, answers)[0]) == 1


def test_a_client_with_nothing_left_does_not_take_part(tmp_path: Path) -> None:
    shards = {"task__partition__kind": "shards", "task__partition__shards_per_client": 1}
    setup = made(tmp_path, task__clients=20, **shards, task__withhold=(0,), rounds=1)
    empty = [client for client, number in enumerate(setup.fed.num_examples) if not number]
    assert empty
    state, totals = begun(setup)
    _, record = next(server.play(setup.fed, state, Inline(setup.site), totals))
    assert not set(empty) & set(record.cohort)
    assert len(record.cohort) == 20 - len(empty)
    assert record.evaluation is not None
    assert record.evaluation.withheld is not None
    counted = record.evaluation.withheld.num_examples + record.evaluation.test.num_examples
    assert counted == len(prepare_run(toy_recipe("fedavg"), tmp_path).fed.dataset.test)


def told(tensors: dict[str, Tensor], num_examples: int) -> Answer:
    ask = Ask(0, "score-000", sees_withheld=True)
    times, traffic = Timing(0.0, 0.0, 0.0), Traffic(1, 1)
    return Answer(ask, Work(tensors), ask.support, num_examples, traffic, times, 0.0)


def answer(**tensors: Tensor) -> Answer:
    good = {
        "stem>norm": torch.ones(10, 8),
        "branch>": torch.ones(10, 8),
        COUNTS: torch.ones(10, dtype=torch.int32),
    }
    return told({**good, **tensors}, 10)


def test_answers_that_do_not_fit_do_not_count(tmp_path: Path) -> None:
    wrong = [
        {"stem>norm": torch.ones(10, 7)},
        {"stem>norm": torch.full((10, 8), torch.nan)},
        {COUNTS: torch.ones(1, 1)},
        {COUNTS: torch.ones(10)},
        {COUNTS: torch.full((10,), 2)},
        {"other>": torch.ones(10, 8)},
    ]
    answers = [answer(), *(answer(**one) for one in wrong), answer()]
    means, norms = read_answers(made(tmp_path).fed.layout, answers)
    assert len(means) == 2
    assert norms == {"stem": "norm"}


def test_a_class_that_nobody_has(tmp_path: Path) -> None:
    setup = made(tmp_path)
    counts = torch.ones(10, dtype=torch.int32)
    counts[0] = 0
    ctx = setup.fed.context(0, "start", lambda *_, **__: None)
    state = ServerState(0, setup.values, Support(), State())
    with pytest.raises(DataError, match="no client holds a sample of class 0"):
        Unlearn().absorb(ctx, state, [answer(**{COUNTS: counts})])


def test_a_network_without_convolutions(tmp_path: Path) -> None:
    nothing = told({COUNTS: torch.ones(10)}, 5)
    with pytest.raises(LayoutError, match="no convolution"):
        read_answers(made(tmp_path).fed.layout, [nothing])
