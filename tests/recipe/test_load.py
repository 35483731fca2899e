from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from annotated_types import Ge, Gt, Le
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpcli import plugins
from fpcli.errors import FpError, RecipeError, UsageError
from fpcli.recipe import load as module
from fpcli.recipe.load import (
    compare_recipes,
    digest_recipe,
    find_recipe,
    flatten,
    list_shipped,
    load_recipe,
    read_stored,
    to_yaml,
)
from fpcli.recipe.resolve import Setting
from fpcli.settings.recipes import FitRecipe, Recipe


class FedAvg:
    @dataclass(frozen=True)
    class Options:
        pass


class FedMP:
    @dataclass(frozen=True)
    class Options:
        ratio_max: Annotated[float, Gt(0), Le(0.9)] = 0.8
        score: str = "l1"
        levels: tuple[float, ...] = (1.0, 0.5)
        is_late: bool = False
        window: Annotated[int, Ge(1)] | None = None

        def __post_init__(self) -> None:
            if self.score == "bad":
                raise ValueError("score `bad` is bad")


class Strict:
    @dataclass(frozen=True)
    class Options:
        level: int


TABLES = {
    "methods": {
        "fedavg": f"{__name__}:FedAvg",
        "fedmp": f"{__name__}:FedMP",
        "strict": f"{__name__}:Strict",
    },
    "models": dict.fromkeys(("digits-cnn", "lenet5", "resnet20"), ""),
    "datasets": dict.fromkeys(("digits", "mnist"), ""),
    "codecs": dict.fromkeys(("dense", "sparse"), ""),
    "fleets": dict.fromkeys(("uniform", "two-speed"), ""),
}


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "list_names", lambda kind: TABLES[kind])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, *overrides: tuple[str, str], **flags: Any) -> Recipe:
    path = Path("r.yaml")
    path.write_text(text, encoding="utf-8")
    return load_recipe(
        path, overrides, {key.replace("__", "."): value for key, value in flags.items()}
    )


def refusal(text: str, *overrides: tuple[str, str], **flags: Any) -> FpError:
    with pytest.raises(FpError) as caught:
        read(text, *overrides, **flags)
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def test_defaults() -> None:
    recipe = load_recipe(None)
    assert recipe.method.name == "fedavg"
    assert recipe.task.model == "digits-cnn"
    assert replace(recipe, task=replace(recipe.task, model="")) == Recipe()


def test_precedence(folder: Path) -> None:
    text = "rounds: 3\nseed: 3\nlocal: {lr: 0.3, epochs: 3, batch_size: 3}\n"
    recipe = read(text, ("local.lr", "0.2"), ("rounds", "2"), local__lr=0.1, task__model=None)
    assert (recipe.local.lr, recipe.rounds, recipe.seed) == (0.1, 2, 3)
    assert (recipe.local.epochs, recipe.local.momentum) == (3, Recipe().local.momentum)


def test_text_becomes_what_the_key_wants(folder: Path) -> None:
    recipe = read(
        "local: {lr: 1e-3, batch_size: '64'}\n"
        "executor: {channels_last: no}\n"
        "task: {data_dir: on}\n"
        "fleet: {deadline_s: null}\n"
        "method: {name: fedmp, levels: [1, 5e-1], is_late: yes, score: 'no'}\n"
        "wire:\n",
        ("executor.client_timeout_s", "null"),
    )
    assert (recipe.local.lr, recipe.local.batch_size) == (0.001, 64)
    assert recipe.executor.channels_last is False
    assert recipe.task.data_dir == "on"
    assert recipe.fleet.deadline_s is None
    assert recipe.executor.client_timeout_s is None
    assert recipe.method.options == {
        "ratio_max": 0.8,
        "score": "no",
        "levels": (1.0, 0.5),
        "is_late": True,
        "window": None,
    }


def test_shares_may_be_in_percent(folder: Path) -> None:
    recipe = read("fleet: {availability: 80%}\n", ("target", "acc=98.5%"))
    assert (recipe.fleet.availability, recipe.target) == (0.8, {"accuracy": 0.985})
    fit = load_recipe(None, [("fit.drop_at", "[0.25, 75%]")], cls=FitRecipe)
    assert fit.fit.drop_at == (0.25, 0.75)


@pytest.mark.parametrize(
    ("key", "value", "message", "hint"),
    [
        ("task.validation_fraction", "10", "< 0.5, got 10", "write `0.1` or `10%`"),
        ("fleet.dropout", "120%", "<= 1, got 120%", "write `0.5` or `50%`"),
        ("fleet.availability", "0.5x", "got 0.5x", "write `0.5` or `50%`"),
        ("fleet.availability", "0", "> 0, got 0", ""),
        ("local.lr", "50%", "a number >= 0, got 50%", ""),
    ],
)
def test_what_is_no_share(key: str, value: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        load_recipe(None, [(key, value)])
    assert caught.value.hint == hint


def test_lists_on_the_command_line() -> None:
    said = (("method.name", "fedmp"), ("method.levels", "[1, 0.25]"))
    assert load_recipe(None, said).method.options["levels"] == (1.0, 0.25)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("seed: 0\nlocal:\n  lr: -1\n", "r.yaml:3: `local.lr` must be >= 0, got -1", ""),
        ("local: {lr: nan}", "r.yaml:1: `local.lr` must be a number >= 0, got nan", ""),
        ("local: {lr: 1e400}", "must be a number >= 0, got 1e400", ""),
        ("local: {lr: '0,5'}", "must be a number >= 0, got 0,5", "write `0.5`"),
        ("local: {lr: }", "must be a number >= 0, got null", ""),
        ("local: {lr: {a: 1}}", "must be a number >= 0, got a mapping", ""),
        ("local: {epochs: 1.5}", "must be a whole number >= 1, got 1.5", ""),
        ("executor: {channels_last: 3}", "must be true or false, got 3", ""),
        ("task: {data: null}", "`task.data` must be text, got null", ""),
        (
            "target: {acc: 98}",
            "r.yaml:1: `target` must be a metric and a number",
            "write `0.98` or `98%`",
        ),
        ("executor: {kind: pol}", "one of auto, inline, pool, got pol", "did you mean `pool`?"),
        ("local: {batchsize: 3}", "unknown key `local.batchsize`", "`local.batch_size`?"),
        ("lr: 3", "r.yaml:1: unknown key `lr`", "did you mean `local.lr`?"),
        ("a: 1\nlocl: {lr: 3}", "r.yaml:1: unknown key `a`", ""),
        ("locl: {lr: 3}", "unknown key `locl`", "did you mean `local`?"),
        ("local: {zzz: 3}", "unknown key `local.zzz`", ""),
        ("method: {ratio_maxx: 3, name: fedmp}", "`method.ratio_maxx`", "`method.ratio_max`?"),
        ("method: {ratio_max: 3}", "unknown key `method.ratio_max`", "`fp methods NAME`"),
        ("method: {name: fedmp, score: bad}", "r.yaml:1: options of method `fedmp`: score", ""),
        ("method: {name: fedmpp}", "unknown method `fedmpp`", "did you mean `fedmp`?"),
        ("method: {name: strict}", "`method.level` must be given", "--set method.level=VALUE"),
        ("method: fedmp", "r.yaml:1: `method` must be a mapping", ""),
        ("task: {data: minst}", "unknown data set `minst`", "did you mean `mnist`?"),
        ("task: {model: lenet}", "unknown model `lenet`", "did you mean `lenet5`?"),
        ("task: {data: 'npz:x.npz'}", "data `npz:x.npz` has no usual network", "resnet20"),
        ("wire: {codec: zip}", "unknown codec `zip`", "known: dense, sparse"),
        ("fleet: {profile: uniforms}", "unknown fleet `uniforms`", "did you mean `uniform`?"),
        ("seed: 1\nseed: 2", "r.yaml:2: key `seed` stands twice, first in line 1", "keep one"),
        ("local: {lr: 1}\nlocal: {lr: 2}", "r.yaml:2: key `local` stands twice", ""),
        ("local: {lr: 1}\nlocal.lr: 2", "r.yaml:2: key `local.lr` stands twice", ""),
        ("- seed", "r.yaml:1: a recipe must be a mapping", ""),
        ("recipe: 2\nnew: 1", "r.yaml:1: recipe format 2 is newer than this version reads", "pip"),
        ("recipe: 0", "`recipe` must be >= 1", ""),
        ("seed: [1", "not valid YAML", ""),
        ("seed: 1\n---\nseed: 2", "not valid YAML: but found another document", ""),
        ("seed: \x07", "r.yaml: not valid YAML", ""),
        ("[a]: 1", "r.yaml:1: a key must be a word", ""),
        ("clients_per_round: 20", "`clients_per_round` is 20, but `task.clients` is 10", "lower"),
        ("clients_per_round: 2\nmin_clients: 3", "`min_clients` is 3, but `clients_per_round`", ""),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, text: str, message: str, hint: str) -> None:
    error = refusal(text)
    assert isinstance(error, RecipeError)
    assert message in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.system ['touch canary']",
        "seed: !!int 3",
        "a: &a [1]\nb: *a",
        "a: &a {x: 1}",
        "<<: {seed: 1}",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b]",
        "a: " + "[" * 20_000,
        "a: {b: " * 5_000,
        "#" * 70_000,
        "task: {data: 'os:system'}",
        "task: {model: 'os:system'}",
        "method: {name: 'os:system'}",
        "task: {data: '../../etc/passwd'}",
        "method: {name: fedmp, levels: [{a: 1, a: 2}]}",
    ],
)
def test_a_hostile_file_is_refused(folder: Path, text: str) -> None:
    assert isinstance(refusal(text), RecipeError)
    assert [path.name for path in folder.iterdir()] == ["r.yaml"]


def test_code_may_be_named_on_the_command_line_only(folder: Path) -> None:
    error = refusal("task: {model: 'my.nets:small'}")
    assert error.hint.endswith("on the command line: `--model my.nets:small`")
    text = "task: {model: 'my.nets:small', data: mnist}"
    assert read(text, task__model="my.nets:small").task.model == "my.nets:small"
    assert read(text, ("task.model", "my.nets:big")).task.model == "my.nets:big"
    named = load_recipe(None, flags={"method.name": f"{FedMP.__module__}:FedMP"})
    assert named.method.options["score"] == "l1"
    assert read("task: {model: 'torchvision:resnet18'}").task.model == "torchvision:resnet18"
    assert read("task: {data: 'npz:C:/x.npz', model: lenet5}").task.data == "npz:C:/x.npz"
    for said in ("'os:remove'", "[l1, 'os:remove']"):
        error = refusal(f"method: {{name: fedmp, score: {said}}}")
        assert error.hint.endswith("on the command line: `--set method.score=os:remove`")
    error = refusal("method: {name: fedmp, any_option: 'os:remove'}")
    assert error.hint.endswith("on the command line: `--set method.any_option=os:remove`")
    assert read("method: {name: fedmp, score: 'rank:0.5'}").method.options["score"] == "rank:0.5"
    assert read("task: {data_dir: 'a:b'}").task.data_dir == "a:b"
    with pytest.raises(UsageError, match=r"--method: `os:system` is not a method"):
        load_recipe(None, flags={"method.name": "os:system"})


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("task.model", "./nets.py:small", "model"),
        ("task.model", "folder:nets", "model"),
        ("task.model", "csv:reader", "model"),
        ("task.data", "torchvision:models", "data set"),
        ("task.data", "C:\\x", "data set"),
        ("method.name", "a:b:c", "method"),
        ("wire.codec", "os:remove", "codec"),
        ("fleet.profile", "os:remove", "fleet"),
    ],
)
def test_what_is_no_code_is_only_looked_up(folder: Path, key: str, value: str, kind: str) -> None:
    section, _, last = key.partition(".")
    assert f"unknown {kind} `{value}`" in refusal(f"{section}: {{{last}: '{value}'}}").message
    with pytest.raises(UsageError) as caught:
        load_recipe(None, flags={key: value})
    assert f"unknown {kind} `{value}`" in caught.value.message


@pytest.mark.parametrize("data", [b"\xff\xfe", b"seed: \xe4"])
def test_a_file_that_is_not_text(folder: Path, data: bytes) -> None:
    Path("r.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(Path("r.yaml"))


def test_no_file(folder: Path) -> None:
    for path in (folder, folder / "none.yaml"):
        with pytest.raises(RecipeError, match="cannot read recipe"):
            load_recipe(path)


def test_an_empty_file_means_the_defaults(folder: Path) -> None:
    assert read("# nothing\n") == load_recipe(None)


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (("local.batchsize", "3"), "--set local.batchsize=3: unknown key", "local.batch_size"),
        (("local.lr", "-1"), "--set local.lr=-1: `local.lr` must be >= 0, got -1", ""),
        (("local", "3"), "--set local=3: `local` is a section", "local.KEY"),
        (("local.lr", "null"), "must be a number >= 0, got null", ""),
        (("method.name", "nix"), "--set method.name=nix: unknown method `nix`", "known: "),
        (("task.clients", "[1"), "`task.clients` is not a list", "[1, 0.5]"),
        (("task.clients", "[1, {a: 1, a: 2}]"), "`task.clients` is not a list", ""),
        (("recipe", "9"), "recipe format 9 is newer", "pip"),
    ],
)
def test_a_wrong_override_is_refused(said: tuple[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(None, [said])
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_wrong_flag_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--lr: `local.lr` must be >= 0, got -0.1"):
        load_recipe(None, flags={"local.lr": -0.1})
    with pytest.raises(UsageError, match=r"--min-clients: `min_clients` is 5, but"):
        load_recipe(None, flags={"min_clients": 5, "task.clients": 3})
    error = refusal("clients_per_round: 5", task__clients=3)
    assert str(error) == "r.yaml:1: `clients_per_round` is 5, but `task.clients` is 3"


def test_another_method_leaves_the_options_of_the_file_out(folder: Path) -> None:
    text = "method: {name: fedmp, ratio_max: 0.5}"
    assert read(text, method__name="fedavg").method.options == {}
    assert read(text, method__name="fedmp").method.options["ratio_max"] == 0.5
    assert read("method: {ratio_max: 0.5}", method__name="fedmp").method.options["ratio_max"] == 0.5
    assert isinstance(refusal(text, ("method.ratio_max", "0.4"), method__name="fedavg"), UsageError)


def test_to_yaml_names_every_key_and_loads_back(folder: Path) -> None:
    recipe = load_recipe(
        None,
        [("method.levels", "[1, 0.3]"), ("method.score", "no"), ("task.data_dir", "~/ä: #x ")],
        {"method.name": "fedmp", "local.lr": 1e-5, "local.momentum": 0.1 + 0.2},
    )
    text = to_yaml(recipe)
    assert read(text) == recipe
    assert to_yaml(read(text)) == text
    names = [item.name for item in fields(Recipe)]
    assert list(yaml.safe_load(text)) == names
    assert text.startswith("recipe: 1\n")


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=20), number=st.floats(min_value=0, allow_infinity=False))
def test_any_text_and_number_loads_back(folder: Path, text: str, number: float) -> None:
    recipe = load_recipe(None, flags={"task.data_dir": text, "local.lr": number})
    assert read(to_yaml(recipe)) == recipe


def test_differences() -> None:
    a = load_recipe(None, flags={"method.name": "fedmp", "local.lr": 0.1})
    b = load_recipe(None, flags={"seed": 3})
    assert compare_recipes(a, a) == {}
    found = compare_recipes(a, b)
    assert found["seed"] == (0, 3)
    assert found["method.name"] == ("fedmp", "fedavg")
    assert found["method.ratio_max"] == (0.8, None)
    assert "rounds" not in found


def test_digest_covers_what_decides_the_bits() -> None:
    base = load_recipe(None)
    same = {
        "executor.kind": "inline",
        "executor.workers": 3,
        "executor.client_timeout_s": 1.0,
        "task.data_dir": "x",
        "checkpoint_every": 3,
        "eval_clients": True,
        "rounds": 99,
        "target": {"accuracy": 0.5},
    }
    assert set(same) == module.NOT_IN_DIGEST < set(flatten(base))
    assert digest_recipe(load_recipe(None, flags=same)) == digest_recipe(base)
    other = {
        "seed": 1,
        "method.name": "fedmp",
        "local.lr": 0.2,
        "executor.device": "cuda",
        "fleet.deadline_s": 3,
        "task.partition.alpha": 0.1,
    }
    digests = {digest_recipe(load_recipe(None, flags={key: value})) for key, value in other.items()}
    assert len(digests | {digest_recipe(base)}) == len(other) + 1
    assert digest_recipe(load_recipe(None, flags={"task.model": "digits-cnn"})) == digest_recipe(
        base
    )


def test_digest_of_a_recipe_from_before_keys_that_are_empty() -> None:
    recipe = load_recipe(None)
    old = {k: v for k, v in flatten(recipe).items() if k not in module.NOT_IN_DIGEST}
    for key, usual in module._NOT_WHILE_USUAL.items():
        if not key.startswith(("fit.", "retrain.")):
            assert old.pop(key) == usual
    text = json.dumps(old, sort_keys=True)
    assert digest_recipe(recipe) == hashlib.sha256(text.encode()).hexdigest()
    other = {
        "task.start": "runs/a", "task.withhold": [0], "task.server_share": 0.1,
        "task.server_samples": 3, "fleet.server": "jetson-tx2",
        "task.normalise": "unit", "task.head": "new", "task.kind": "regress", "task.loss": "l1",
        "task.sampled_negatives": 99, "local.optimizer": "adam",
    }  # fmt: skip
    others = {"fit.optimizer", "retrain.optimizer"}
    assert other.keys() | others == module._NOT_WHILE_USUAL.keys()
    digests = {digest_recipe(load_recipe(None, flags={key: value})) for key, value in other.items()}
    assert len(digests | {digest_recipe(recipe)}) == len(other) + 1


def test_the_server_has_a_share_or_a_number(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("recipe: 1\ntask: {server_share: 0.1}\n")
    assert load_recipe(file).task.server_share == 0.1
    with pytest.raises(UsageError, match="exclude each other") as caught:
        load_recipe(file, [("task.server_samples", "3")])
    assert "set one of them to 0" in caught.value.hint
    assert load_recipe(file, [("task.server_samples", "3"), ("task.server_share", "0")])
    file.write_text("recipe: 1\ntask:\n  server_share: 0.1\n  server_samples: 2\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:4: .* exclude each other"):
        load_recipe(file)
    for key, value in (("server_share", "1"), ("server_share", "-0.1"), ("server_samples", "-1")):
        with pytest.raises(UsageError, match=f"`task.{key}` must be"):
            load_recipe(None, [(f"task.{key}", value)])


def test_an_overlay_brings_method_training_and_rounds(tmp_path: Path) -> None:
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text(
        "task: {data: mnist, clients: 4}\nmethod: {name: fedmp, ratio_max: 0.5}\n"
        "local: {lr: 0.5, epochs: 2}\nrounds: 7\nseed: 3\n"
    )
    above.write_text(
        "task: {data: digits, clients: 9}\nmethod: {name: fedmp, score: l2}\n"
        "local: {lr: 0.25}\nseed: 5\n"
    )
    found = load_recipe(below, overlay=above)
    assert (found.task.data, found.task.clients, found.seed, found.rounds) == ("mnist", 4, 3, 7)
    assert found.method.options["ratio_max"] == 0.8 and found.method.options["score"] == "l2"
    assert (found.local.lr, found.local.epochs) == (0.25, 2)
    said = load_recipe(below, [("local.lr", "0.1")], {"rounds": 2}, overlay=above)
    assert (said.local.lr, said.rounds) == (0.1, 2)
    above.write_text("method: {name: fedmp, ratio_max: 2}\n")
    with pytest.raises(RecipeError, match=r"above.yaml:1: `method.ratio_max` must be"):
        load_recipe(below, overlay=above)


def test_a_flag_may_have_a_name_of_its_own() -> None:
    with pytest.raises(UsageError, match="--other: `rounds` must be >= 1"):
        load_recipe(None, flags={"rounds": Setting("0", "--other", is_in_file=False)})


@pytest.fixture
def recipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("recipes/fedmp/digits.yaml", "recipes/smoke/fedmp.yaml"):
        (folder / "site" / name).parent.mkdir(parents=True)
        (folder / "site" / name).write_text("seed: 1\n")
    (folder / "site" / "fpcli").mkdir()
    file = folder / "site" / "fpcli" / "recipe" / "load.py"
    monkeypatch.setattr(module, "__file__", str(file))
    return folder / "site" / "recipes"


def test_shipped_recipes_of_a_repository(recipes: Path) -> None:
    assert list_shipped() == []
    (recipes.parent / "pyproject.toml").touch()
    assert list_shipped() == [recipes / "fedmp" / "digits.yaml", recipes / "smoke" / "fedmp.yaml"]
    assert find_recipe("fedmp/digits") == recipes / "fedmp" / "digits.yaml"
    assert find_recipe("smoke/fedmp.yaml") == recipes / "smoke" / "fedmp.yaml"
    Path("own.yaml").touch()
    assert find_recipe("own.yaml") == Path("own.yaml")


def test_shipped_recipes_of_a_wheel(recipes: Path) -> None:
    inside = recipes.parent / "fpcli" / "recipes"
    recipes.rename(inside)
    assert find_recipe("fedmp/digits") == inside / "fedmp" / "digits.yaml"


def test_an_unknown_recipe(recipes: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_recipe("fedmp/digitz")
    assert caught.value.hint == "give the path of a YAML file"
    (recipes.parent / "pyproject.toml").touch()
    for name, hint in (
        ("fedmp/digitz", "did you mean `fedmp/digits`?"),
        ("../site/recipes/fedmp/digits", "did you mean"),
        ("../..", "shipped: fedmp/digits, smoke/fedmp"),
    ):
        if not Path(name).is_file():
            with pytest.raises(UsageError) as caught:
                find_recipe(name)
            assert hint in caught.value.hint


def test_a_method_may_bring_defaults_that_everything_else_overrides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = {"local.epochs": 5, "wire.codec": "sparse"}
    method = plugins.lookup("methods", "fedavg")
    monkeypatch.setattr(method, "defaults", usual, raising=False)
    recipe = load_recipe(None)
    assert (recipe.local.epochs, recipe.wire.codec) == (5, "sparse")
    path = tmp_path / "r.yaml"
    path.write_text("local: {epochs: 3}\n")
    assert load_recipe(path).local.epochs == 3
    assert load_recipe(path, [("local.epochs", "2")]).local.epochs == 2
    assert load_recipe(None, flags={"wire.codec": "dense"}).wire.codec == "dense"


def test_a_key_that_is_a_number_in_a_strangers_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("7: x\nnull: y\ntask:\n  1.5: z\n")
    assert read_stored(path) == {"7": "x", "None": "y", "task.1.5": "z"}


def test_the_target_of_earlier_versions_is_read(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("target_accuracy: 0.9\n")
    with pytest.warns(FutureWarning, match="read until version 0.3.0"):
        assert load_recipe(file).target == {"accuracy": 0.9}
    with pytest.warns(FutureWarning, match="target: {accuracy: X}"):
        assert load_recipe(None, [("target_accuracy", "0.8")]).target == {"accuracy": 0.8}
    file.write_text("target_accuracy: null\n")
    assert read_stored(file) == {"target": {}}


def test_targets_are_metrics_by_name() -> None:
    def target(text: str) -> object:
        return load_recipe(None, flags={"target": text}).target

    assert target("0.5") == target("acc=50%") == {"accuracy": 0.5}
    assert target("hr@10=20%,mae=44") == {"hr@10": 0.2, "mae": 44.0}
