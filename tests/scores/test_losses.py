"""Scores that look at a loss look at that of what is learned."""

from __future__ import annotations

import pytest
import torch
from tasked import learned
from torch import nn

from fpcli.data.batches import evaluation_batches
from fpcli.errors import RecipeError
from fpcli.scores.curvature import compute_gradient, make_loss, make_products
from fpcli.scores.sample import Sample, score
from fpcli.structure.trace import trace
from fpcli.tasks.rank import Rank
from fpcli.tasks.regress import Regress


def test_taylor_takes_the_squared_error_of_numbers() -> None:
    """Outputs 5 and 10, in standard units 3 and 3 wanted; the loss (2² + 7²) / 2, its gradients of
    both outputs 2 and 7; hidden channel c has |sum of gradient · its weights · x|."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
        net[1].weight.copy_(torch.tensor([[1.0, 2.0]]))
    layout = trace(net, torch.zeros(1, 1))
    values = {name: net.state_dict()[name] for name in layout.tensors}
    batch = (torch.tensor([[1.0], [2.0]]), torch.tensor([16.0, 16.0]))
    sample = Sample(net, [batch], Regress(mean=10.0, std=2.0))
    found = score("taylor", layout, values, sample)["0"]
    # d loss / d weight c of the first layer times it: sum over samples of g · v_c · x · w_c.
    assert found.tolist() == pytest.approx([2 * 1 + 7 * 2, 4 * (2 * 1 + 7 * 2)])


def test_what_a_loss_draws_is_drawn_from_the_samples_seed() -> None:
    trained, data = learned("rank")
    batches = list(evaluation_batches(data.validation, data.normalise))
    before = torch.get_rng_state()
    scores = [
        score("taylor", trained.layout, trained.values,
              Sample(trained.template, batches, data.task, seed))["hidden"]
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["regress", "rank"])
def test_curvature_is_that_of_the_tasks_loss(kind: str) -> None:
    """The Hessian's product is the difference of gradients a small step apart."""
    trained, data = learned(kind)
    batch = next(iter(evaluation_batches(data.validation, data.normalise, batch_size=8)))
    loss, at = make_loss(trained.module(), batch, data.task)
    assert float(loss(at)) == float(loss(at))
    torch.manual_seed(0)
    step = torch.randn_like(at)
    moved = compute_gradient(loss, at + 1e-6 * step) - compute_gradient(loss, at - 1e-6 * step)
    torch.testing.assert_close(make_products(loss, at)(step), moved / 2e-6, rtol=1e-3, atol=1e-3)


def test_nisp_follows_no_look_up_of_items() -> None:
    trained, data = learned("rank")
    sample = Sample(trained.template, [(data.test.images, data.test.labels)], Rank(12))
    with pytest.raises(RecipeError, match="it reads items, not numbers"):
        score("nisp", trained.layout, trained.values, sample)
