from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import digits_file

from fpcli.cli.app import run_line as call
from fpcli.cli.unlearn_recipe import split_classes
from fpcli.files import list_checksums
from fpcli.recipe.load import flatten, load_recipe
from fpcli.settings.unlearning import CHOICES, FLAGS, METHOD_FLAGS
from fpcli.store.run_folder import RunFolder
from fpcli.train import federated_run
from fpcli.unlearn import ratio_search, unlearn_run

FIELDS = [
    "stage", "forget_accuracy", "retain_accuracy", "forget_train_accuracy",
    "retain_train_accuracy", "rounds", "bytes", "seconds", "real_s",
]  # fmt: skip
INLINE = ("--executor", "inline", "--no-progress")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of runs that holds the original one, called `a`."""
    folder = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_run, "draw_run", lambda history, folder: [])
        words = ("--data", digits_file(folder), "--model", "digits-cnn", "--rounds", "2")
        assert call(["train", *words, "--clients", "2", "--name", "a", "--runs", str(folder),
                     "--executor", "inline", "-q", "--json"]) == 0  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated_run, "draw_run", lambda history, folder: [])
    monkeypatch.setattr(unlearn_run, "draw_forgetting", lambda *_, **__: [Path("a/map.png")])


def snapshot(folder: Path) -> str:
    return list_checksums(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def test_forgetting_a_class(fp: Callable, origin: Path, tmp_path: Path) -> None:
    before = snapshot(origin / "a")
    done = fp("unlearn", origin / "a", "--class", "7", "--ratio", "0.1", *INLINE)
    assert done.status == 0
    folder = RunFolder(Path("runs/a-without-7"))
    about, _, _, *rows = done.out.splitlines()
    assert about.startswith("forgotten: class 7; ")
    labels = ("before ", "after pruning ", "after fine-tuning ", "fine-tuning alone ")
    assert all(row.startswith(label) for row, label in zip(rows, labels, strict=False))
    assert rows[0].split()[-3:] == ["-", "-", "-"]
    assert rows[1].split()[3:5] != rows[2].split()[3:5]
    assert rows[4].startswith("relearning: ") and "bring the class back" in rows[4]
    assert rows[5].startswith("server-diff: ")
    assert rows[6].startswith("note: empirical forgetting, not a certified removal; ")
    assert "2 earlier checkpoints of " in rows[6]
    assert "`fp unlearn --resume runs/a-without-7 --purge --force` deletes them" in rows[6]
    assert "hint: `fp unlearn --resume runs/a-without-7 --compare-retrain` adds" in done.err
    assert "unlearn · npz:" in done.err and "round 1/1" in done.err
    recipe = load_recipe(folder.recipe)
    assert recipe.task.start == str((origin / "a").resolve())
    assert (recipe.task.withhold, recipe.rounds) == ((7,), 1)  # a fifth of two, rounded up
    assert recipe.method.options["ratio"] == 0.1
    assert snapshot(origin / "a") == before
    assert folder.is_whole and folder.log.read_text().count("note: empirical") == 1

    # Later, from elsewhere: a comparison is added to what is there, then the original goes.
    words = ("--resume", "a-without-7", "--runs", tmp_path / "runs", *INLINE, "--json", "-q")
    done = fp("unlearn", *words, "--compare-retrain", "--drop-logit")
    data = json.loads(done.out)["data"]
    fields = ["classes", "search", "stages", "speedup", "audits", "retrained", "run", "pictures"]
    assert list(data) == fields
    assert [list(stage) for stage in data["stages"]] == [FIELDS] * 6
    assert data["stages"][4]["rounds"] == 2
    fields = {"validation_accuracy", "unlearned", "retrained", "ratio"}
    assert {name: set(one) for name, one in data["speedup"].items()} == {
        "retrained": fields, "finetuned": fields,
    }  # fmt: skip
    assert json.loads((folder.path / "unlearn.json").read_text()) == data
    assert "hint" not in done.err


def test_by_default_the_share_that_forgets_is_found(
    fp: Callable, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratio_search, "draw_run", lambda history, folder: [])
    words = ("unlearn", origin / "a", "--class", "7", *INLINE, "--max-ratio", "0.15")
    # After two rounds of training there is something to forget, or else nothing is left of it.
    monkeypatch.setattr(ratio_search, "FORGOTTEN", 100.0)
    done = fp(*words)
    assert done.status == 0
    assert done.out.startswith("shares tried: 5.0% of the channels will do; ")
    assert "trial 1: is a share of 0.1 enough?" in done.err
    assert "trial 2: is a share of 0.05 enough?" in done.err
    folder = RunFolder(Path("runs/a-without-7"))
    assert load_recipe(folder.recipe).method.options["ratio"] == 0.05
    found = json.loads((folder.path / "unlearn.json").read_text())["search"]
    assert [trial["ratio"] for trial in found["trials"]] == [0.1, 0.05]
    # What other commands see is an ordinary run, which has nothing left to do.
    before = folder.events.read_bytes()
    assert fp("resume", folder.path, *INLINE).status == 0
    assert folder.events.read_bytes() == before
    assert not list(folder.path.glob("*.damaged*"))
    assert fp("unlearn", "--resume", folder.path, *INLINE).out == done.out

    monkeypatch.setattr(ratio_search, "FORGOTTEN", -1.0)
    done = fp(*words, "--force", "--json")
    assert done.status == 8
    envelope = json.loads(done.out)
    assert (envelope["status"], envelope["error"]["code"]) == ("findings", "F802")
    assert [x["ratio"] for x in envelope["data"]["search"]["trials"]] == [0.1, 0.15]
    assert envelope["data"]["run"] == "runs/a-without-7"
    done = fp("unlearn", "--resume", "a-without-7", *INLINE)
    assert (done.status, "no share of channels up to 0.15" in done.err) == (8, True)
    assert done.out.startswith("shares tried: nothing will do; ")
    for words in (("resume", "a-without-7"), ("train", "--resume", "runs/a-without-7")):
        done = fp(*words, *INLINE)
        assert done.status == 3 and "share of channels is still to be found" in done.err
        assert "hint: `fp unlearn --resume runs/a-without-7`\n" in done.err


def test_audits_are_added_and_kept(fp: Callable, origin: Path) -> None:
    words = ("unlearn", origin / "a", "--class", "6", "--ratio", "0.05", *INLINE, "-q")
    assert "error[F201]: unknown audit `server-dif`" in fp(*words, "--audit", "server-dif").err
    assert not Path("runs").exists()
    without = ("--name", "r", "--set", "task.withhold=[6]", *INLINE, "-q")
    assert fp("train", "-c", origin / "a" / "recipe.yaml", *without).status == 0
    done = fp(*words, "--retrained", "r", "--audit", "logit-mask,server-diff")
    assert done.status == 0
    assert not Path("runs/a-without-6/retrained").exists()
    (line,) = [x for x in done.out.splitlines() if x.startswith("logit-mask ")]
    assert line.split()[1:4] == ["accuracy,", "forgotten", "0.000"]
    assert "speed-up over retraining, to" in done.out
    assert "\npicture a/map.png" in done.out
    done = fp("unlearn", "--resume", "a-without-6", *INLINE, "-q", "--audit", "probe", "--json")
    data = json.loads(done.out)["data"]
    assert list(data["audits"]) == ["relearn", "server-diff", "logit-mask", "probe"]
    assert data["retrained"] == str(Path("runs/r").resolve())
    assert len(data["stages"]) == 5

    # More rounds make another model: its audits are made again, and the retraining stays away.
    before = data["audits"]["logit-mask"]["stages"]["finetuned"]
    assert fp("resume", "a-without-6", "--rounds", "3", *INLINE, "-q").status == 0
    resumed = ("unlearn", "--resume", "a-without-6", *INLINE, "-q", "--json")
    data = json.loads(fp(*resumed, "--drop-logit").out)["data"]
    assert data["audits"]["logit-mask"]["stages"]["finetuned"] != before
    data = json.loads(fp(*resumed).out)["data"]
    assert data["stages"][-1]["stage"] == "logit_dropped"
    assert list(data["audits"]) == ["relearn", "server-diff", "logit-mask", "probe"]
    Path("runs/r").rename("elsewhere")
    assert fp(*resumed).status == 6
    data = json.loads(fp(*resumed, "--compare-retrain").out)["data"]
    assert data["retrained"] is None and Path("runs/a-without-6/retrained").is_dir()

    # What is inside the folder cannot both stand for the retraining and be replaced.
    inside = ("--retrained", "a-without-6/retrained", "--force")
    done = fp(*words, *inside)
    assert (done.status, "is what this starts from" in done.err) == (2, True)
    assert Path("runs/a-without-6/retrained/final").is_dir()


def test_audits_train_what_they_need(fp: Callable, origin: Path) -> None:
    words = ("unlearn", origin / "a", "--class", "6", "--ratio", "0.1", *INLINE, "-q", "--json")
    data = json.loads(fp(*words, "--audit", "logit-mask").out)["data"]
    assert data["stages"][-1]["stage"] == "retrained"
    masked = data["audits"]["logit-mask"]["stages"]["logit_mask"]
    assert masked["forget_accuracy"] == 0
    assert data["retrained"] is None


def test_nothing_is_deleted_before_the_end(fp: Callable, origin: Path, tmp_path: Path) -> None:
    words = ("--runs", tmp_path / "runs", "-q", "--executor", "inline")
    train = ("--data", digits_file(origin), "--model", "digits-cnn", "--rounds", "1")
    assert fp("train", *train, "--clients", "2", "--name", "b", *words).status == 0
    original = RunFolder(tmp_path / "runs" / "b")
    unlearn = ("unlearn", "b", "--class", "3", "--set", "method.ratio=0.1", *words)
    done = fp(*unlearn, "--purge")
    assert done.status == 2
    assert "--purge deletes the model and the checkpoints of the original run" in done.err
    assert fp(*unlearn, "--purge", "--force", "--ratio", "0.98").status == 3
    assert original.final.exists() and not original.purged.exists()
    done = fp(*unlearn, "--purge", "--force", "--json")
    assert done.status == 0
    assert not original.final.exists() and not original.checkpoints.exists()
    assert RunFolder(tmp_path / "runs" / "b-without-3").is_whole
    assert fp("unlearn", "b", "--class", "4", *words).err.startswith("error[F311]: ")
    assert fp("resume", original.path).status == 6
    assert fp("compare", original.path, original.path.with_name("b-without-3")).status == 0
    # A deletion that was cut short is done by the same words.
    original.final.mkdir()
    done = fp("unlearn", "--resume", "b-without-3", *words, "--purge", "--force")
    assert done.status == 0 and "and its final model were deleted" in done.out
    assert "hint" not in done.err
    done = fp("unlearn", "--resume", "b-without-3", *words, "--purge", "--force", "--drop-logit")
    assert (done.status, "--drop-logit: the original model has been" in done.err) == (2, True)
    assert not original.final.exists()


def test_a_plan_writes_nothing(fp: Callable, origin: Path, tmp_path: Path) -> None:
    words = ("--class-name", "7,1", "--set", "rounds=4", "--dry-run", "--json", "--ratio", "0.05")
    data = json.loads(fp("unlearn", origin / "a", *words).out)["data"]
    assert data["recipe"]["task.withhold"] == [7, 1]
    assert data["plan"]["rounds"] == 4
    assert (data["plan"]["layers"], data["plan"]["channels"], data["plan"]["pruned"]) == (2, 48, 6)
    assert len(data["plan"]["clients"]) == 2
    text = fp("unlearn", origin / "a", *words[:5]).out
    assert "48 channels of 2 convolutions are scored, and in up to 4 trials shares" in text
    assert "between 0.05 and 0.5 of them pruned; then 4 rounds without" in text
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_lies_over_that_of_the_run(fp: Callable, origin: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipe: 1\ntask: {data: mnist, clients: 3}\nmethod: {name: unlearn, ratio: 0.2}\n"
        "local: {lr: 0.03}\nrounds: 7\n"
    )
    words = ("unlearn", origin / "a", "--class", "2", "-c", path, "--dry-run", "--json")
    found = json.loads(fp(*words).out)["data"]["recipe"]
    stored = flatten(load_recipe(origin / "a" / "recipe.yaml"))
    assert (found["method.ratio"], found["local.lr"], found["rounds"]) == (0.2, 0.03, 7)
    same = ("task.data", "task.clients", "local.batch_size", "fleet.profile", "seed")
    assert {key: found[key] for key in same} == {key: stored[key] for key in same}
    changed = json.loads(fp(*words, "--ratio", "0.3", "--set", "local.lr=0.1").out)["data"][
        "recipe"
    ]
    assert (changed["method.ratio"], changed["local.lr"]) == (0.3, 0.1)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--class", "12"], 3, "class 12 does not exist"),
        (["--class", "0,1,2,3,4,5,6,7,8,9"], 3, "no class would be left"),
        (["--class", "seven"], 2, "--class seven: not the number of a class"),
        (["--class-name", "seven"], 2, "has no class `seven`"),
        ([], 2, "no class to forget"),
        (
            ["--class", "1", "--ratio", "0.98", "--scope", "global"],
            3,
            "asks for 47 of 48 channels, but only 46",
        ),
        (
            ["--class", "1", "--ratio", "2"],
            2,
            "--ratio: `method.ratio` must be a number >= 0 and < 1 or auto",
        ),
        (["--class", "1", "--finetune-rounds", "0"], 2, "--finetune-rounds: `rounds` must be >= 1"),
        (["--class", "1", "--set", "task.clients=3"], 2, "task and seed are those of"),
        (["--class", "1", "--set", "method.name=fedavg"], 2, "--set method.name: that is settled"),
        (["--class", "1", "--set", "task.withhold=[2]"], 2, "--set task.withhold: that is settled"),
        (["--class", "1", "--model", "lenet5"], 2, "--model lenet5: model and all else"),
        (["--class", "1", "-c", "fedmp/digits"], 2, "-c fedmp/digits: no recipe of the method"),
        (["--class", "1", "--name", "a", "--force"], 2, "is what this starts from"),
        (["--class", "1", "--retrained", "a"], 3, "is not the run without class 1"),
        (["--class", "1", "--retrained", "a", "--compare-retrain"], 2, "exclude each other"),
        (["--class", "1", "--resume", "a"], 2, "--resume and"),
    ],
)
def test_what_is_refused_leaves_nothing(
    fp: Callable, origin: Path, words: list[str], status: int, message: str
) -> None:
    before = snapshot(origin)
    done = fp("unlearn", origin / "a", *words, "--runs", origin)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("error[F") and message in done.err
    assert snapshot(origin) == before
    assert {path.name for path in origin.iterdir()} == {"a", "digits.npz"}


def test_a_folder_that_is_taken(fp: Callable, origin: Path) -> None:
    Path("runs/a-without-1").mkdir(parents=True)
    Path("runs/a-without-1/notes.txt").touch()
    done = fp("unlearn", origin / "a", "--class", "1")
    assert done.status == 2 and "run name `a-without-1` is taken" in done.err


def test_runs_of_other_commands(fp: Callable, origin: Path) -> None:
    assert fp("unlearn").status == 2
    assert fp("unlearn", "nowhere", "--class", "1").status == 6
    done = fp("unlearn", "--resume", origin / "a")
    assert (done.status, "is a run of `fedavg`, not of" in done.err) == (2, True)
    Path("fitted").mkdir()
    Path("fitted/recipe.yaml").write_text("recipe: 1\nfit: {epochs: 1}\n")
    done = fp("unlearn", "fitted", "--class", "1")
    assert (done.status, "is a run of `fp fit`" in done.err) == (3, True)


@pytest.mark.slow
def test_a_stopped_unlearning_goes_on_in_a_pool(
    fp: Callable, spawn: Callable, origin: Path, tmp_path: Path
) -> None:
    words = ("unlearn", origin / "a", "--class", "5", "--ratio", "0.1", "--finetune-rounds", "2",
             "--no-progress")  # fmt: skip
    process = spawn(*words, "--executor", "pool", "--workers", "2", cwd=tmp_path)
    while "round 1/2" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "hint: continue with `fp unlearn --resume runs/a-without-5`" in err
    assert fp("unlearn", "--resume", "a-without-5", *INLINE, "-q").status == 0
    assert fp(*words, "--executor", "inline", "--name", "whole", "-q").status == 0
    for place in ("final", "finetune-only/final", "pruned"):
        found, expected = (
            (tmp_path / "runs" / name / place / "model.safetensors").read_bytes()
            for name in ("a-without-5", "whole")
        )
        assert found == expected


def test_options_set_keys_of_the_schema(origin: Path) -> None:
    known = flatten(load_recipe(None, flags={"method.name": "unlearn"}))
    assert FLAGS.keys() <= set(known)
    assert set(CHOICES) > {flag.parameter for flag in METHOD_FLAGS.values()}
    assert split_classes({"class_": "7, 9", "class_name": "cat,,dog"}) == ([7, 9], ["cat", "dog"])
