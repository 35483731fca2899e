"""The proximal term of a client's objective: mu/2 ||w - w^t||^2, which keeps it near the server's.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fpcli.engine.client_context import ClientContext


def make_pull(cx: ClientContext, mu: float) -> Callable[[nn.Module], None] | None:
    """Return what adds mu (w - w^t), the term's gradient, to every gradient of a step; None for 0.

    Args:
        cx: has received w^t.
    """
    if not mu:
        return None
    anchor = {name: value.to(cx.torch_device) for name, value in cx.received.items()}

    def pull(model: nn.Module) -> None:
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                weight.grad.add_(weight.detach() - anchor[name], alpha=mu)

    return pull
