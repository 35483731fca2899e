from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exports import narrow, whole
from nets import shuffled
from safetensors.torch import save_file

from fpcli.engine import memory
from fpcli.errors import DataError, LayoutError, RecipeError, ResumeError, UsageError
from fpcli.export.source import ExportSource, read_final_model, read_round_models
from fpcli.recipe.load import digest_recipe, load_recipe
from fpcli.store import checkpoint
from fpcli.store.model_folder import write_trained
from fpcli.structure.cost import count_cost
from fpcli.train.setup import prepare_run

RunOf = Callable[[str], Path]
CODE = {"task.model": "nets:tiny"}


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


@pytest.mark.parametrize("name", ["fedmp", "fit"])
def test_the_final_model_of_either_kind_of_run(run_of: RunOf, name: str) -> None:
    source = read_final_model(run_of(name), code="nets:tiny")
    assert (source.name, source.about["run"], source.about["seed"]) == ("model", name, 7)
    assert source.about.get("method") == (None if name == "fit" else name)
    assert source.about["round"] == (1 if name == "fit" else 2)
    inputs = source.trained.inputs
    assert inputs is not None
    assert inputs.class_names == tuple(map(str, range(10)))
    assert 0 < inputs.mean[0] < 1


def test_the_model_of_a_bare_folder(tmp_path: Path) -> None:
    write_trained(tmp_path, narrow("digits-cnn"))
    source = read_final_model(tmp_path)
    assert source.about == {"run": tmp_path.name}
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(source.trained.module()(x), narrow("digits-cnn").module()(x))


def test_a_network_that_cannot_be_traced_is_exported_whole(tmp_path: Path) -> None:
    write_trained(tmp_path, whole("digits-cnn"))
    text = (tmp_path / "layout.json").read_text().replace('"digits-cnn"', '"nets:shuffled"')
    (tmp_path / "layout.json").write_text(text)
    model = shuffled((1, 8, 8), 10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    source = read_final_model(tmp_path, code="nets:shuffled")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(source.trained.module()(x), model.eval()(x))
    with pytest.raises(LayoutError, match="no channels that may leave"):
        source.cut(0.5)


def test_the_last_round_is_the_final_model_and_earlier_ones_differ(run_of: RunOf) -> None:
    folder = run_of("fedmp")
    final = read_final_model(folder, code="nets:tiny").trained.values
    for round, is_final in ((2, True), (1, False), (None, True)):
        (source,), absent = read_round_models(folder, round=round, flags=CODE)
        assert not absent
        assert source.about["round"] == (round or 2)
        assert source.name == f"round{round or 2:05d}"
        values = source.trained.values
        assert is_final == all(torch.equal(values[name], x) for name, x in final.items())


def test_a_client_gets_what_the_next_plan_says_of_it(run_of: RunOf) -> None:
    """The plan is made here by hand, with the method's own hook."""
    folder = run_of("fedmp")
    sources, _ = read_round_models(folder, round=1, clients=None, flags=CODE)
    assert [source.name for source in sources] == [f"client00{k}-round00001" for k in range(4)]
    recipe = load_recipe(folder / "recipe.yaml", flags=CODE)
    setup = prepare_run(recipe, folder / "memory")
    state, _, _ = checkpoint.load_newest(
        folder, method_state=setup.fed.method.State, digest=digest_recipe(recipe), round=1
    )
    ctx = replace(setup.fed.context(2, "round", lambda *_, **__: None), cohort=(0, 1, 2, 3))
    for ask, source in zip(setup.fed.method.plan(ctx, state), sources, strict=True):
        wanted = ask.support.gather(setup.fed.layout, state.values)
        found = source.trained.module().state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        about = source.about
        assert (about["client"], about["round"], about["plan_of_round"]) == (ask.client, 1, 2)
        assert about["ratio"] == ask.record["ratio"]
    assert len({count_cost(s.trained.layout, s.trained.support).params for s in sources}) > 1


def test_a_personal_model_is_the_one_that_its_client_predicts_with(run_of: RunOf) -> None:
    folder = run_of("subfedavg")
    (source,), _ = read_round_models(folder, clients=(2,), flags=CODE)
    own = memory.recall(folder / "memory", 2, "model", 3)
    trained = source.trained
    dense = trained.support.scatter(trained.layout, trained.module().state_dict())[0]
    assert all(torch.equal(dense[name], value) for name, value in own.items())
    alive = trained.support.count(trained.layout)
    weights = [name for name, x in own.items() if x.dim() > 1]
    assert all(alive[name] == int((own[name] != 0).sum()) for name in weights)
    # Batch norm's statistics never leave a client.
    assert "norm.running_mean" in own


def test_a_client_without_training_samples_has_no_model(run_of: RunOf) -> None:
    folder = run_of("fedprox")
    sources, absent = read_round_models(folder, clients=None, flags=CODE)
    assert absent == [0]
    assert [source.about["client"] for source in sources] == list(range(1, 8))
    with pytest.raises(DataError, match="client 0 has no model of its own") as caught:
        read_round_models(folder, clients=(0,), flags=CODE)
    assert caught.value.hint.startswith("it has no training samples, ")


def test_clients_without_a_model_of_their_own(run_of: RunOf, tmp_path: Path) -> None:
    folder = copy(run_of("local-only"), tmp_path)
    sources, absent = read_round_models(folder, clients=None, flags=CODE)
    known = [source.about["client"] for source in sources]
    assert len(known) == 2
    assert sorted([*known, *absent]) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=f"client {absent[0]} has no model of its own"):
        read_round_models(folder, clients=(absent[0],), flags=CODE)
    with pytest.raises(DataError, match="has no model of its own after round 0"):
        read_round_models(folder, round=0, clients=(known[0],), flags=CODE)
    for path in (folder / "memory").glob("client-*/*"):
        path.write_bytes(b"x" * 20)
    with pytest.raises(DataError, match="cannot be read"):
        read_round_models(folder, clients=(known[0],), flags=CODE)
    shutil.rmtree(folder / "memory")
    with pytest.raises(DataError, match="no model of its own") as caught:
        read_round_models(folder, clients=None, flags=CODE)
    assert "memory is gone" in caught.value.hint


def test_what_is_not_there_is_said_with_what_is(run_of: RunOf, tmp_path: Path) -> None:
    folder = run_of("fedmp")
    with pytest.raises(UsageError, match="no checkpoint of round 7") as caught:
        read_round_models(folder, round=7, flags=CODE)
    assert "there is: 1, 2" in caught.value.hint
    with pytest.raises(UsageError, match="no client 4") as caught:
        read_round_models(folder, clients=(0, 4), flags=CODE)
    assert caught.value.hint == "its clients are 0 to 3"
    with pytest.raises(UsageError, match="no rounds and no clients"):
        read_round_models(run_of("fit"), clients=(0,), flags=CODE)
    with pytest.raises(RecipeError, match="may not name code"):
        read_round_models(folder, round=1, flags={})
    damaged = copy(folder, tmp_path)
    (damaged / "checkpoints/round-00001/state.safetensors").write_bytes(b"x")
    with pytest.raises(ResumeError, match="damaged"):
        read_round_models(damaged, round=1, flags=CODE)


def test_a_cut_on_the_spot_takes_the_lowest_scores() -> None:
    """Half of conv1's 16 filters stay: those with the largest l1 norms."""
    trained = whole("digits-cnn")
    source = ExportSource("model", trained, {"run": "x", "score": "taylor"}).cut(0.5)
    assert source.name == "model-ratio0.5"
    assert source.about == {"run": "x", "ratio": 0.5, "score": "l1"}
    norms = trained.values["conv1.weight"].abs().flatten(1).sum(1)
    wanted = norms.topk(8).indices.sort().values
    assert source.trained.support.keep["conv1"].tolist() == wanted.tolist()
    assert source.cut(0.25).trained.support.keep["conv1"].tolist() == wanted.tolist()
    with pytest.raises(RecipeError, match="ratio"):
        source.cut(1.5)
