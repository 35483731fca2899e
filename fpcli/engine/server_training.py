"""Training on the server's own samples, as clients train on theirs."""

from __future__ import annotations

from torch import Tensor

from fpcli.engine.fit import explain_lone_sample, fit_epoch, make_optimizer
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Support, Tensors


def train_on_server(
    ctx: RoundContext, values: Tensors, support: Support, *, beside: bool = False
) -> dict[str, Tensor]:
    """Return values after the round's epochs on the server's samples.

    Args:
        beside: the clients work meanwhile.
    """
    server, local, num = ctx.server, ctx.local, ctx.server.num_examples
    model = server.module(values, support).train()
    optimizer, loss = make_optimizer(model, local), server.dataset.task.loss
    name = "local.batch_size"
    with server.seeded("train"), explain_lone_sample(local.batch_size, num, name):
        for epoch in range(local.epochs):
            batches = server.batches(epoch, batch_size=local.batch_size)
            fit_epoch(model, optimizer, batches, loss, clip_norm=local.clip_norm)
    server.charge(num * local.epochs, support, beside=beside)
    trained = model.state_dict()
    block = {name: trained[name].detach().cpu() for name in ctx.layout.tensors}
    return support.scatter(ctx.layout, block)[0]
