"""Speed and memory of the engine, as ratios from one run.

Run by ``pytest tests/bench -m bench -n 0 --benchmark-enable -s``.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
import torch

from fpcli.engine import server
from fpcli.engine.federation import Rules
from fpcli.engine.placement import move_to
from fpcli.engine.planning import choose_cohort, plan_round
from fpcli.engine.process import settle_process
from fpcli.engine.types import ServerState
from fpcli.methods import METHODS
from fpcli.models.build import build
from fpcli.recipe.load import load_recipe
from fpcli.structure.merge import Contribution, merge
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify
from fpcli.train.open_executor import open_executor
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.headers import JobHeader
from fpcli.wire.message import Job, Reply, Work, pack_job, pack_reply, unpack_job, unpack_reply

pytestmark = pytest.mark.bench
settle_process()


def setup_for(tmp_path: Path, model: str, kind: str, **changes: Any) -> Setup:
    """Return the engine's counterpart of `plain.round`: same sizes, random uint8 images."""
    shape, samples = plain.SHAPES.get(model, ((3, 32, 32), 500))
    clients = changes.pop("clients", plain.NUM_CLIENTS)
    rng, count = np.random.default_rng(0), clients * changes.pop("samples", samples)

    def drawn(n: int) -> tuple[Any, Any]:
        images = rng.integers(0, 256, (n, *shape[1:], shape[0]), dtype=np.uint8)
        return images, np.arange(n) % 10

    arrays = dict(zip(("train_images", "train_labels"), drawn(count), strict=True))
    for part in ("val", "test"):
        arrays |= dict(zip((f"{part}_images", f"{part}_labels"), drawn(100), strict=True))
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    flags = {
        "method.name": "fedavg",
        "task.data": f"npz:{path}",
        "task.model": model,
        "task.clients": clients,
        "local.batch_size": plain.BATCH_SIZE,
        "local.lr": plain.LR,
        "rounds": 10_000,
        "eval_every": 10_000,
        "executor.kind": kind,
    } | changes
    return prepare_run(load_recipe(None, flags=flags), tmp_path / "memory")


def median(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def test_inline_round_against_the_bare_loop(tmp_path: Path, benchmark: Any) -> None:
    """Same process, same thread, allocator and memory format: what the engine itself costs."""
    setup = setup_for(tmp_path, "mnist-cnn", "inline")
    executor, _ = open_executor(setup)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    rounds = server.play(setup.fed, state, executor, totals)
    model = build("mnist-cnn", (1, 28, 28), Classify(10), seed=0)
    x, y = plain.images("mnist-cnn")
    next(rounds)
    plain.round(model, x, y, channels_last=True)
    ratios = []
    for _ in range(5):
        bare = median(lambda: plain.round(model, x, y, channels_last=True), 1)
        ratios.append(median(lambda: next(rounds), 1) / bare)
    benchmark.extra_info["inline / bare loop"] = statistics.median(ratios)
    print(f"\ninline / bare loop: {statistics.median(ratios):.3f} {ratios}")
    benchmark.pedantic(lambda: next(rounds), rounds=1)


@pytest.mark.parametrize("model", ["mnist-cnn", "resnet20"])
def test_pool_against_the_plain_loop(model: str, tmp_path: Path, benchmark: Any) -> None:
    """Two workers against a plain loop in a process of its own without any of our settings."""
    setup = setup_for(tmp_path, model, "pool", **{"executor.workers": 2})
    executor, _ = open_executor(setup)
    try:
        state, totals = server.begin_training(setup.fed, setup.values, executor)
        rounds = server.play(setup.fed, state, executor, totals)
        next(rounds)
        ratios = []
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "OMP"))}
        for _ in range(3):
            out = subprocess.run(
                [sys.executable, str(Path(plain.__file__)), model, "2"],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            started, steps = time.perf_counter(), 0
            for _ in range(2):
                _, record = next(rounds)
                steps += sum(client.num_steps for client in record.clients)
            ratios.append(steps / (time.perf_counter() - started) / float(out.stdout))
        print(f"\n{model}: pool of 2 / plain loop, steps per second: {ratios}")
        benchmark.extra_info["pool / plain"] = statistics.median(ratios)
        benchmark.pedantic(lambda: next(rounds), rounds=1)
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("model", "shape"),
    [("nets:cifar_resnet18", (3, 32, 32)), ("torchvision:resnet18", (3, 64, 64))],
)
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_moving_a_model_against_training_it(
    model: str,
    shape: tuple[int, int, int],
    ratio: float,
    tmp_path: Path,
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut, pack, unpack, build, subtract, pack, unpack, merge: its share of one local epoch."""
    monkeypatch.setitem(plain.SHAPES, model, (shape, 500))
    setup = setup_for(tmp_path, model, "inline", clients=1)
    fed, site = setup.fed, setup.site
    scores = {name: torch.rand(g.width) for name, g in fed.layout.prunable.items()}
    support = Support(keep_ranked(fed.layout, scores, ratio))
    shapes, limit = support.block_shapes(fed.layout), site.limit_bytes
    support.gather(fed.layout, setup.values)
    header = JobHeader(0, "train", local=fed.local, method="m", round=1, run="r", codec="dense")

    def move() -> None:
        job = Job(header, support.gather(fed.layout, setup.values))
        got = unpack_job(pack_job(job), limit_bytes=limit)
        block = {name: value.clone() for name, value in got.values.items()}
        small = move_to(shrink(site.template, block), "cpu", True)
        trained = small.state_dict()
        delta = {n: trained[n].contiguous() - before for n, before in got.values.items()}
        reply = Reply(header.envelope, "dense", Work(delta, metrics={"loss": 1.0}))
        back = unpack_reply(pack_reply(reply), op="train", shapes=shapes, limit_bytes=limit)
        changes = [Contribution(support, back.work.values, 1.0)]
        merge(fed.layout, setup.values, changes, absent="keep")

    def epoch() -> None:
        block = {n: v.clone() for n, v in support.gather(fed.layout, setup.values).items()}
        small = move_to(shrink(site.template, block), "cpu", True)
        x = torch.randn(500, *shape)
        plain.train(small, x, torch.arange(500) % 10, channels_last=True)

    moved = benchmark.pedantic(lambda: median(move, 7), rounds=1, warmup_rounds=1)
    trained = median(epoch, 1)
    benchmark.extra_info["moving / training"] = moved / trained
    print(
        f"\n{model} {shape} ratio {ratio}: moving {moved * 1e3:.0f} ms, training "
        f"{trained:.2f} s: {moved / trained:.2%}"
    )


@pytest.mark.parametrize("model", ["mnist-cnn", "resnet20"])
def test_a_half_width_model_against_the_full_one(
    model: str, tmp_path: Path, benchmark: Any
) -> None:
    """Real time of a client's round at pruning ratio 0.5 against ratio 0."""
    seconds = {}
    for ratio in (0.0, 0.5):
        folder = tmp_path / str(ratio)
        folder.mkdir()
        setup = setup_for(
            folder, model, "inline", clients=2, **{"method.name": "uniform", "method.ratio": ratio}
        )
        executor, _ = open_executor(setup)
        state, totals = server.begin_training(setup.fed, setup.values, executor)
        rounds = server.play(setup.fed, state, executor, totals)
        next(rounds)
        times = [client.real_s for _ in range(4) for client in next(rounds)[1].clients]
        seconds[ratio] = statistics.median(times)
    print(f"\n{model}: half / full width {seconds[0.5] / seconds[0.0]:.3f}")
    benchmark.extra_info["half / full"] = seconds[0.5] / seconds[0.0]
    benchmark.pedantic(lambda: None, rounds=1)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat(tmp_path: Path, benchmark: Any) -> None:
    """A thousand clients cost their index lists, and 200 rounds cost nothing."""
    setup = setup_for(
        tmp_path,
        "lenet5",
        "pool",
        clients=1000,
        samples=4,
        **{"clients_per_round": 10, "method.name": "fedmp", "executor.workers": 2},
    )
    executor, _ = open_executor(setup)
    try:
        rules: Rules = dataclasses.replace(setup.fed.rules, eval_every=50)
        fed = dataclasses.replace(setup.fed, rules=rules)
        state, totals = server.begin_training(fed, setup.values, executor)
        rounds = server.play(fed, state, executor, totals)
        sizes = {}
        for number in range(1, 221):
            next(rounds)
            if number in (20, 120, 220):
                sizes[number] = resident_bytes()
        print(f"\nresident MB of the main process: { ({n: s // 2**20 for n, s in sizes.items()}) }")
        benchmark.extra_info["growth over 200 rounds"] = sizes[220] / sizes[20]
        benchmark.pedantic(lambda: next(rounds), rounds=1)
    finally:
        executor.close()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_planning_a_round_of_a_thousand_clients(name: str, tmp_path: Path, benchmark: Any) -> None:
    """At most 0.2 s of one core for every method; the scores of the model are computed once."""
    flags = {"method.name": name, "task.clients": 1000, "task.partition.kind": "iid"}
    fed = (setup := prepare_run(load_recipe(None, flags=flags), tmp_path / "memory")).fed
    start = fed.context(0, "start", lambda client, **values: None)
    state = fed.method.begin(start, ServerState(0, setup.values, setup.support))
    if name == "pace":  # knows nobody yet, and would give everybody the same model
        factors = {client: 1.0 + client % 7 for client in range(1000)}
        state = dataclasses.replace(
            state, method=dataclasses.replace(state.method, factors=factors)
        )
    ctx = fed.context(1, "round", lambda client, **values: None)
    ctx = dataclasses.replace(ctx, cohort=choose_cohort(fed, ctx, state))
    assert len(ctx.cohort) > 900
    asks = benchmark.pedantic(lambda: plan_round(fed, ctx, state), rounds=3, warmup_rounds=1)
    assert len(asks) == len(ctx.cohort)
    print(f"\n{name}: {min(benchmark.stats.stats.data):.3f} s")
