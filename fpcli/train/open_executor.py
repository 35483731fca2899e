"""Who performs the jobs of a run: this process, or a pool of workers."""

from __future__ import annotations

from fpcli.engine.exchange import Executor
from fpcli.engine.executors.inline import Inline
from fpcli.engine.executors.pool import Pool
from fpcli.engine.process import num_cores
from fpcli.train.setup import Setup


def open_executor(setup: Setup) -> tuple[Executor, str]:
    """Start the executor that the recipe asks for, and say in a few words what it is and why."""
    choice, cores = setup.recipe.executor, num_cores()
    useful = setup.fed.rules.clients_per_round
    workers = choice.workers or min(cores, useful)
    if choice.device != "cpu" and choice.kind == "auto" and not choice.workers:
        return Inline(setup.site), f"inline on {choice.device}: one process per accelerator"
    if choice.kind == "inline" or (choice.kind == "auto" and workers == 1):
        why = "as asked" if choice.kind == "inline" or choice.workers else "one core or one client"
        return Inline(setup.site), f"inline ({why})"
    why = "as asked" if choice.workers else f"{cores} cores, {useful} clients per round"
    return Pool(setup.site, workers, choice.client_timeout_s), f"pool of {workers} ({why})"
