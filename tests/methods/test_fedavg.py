"""FedAvg against a loop written out by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import toy_recipe

from fpcli.data.batches import batches
from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.models.build import build
from fpcli.rng import derive, stream
from fpcli.train.setup import prepare_run


def test_one_round_is_the_weighted_mean_of_locally_trained_models(tmp_path: Path) -> None:
    """Train a copy per client with plain torch; average by sample counts; compare to 1e-6."""
    recipe = toy_recipe("fedavg", rounds=1, executor__channels_last=False)
    setup = prepare_run(recipe, tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    state, record = next(server.play(setup.fed, state, executor, totals))

    data, mean, total = setup.fed.dataset, {}, sum(setup.fed.num_examples)
    for client, part in enumerate(setup.parts):
        model = build("nets:tiny", data.input_shape, data.task, seed=7, allow_code=True)
        model.train()
        torch.manual_seed(derive(7, "client/torch/train", 1, client))
        sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5, weight_decay=0.001)
        order = stream(7, "client/batches/0", 1, client)
        for x, y in batches(data.train, part, data.normalise, batch_size=64, generator=order):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            sgd.step()
        for name, value in model.state_dict().items():
            mean[name] = mean.get(name, 0) + value * (len(part) / total)
    for name, value in state.values.items():
        assert torch.allclose(value, mean[name], atol=1e-6), name
    assert [client.num_examples for client in record.clients] == [len(p) for p in setup.parts]
