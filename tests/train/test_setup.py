from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe
from driver import begin, digits_file

from fpcli import plugins
from fpcli.errors import FpError, LayoutError, RecipeError
from fpcli.tasks.regress import Regress
from fpcli.train.setup import prepare_run

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize("method", sorted({*plugins.list_names("methods")} - {"unlearn"}))
def test_every_method_trains_on_a_table(tmp_path: Path, method: str) -> None:
    # Of fedduap's halves one is for convolutions only.
    whole = {"method__prune_round": 0} if method == "fedduap" else {}
    summary = begin(
        tmp_path,
        "run",
        method,
        task__data="breast-cancer",
        task__model="tabular-mlp",
        local__batch_size=16,
        rounds=2,
        **whole,
    )
    assert summary.params <= 4130
    assert 0.3 < summary.test["accuracy"] <= 1


def test_a_cohort_is_of_clients_with_samples(tmp_path: Path) -> None:
    """Of eight clients one holds nothing but withheld classes."""
    changes = {
        "task__clients": 8,
        "task__partition__kind": "shards",
        "task__withhold": (0, 1, 2),
        "task__data": digits_file(tmp_path),
    }
    fed = prepare_run(toy_recipe("fedavg", **changes, min_clients=7), tmp_path).fed
    assert fed.num_examples.count(0) == 1
    assert fed.rules.clients_per_round == 7
    text = "`min_clients` is 8, but a round has 7 clients: 1 of 8 have no training samples"
    with pytest.raises(RecipeError, match=text) as caught:
        prepare_run(toy_recipe("fedavg", **changes, min_clients=8), tmp_path)
    assert caught.value.hint == "lower min_clients"


def test_the_server_has_what_no_client_has(tmp_path: Path) -> None:
    changes = {"task__data": digits_file(tmp_path), "fleet__server": "slow"}
    whole = prepare_run(toy_recipe("fedavg", **changes), tmp_path)
    assert whole.fed.server_side.num_examples == 0
    setup = prepare_run(toy_recipe("fedavg", **changes, task__server_share=0.2), tmp_path)
    server, train = setup.fed.server_side, setup.fed.dataset.train
    assert server.num_examples == round(0.2 * len(train))
    everything = torch.cat([*setup.parts, server.indices]).sort().values
    assert everything.equal(torch.arange(len(train)))
    counts = train.labels.bincount()
    assert ((server.label_counts - 0.2 * counts).abs() < 1).all()
    assert (server.seed, server.level.name, server.round) == (7, "slow", 0)
    for part in ("validation", "test"):
        ours, theirs = (getattr(one.fed.dataset, part) for one in (setup, whole))
        assert ours.labels.equal(theirs.labels) and ours.images.equal(theirs.images)


def test_unlearn_needs_convolutions(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no convolution whose channels could be scored"):
        begin(
            tmp_path, "run", "unlearn", task__data="breast-cancer", task__model="tabular-mlp",
            rounds=1,
        )  # fmt: skip


REGRESSION: dict[str, object] = {
    "task__data": "diabetes", "task__model": "mlp-reg", "local__batch_size": 16,
    "task__partition__kind": "iid",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"target": "acc=0.9"}, "`accuracy` is no metric of data `diabetes`", "mae, r2"),
        ({"method__name": "subfedavg"}, "`subfedavg`.* learns classes only", "another method"),
        ({"task__partition__kind": "dirichlet"}, "task.partition.kind is `dirichlet`", "quantity"),
        ({"task__withhold": (1,)}, "no class can be withheld", ""),
        ({"task__kind": "classify"}, "task.kind is `classify`", "leave task.kind"),
        ({"task__sampled_negatives": 9}, "task.sampled_negatives is 9", "`rank`"),
        ({"task__data": "digits", "task__model": "lenet5", "task__loss": "l1"}, "task.loss", ""),
    ],
)  # fmt: skip
def test_what_the_data_does_not_learn_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str, hint: str
) -> None:
    recipe = toy_recipe("fedavg", **REGRESSION | changes)
    with pytest.raises(FpError, match=message) as caught:
        prepare_run(recipe, tmp_path)
    assert hint in caught.value.hint


def test_a_run_learns_what_its_data_says_by_the_loss_of_its_recipe(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("fedavg", **REGRESSION, task__loss="l1"), tmp_path)
    task = setup.fed.dataset.task
    assert isinstance(task, Regress)
    assert (task.loss_name, task.num_outputs) == ("l1", 1)
    labels = torch.cat([setup.fed.dataset.train.labels, setup.fed.dataset.validation.labels])
    assert task.mean == pytest.approx(float(labels.mean()), rel=1e-6)
    assert setup.trained(setup.values, setup.support).task == task
