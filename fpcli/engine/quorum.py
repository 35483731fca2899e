"""What ends a run: too few usable replies, or a model that is no longer finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fpcli.engine.federation import Refusal, Rules
from fpcli.engine.receive import DROPPED
from fpcli.engine.types import ServerState
from fpcli.errors import ClientError, DivergedError


def give_up_if_all_diverged(
    number: int, cohort: Sequence[int], refusals: Sequence[Refusal], hint: str
) -> None:
    """Stop a run that no retry can help.

    Raises:
        DivergedError: every client of a round reports that it diverged.
    """
    diverged = [r for r in refusals if r.code == "F408" and r.reason.startswith("diverged")]
    if cohort and len(diverged) == len(cohort):
        raise DivergedError(
            f"all {len(cohort)} clients diverged in round {number} ({diverged[0].reason})",
            hint=hint,
        )


def explain_too_few(
    rules: Rules, number: int, num_usable: int, refusals: Sequence[Refusal]
) -> ClientError:
    """Return the error of a round with too few usable replies, in words about the first reason.

    Args:
        number: of the round; 0 for what is asked before the first, where one answer is enough.
    """
    first = next(iter({refusal.reason: refusal for refusal in refusals}.values()), None)
    why = f"client {first.client}: {first.reason}" if first else "no client was available"
    codes = {refusal.code for refusal in refusals}
    needed = rules.min_clients if number else 1
    fewer = " or lower min_clients" if needed > 1 else ""
    if "F409" in codes:
        hint = f"raise fleet.deadline_s{fewer}"
    elif not codes or codes & {code for code, _ in DROPPED.values()}:
        hint = f"raise round_retries or fleet.availability, or lower fleet.dropout{fewer}"
    else:
        hint = f"mend what the clients report{fewer}"
    when = f"round {number}" if number else "before round 1"
    return ClientError(f"{when}: {num_usable} usable replies, {needed} needed: {why}", hint=hint)


def describe_refusals(when: str, refusals: Sequence[Refusal], used: str = "") -> list[str]:
    """Return one line per kind of refusal, naming its clients.

    Args:
        when: what the lines begin with.
        used: what those end with that are about training.
    """
    groups: dict[tuple[str, bool, str], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.op, refusal.is_dropped, refusal.code), []).append(refusal)
    lines = []
    for (op, is_dropped, code), refused in groups.items():
        clients = sorted({refusal.client for refusal in refused})
        names = f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients))}"
        how = "dropped" if is_dropped else "rejected"
        end = used if op == "train" else ""
        lines.append(f"{when}: {names} {how} ({code} {refused[0].reason}){end}")
    return lines


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
