"""What ends a run: too few usable replies, or a model that is no longer finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fpcli.engine.federation import Refusal, Rules
from fpcli.engine.receive import DROPPED
from fpcli.engine.types import ServerState
from fpcli.errors import ClientError, DivergedError


def give_up_if_all_diverged(
    number: int, cohort: Sequence[int], refusals: Sequence[Refusal]
) -> None:
    """Stop a run that no retry can help.

    Raises:
        DivergedError: every client of a round reports that it diverged.
    """
    diverged = [r for r in refusals if r.code == "F408" and r.reason.startswith("diverged")]
    if cohort and len(diverged) == len(cohort):
        raise DivergedError(
            f"all {len(cohort)} clients diverged in round {number} ({diverged[0].reason})",
            hint="lower local.lr",
        )


def too_few(rules: Rules, number: int, num_usable: int, refusals: Sequence[Refusal]) -> ClientError:
    """Return the error of a round with too few usable replies, in words about the first reason."""
    first = next(iter({refusal.reason: refusal for refusal in refusals}.values()), None)
    why = f"client {first.client}: {first.reason}" if first else "no client was available"
    codes = {refusal.code for refusal in refusals}
    if "F409" in codes:
        hint = "raise fleet.deadline_s or lower min_clients"
    elif not codes or codes & {code for code, _ in DROPPED.values()}:
        hint = "raise round_retries or fleet.availability, or lower fleet.dropout or min_clients"
    else:
        hint = "lower min_clients, or mend what the clients report"
    needed = f"{num_usable} usable replies, {rules.min_clients} needed"
    return ClientError(f"round {number}: {needed}: {why}", hint=hint)


def check_finite_state(state: ServerState) -> None:
    """Refuse a global model that is not finite.

    Raises:
        DivergedError: with the tensor's name.
    """
    for name, value in state.values.items():
        if not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"`{name}` of the global model is not finite after round {state.round}",
                hint="lower local.lr",
            )
