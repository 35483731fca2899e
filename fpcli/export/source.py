"""Which model is exported: the final one, a round's, a client's own, or one cut on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fpcli import plugins
from fpcli.engine import memory
from fpcli.engine.client_context import EVALUATE, ClientContext
from fpcli.engine.exchange import make_job
from fpcli.engine.planning import foresee
from fpcli.engine.trained import Trained
from fpcli.engine.types import Ask, ServerState
from fpcli.errors import DataError, LayoutError, UsageError
from fpcli.recipe.load import digest_recipe, find_command, load_recipe, read_stored
from fpcli.scores.sample import needs_sample, score
from fpcli.settings.recipes import Recipe
from fpcli.store import checkpoint
from fpcli.store.events import read_events
from fpcli.store.model_folder import read_trained
from fpcli.store.weights import explain_unreadable
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.shrink import fill_buffers
from fpcli.structure.support import Support
from fpcli.train.setup import Setup, prepare_run


@dataclass(frozen=True, eq=False)
class ExportSource:
    """A model to export, and where it is from.

    Attributes:
        name: for its files.
        about: run, method, round, client and ratio, as far as they say something.
    """

    name: str
    trained: Trained
    about: Mapping[str, Any]

    def cut(self, ratio: float) -> ExportSource:
        """Return the model without its lowest-scored channels.

        The score is the one by which the model's method cuts, or l1 where it has none that needs
        nothing but weights.

        Args:
            ratio: share of the whole network's channels of every group that leaves; of what left
                before nothing leaves again.

        Raises:
            RecipeError: the ratio is outside [0, 1].
            LayoutError: no channels of the network may leave.
        """
        trained, name = self.trained, str(self.about.get("score", "l1"))
        if not trained.layout.prunable:
            raise LayoutError(
                f"`{trained.model}` has no channels that may leave",
                hint="leave out --ratio; `fp prune --dry-run` says what ties its channels",
                where="--ratio",
            )
        if name not in plugins.list_names("scores") or needs_sample(name):
            name = "l1"
        kept = keep_ranked(trained.layout, score(name, trained.layout, trained.values), ratio)
        smaller = trained.cut(trained.support.intersect(Support(kept)))
        about = {**self.about, "ratio": ratio, "score": name}
        return ExportSource(f"{self.name}-ratio{ratio:g}", smaller, about)


def read_final_model(folder: Path, *, code: str = "") -> ExportSource:
    """Return the final model of a run, or the model in an output folder of ``fp prune``.

    Args:
        code: see ``model_folder.read_trained``.

    Raises:
        UsageError: there is none.
        DataError: it is damaged.
    """
    return ExportSource("model", read_trained(folder, code=code, must_trace=False), _about(folder))


def read_round_models(
    folder: Path,
    *,
    round: int | None = None,
    clients: tuple[int, ...] | None = (),
    flags: Mapping[str, Any],
) -> tuple[list[ExportSource], list[int]]:
    """Return models from a checkpoint of a federated run.

    A client's model is what the plan of the next round gives it, with the values after ``round``
    rounds; under a personalised method it is the model that the client itself uses.

    Args:
        round: None for the newest checkpoint.
        clients: whose models; empty for the global one, None for all clients.
        flags: dotted keys of the recipe that the command line sets: code that may run, and where
            the data is now.

    Returns:
        The models, and the clients that were left out of all clients since they have none.

    Raises:
        UsageError: the folder is no federated run, or has no such round or client.
        DataError: a client has no model of its own.
        ResumeError: the checkpoint cannot be used.
    """
    _check_federated(folder)
    recipe = load_recipe(folder / "recipe.yaml", flags=flags, cls=Recipe)
    setup = prepare_run(_on_cpu(recipe), folder / "memory")
    state, _, _ = checkpoint.load_newest(
        folder, method_state=setup.fed.method.State, digest=digest_recipe(recipe), round=round
    )
    about = {**_about(folder), "round": state.round}
    if clients == ():
        judged = setup.trained(setup.fed.read_judged(state), Support()).cut(state.support)
        return [ExportSource(f"round{state.round:05d}", judged, about)], []
    whole = setup.trained(state.values, Support())
    chosen, absent = _holders(setup, state, clients)
    return [_of_client(setup, state, c, whole, about) for c in chosen], absent


def _holders(
    setup: Setup, state: ServerState, clients: tuple[int, ...] | None
) -> tuple[list[int], list[int]]:
    """Return the clients asked for that have a model, and those of all that have none.

    Arguments and errors as for :func:`read_round_models`.
    """
    everyone = range(len(setup.fed.num_examples))
    chosen = everyone if clients is None else clients
    if missing := [client for client in chosen if client not in everyone]:
        raise UsageError(
            f"the run has no client {missing[0]}",
            hint=f"its clients are 0 to {everyone[-1]}",
            where="--client",
        )
    home, is_personal = setup.site.home, setup.fed.traits.models == "personal"
    sizes = setup.fed.num_examples
    absent = [
        c
        for c in chosen
        if not sizes[c] or (is_personal and not memory.has_any(home, c, state.round + 1))
    ]
    if absent and (clients is not None or len(absent) == len(chosen)):
        why = f"it has not trained yet, or {home} is gone"
        if not sizes[absent[0]]:
            why = "it has no training samples, so that it never gets one"
        raise DataError(
            f"client {absent[0]} has no model of its own after round {state.round}",
            hint=f"{why}; another client may have",
            where="--client",
        )
    return [c for c in chosen if c not in absent], absent


def _about(folder: Path) -> dict[str, Any]:
    """Return what the recipe and the events beside a model say about its making."""
    about: dict[str, Any] = {"run": folder.resolve().name}
    path = folder / "recipe.yaml"
    if path.is_file():
        settings = read_stored(path)
        keys = {"method": "method.name", "score": "method.score", "seed": "seed"}
        about |= {
            name: settings[key] for name, key in keys.items() if settings.get(key) is not None
        }
    path = folder / "events.jsonl"
    if rounds := [e["round"] for e in read_events(path) if "round" in e] if path.is_file() else []:
        about["round"] = rounds[-1]
    return about


def _check_federated(folder: Path) -> None:
    path = folder / "recipe.yaml"
    if not path.is_file() or find_command(path) != "train":
        raise UsageError(
            f"{folder} is no run of `fp train`: it has no rounds and no clients",
            hint="leave out --round and --client, or give a federated run",
            where=str(folder),
        )


def _on_cpu(recipe: Recipe) -> Recipe:
    return replace(recipe, executor=replace(recipe.executor, device="cpu"))


def _of_client(
    setup: Setup, state: ServerState, client: int, whole: Trained, about: Mapping[str, Any]
) -> ExportSource:
    # A method that shares out models among a cohort sees the cohort that this client would be in.
    asks = foresee(setup.fed, state, state.round + 1, client)
    (ask,) = (ask for ask in asks if ask.client == client)
    trained = whole.cut(ask.support)
    if setup.fed.traits.models == "personal":
        trained = _personal(setup, state, ask, whole)
    record = {key: value for key, value in ask.record.items() if isinstance(value, int | float)}
    about_client = {**about, **record, "client": client, "plan_of_round": state.round + 1}
    return ExportSource(f"client{client:03d}-round{state.round:05d}", trained, about_client)


def _personal(setup: Setup, state: ServerState, ask: Ask, whole: Trained) -> Trained:
    """Return what a client would predict with, from its memory."""
    fed, site, layout = setup.fed, setup.site, whole.layout
    job = make_job(fed, state, replace(ask, op=EVALUATE), state.round)
    received = ask.support.gather(fed.travels, state.values)
    try:
        seen = fed.method.view(ClientContext(site, job), received)
        block = fill_buffers(fed.template, seen)
    except (OSError, SafetensorError) as error:
        raise explain_unreadable(site.home / f"client-{ask.client:05d}", error) from error
    values, _ = ask.support.scatter(layout, block)
    # Masks of the client's own are known by the zeros that they leave in its weights.
    mask = {
        name: values[name] != 0
        for name, x in block.items()
        if layout.tensors[name].is_parameter and x.dim() > 1 and bool((x == 0).any())
    }
    return replace(whole, values=values).cut(Support(ask.support.keep, mask))
