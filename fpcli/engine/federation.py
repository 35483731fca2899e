"""What does not change during a run, and what is recorded of each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from fpcli.data.split import Split
from fpcli.engine.method import Method, Traits
from fpcli.engine.round_context import Phase, RoundContext
from fpcli.engine.server_side import ServerSide
from fpcli.engine.site import Common
from fpcli.engine.types import TRAIN, Ask, Json, LocalConfig, ServerState, Tensors
from fpcli.errors import DataError
from fpcli.rng import stream
from fpcli.settings.learning import ServerConfig
from fpcli.settings.metrics import find_metric
from fpcli.structure.cost import Cost, count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import LearningTask, Score
from fpcli.wire.blocks import carry_blocks, is_exact

_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Rules:
    """How rounds are played.

    Attributes:
        rounds: the last round.
        clients_per_round: size of a cohort; no more than clients with training samples.
        eval_every: rounds between evaluations; the last round is always evaluated.
        min_clients: usable replies without which a round does not count.
        round_retries: how often such a round is started again before the run fails.
        deadline_s: simulated seconds after which an update or an answer is too late; None waits for
            everyone.
        eval_clients: judge every client's model on test samples of its own classes too.
    """

    rounds: int
    clients_per_round: int
    eval_every: int = 1
    min_clients: int = 1
    round_retries: int = 2
    deadline_s: float | None = None
    eval_clients: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Federation(Common):
    """Everything of a run that is the same in every round, as the server needs it.

    Attributes:
        method_name: how jobs name the method.
        template: the full model's structure without values.
        classes: of which classes the clients' samples are, bool ``[clients, classes]``.
        withheld: classes that no client trains on; validation and test data have none of them.
        withheld_test: their test samples, which are scored beside the others.
        server_side: the server as a place that computes, with samples of its own or none.
        server: what the server does with the change that the method's aggregation made.
    """

    method: Method
    method_name: str
    layout: Layout
    template: nn.Module
    classes: Tensor
    local: LocalConfig
    down_codec: str
    rules: Rules
    server_side: ServerSide
    server: ServerConfig = field(default_factory=ServerConfig)
    withheld: tuple[int, ...] = ()
    withheld_test: Split | None = None

    def __post_init__(self) -> None:
        """Refuse a federation in which nobody could train.

        Raises:
            DataError: no client has a training sample.
        """
        if not any(self.num_examples):
            raise DataError(
                "no client has a training sample",
                hint="withhold fewer classes (task.withhold), or give clients samples",
            )

    @cached_property
    def traits(self) -> Traits:
        """Those of the method under its options."""
        return self.method.traits_of(self.options)

    @property
    def travels(self) -> Layout:
        """The part of the layout that jobs and changes carry."""
        return self.layout.parameters if self.traits.buffers == "local" else self.layout

    def share_labels(self, client: int, other: int) -> bool:
        """Tell whether two clients have training samples of a common class."""
        return bool((self.classes[client] & self.classes[other]).any())

    @cached_property
    def limit_bytes(self) -> int:
        """Length beyond which no honest message of this run can be."""
        return 4 * count_cost(self.layout, Support()).bytes + _SLACK_BYTES

    @property
    def divergence_hint(self) -> str:
        """What helps against a loss that is not finite."""
        coarse = (
            "" if is_exact(self.down_codec) else " or set wire.down=dense, which rounds no weight"
        )
        return f"lower local.lr{coarse}"

    def num_seen(self, ask: Ask) -> int:
        """Return how many samples of its own a client looks at."""
        withheld = self.num_withheld if ask.sees_withheld else ()
        return self.num_examples[ask.client] + (withheld[ask.client] if withheld else 0)

    def context(
        self,
        round: int,
        phase: Phase,
        log: Callable[..., None],
        attempt: int = 0,
        server: ServerSide | None = None,
    ) -> RoundContext:
        """Return what the method's server-side hooks may know in one phase of one round.

        Args:
            server: of the round, which every phase and attempt charges.
        """
        drops = sum(at <= round for at in self.local.lr_drop_at)
        local = replace(self.local, lr=self.local.lr * self.local.lr_drop**drops)
        return RoundContext(
            round=round,
            phase=phase,
            options=self.options,
            layout=self.layout,
            travels=self.travels,
            local=local,
            fleet=self.fleet,
            num_examples=self.num_examples,
            share_labels=self.share_labels,
            rounds=self.rules.rounds,
            clients_per_round=self.rules.clients_per_round,
            seed=self.seed,
            log=log,
            server=server or self.server_side.at(round),
            attempt=attempt,
            withheld=self.withheld,
            is_upload_exact=is_exact(self.up_codec),
            down_codec=self.down_codec,
        )

    def read_judged(self, state: ServerState) -> Tensors:
        """Return the dense values that are judged and written out (trait ``judges``)."""
        if self.traits.judges == "held" or is_exact(self.down_codec):
            return state.values
        layout, support = self.layout, state.support
        rng = stream(self.seed, "wire/down/judged", state.round)
        block, masks = support.gather(layout, state.values), support.block_mask(layout)
        return support.scatter(layout, carry_blocks(self.down_codec, block, masks, rng=rng))[0]


@dataclass(frozen=True)
class Refusal:
    """A reply that was not used.

    Attributes:
        code: see ``receive.Rejected`` and ``receive.DROPPED``.
        op: what the client was to do: train, or answer this question.
    """

    client: int
    code: str
    reason: str
    op: str = TRAIN

    @property
    def is_dropped(self) -> bool:
        """Tell a late or missing reply from a wrong one."""
        return "F409" <= self.code <= "F413"


@dataclass(frozen=True)
class ClientRecord:
    """One client's part in a round; seconds are simulated but for ``real_s``."""

    client: int
    num_examples: int
    num_steps: int
    loss: float
    params: int
    macs: float
    pruning_error: float
    down_bytes: int
    up_bytes: int
    compute_s: float
    down_s: float
    up_s: float
    real_s: float
    notes: Mapping[str, Json] = field(default_factory=dict)
    """What the plan recorded and what the method logged: ratio, reward and the like."""


@dataclass(frozen=True)
class Totals:
    """Sums since the start of the run, and its best model so far.

    Attributes:
        clock_s: simulated seconds.
        best_validation: metric -> its best value on validation data.
        best_test, best_round: the metrics on test data in the round with the best validation value
            of the task's primary metric (test data chose nothing), and that round.
    """

    clock_s: float = 0.0
    down_bytes: int = 0
    up_bytes: int = 0
    real_s: float = 0.0
    best_validation: Mapping[str, float] = field(default_factory=dict)
    best_test: Mapping[str, float] = field(default_factory=dict)
    best_round: int = 0

    def judged(self, task: LearningTask, validation: Score, test: Score, round: int) -> Totals:
        """Return the sums after a round whose model got these scores."""
        better = {
            name: value
            for name, value in validation.metrics.items()
            if find_metric(name).exceeds(value, self.best_validation.get(name))
        }
        totals = replace(self, best_validation={**self.best_validation, **better})
        if task.primary_name not in better:
            return totals
        return replace(totals, best_test=dict(test.metrics), best_round=round)

    def reaches(self, target: Mapping[str, float]) -> bool:
        """Tell whether validation metrics have been as good as targets, each in some round."""
        return all(
            name in self.best_validation
            and find_metric(name).reaches(self.best_validation[name], value)
            for name, value in target.items()
        )

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Totals:
        """Return what a checkpoint holds; those of earlier versions knew accuracy alone."""
        sums = dict(stored)
        if "best_accuracy" in sums:
            value, test = sums.pop("best_validation"), sums.pop("best_accuracy")
            sums["best_validation"] = {"accuracy": value} if value >= 0 else {}
            sums["best_test"] = {"accuracy": test} if value >= 0 else {}
        return cls(**sums)


@dataclass(frozen=True)
class Evaluation:
    """Scores of the global model, and of personal models where the method has them.

    Attributes:
        withheld: on the test samples of withheld classes, where there are any.
    """

    validation: Score
    test: Score
    clients: Mapping[int, Score] = field(default_factory=dict)
    withheld: Score | None = None


@dataclass(frozen=True)
class RoundRecord:
    """All that is known about a finished round; the event stream's source.

    Attributes:
        loss: mean training loss of the used clients, weighted by samples.
        clock_s: simulated seconds of this round, failed attempts included.
        cost: size of the global model.
        coverage: fewest used clients that hold a prunable parameter.
        notes: what the method logged about the round as a whole.
    """

    round: int
    cohort: tuple[int, ...]
    clients: tuple[ClientRecord, ...]
    refusals: tuple[Refusal, ...]
    attempts: int
    loss: float
    clock_s: float
    down_bytes: int
    up_bytes: int
    real_s: float
    cost: Cost
    coverage: int
    notes: Mapping[str, Json]
    totals: Totals
    evaluation: Evaluation | None = None
