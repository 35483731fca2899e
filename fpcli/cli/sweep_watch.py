"""Follow a sweep: a bar on a terminal, else one plain line per group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from fpcli.cli import show
from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.pruning.sweep import (
    BASELINE,
    Cut,
    SweepConfig,
    Tally,
    choose_images,
    key_after_retraining,
)
from fpcli.structure.cost import count_cost
from fpcli.units import format_seconds


class SweepWatcher:
    """The watcher of `fp sensitivity`; a point is one cut model, judged once.

    Args:
        is_quiet: show nothing.
        is_moving: a terminal shows a bar.
    """

    def __init__(
        self,
        trained: Trained,
        dataset: Dataset,
        config: SweepConfig,
        cuts: Sequence[Cut],
        *,
        is_quiet: bool,
        is_moving: bool,
    ) -> None:
        self._images = len(choose_images(dataset, config))
        keys = [cut.key for cut in cuts]
        self._groups = {cut.key: cut.group for cut in cuts}
        if config.retraining is not None:
            keys += [key_after_retraining(key) for key in keys]
            self._groups |= {
                key_after_retraining(cut.key): f"{cut.group}, retrained" for cut in cuts
            }
        self._total = len(keys) + 1
        self._metric = dataset.task.primary_name
        self._is_quiet = is_quiet
        self._display = show.Display(is_moving=is_moving and not is_quiet, unit="point")
        # Asked once, since a bar on the terminal puts something else in the place of stderr.
        self._dot = show.dot()
        params = count_cost(trained.layout, trained.support).params
        split = "test" if config.is_test else "validation"
        self._header = [
            f"{trained.model} ({params:,} params)",
            f"{dataset.name}, {self._images:,} {split} images",
            f"{self._total:,} points",
        ]
        self._begun, self._before, self._last = 0.0, 0.0, ""

    def start(self, tallies: Mapping[str, Tally]) -> None:
        """Show what is swept, and how much of it is done already."""
        self._begun, self._before = time.monotonic(), self._done(tallies)
        self._say(self._dot.join(self._header))
        if tallies:
            self._say(f"going on after {self._before:.0f} of {self._total} points")
        if not self._is_quiet:
            self._display.begin(int(self._before), self._total)

    def update(self, key: str, tallies: Mapping[str, Tally]) -> None:
        """Show one more judgement."""
        done, group = self._done(tallies), self._groups.get(key, "whole model")
        if self._display.is_moving:
            elapsed = time.monotonic() - self._begun
            left = elapsed / max(done - self._before, 1e-9) * (self._total - done)
            details = self._dot.join(
                [group, show.format_briefly(self._metric, tallies[key].metric)]
            )
            self._display.update(int(done), f"left {format_seconds(left)}", details)
        elif group != self._last and key != BASELINE:
            self._say(f"point {done:.0f}/{self._total}{self._dot}{group}")
        self._last = group

    def stopped(self) -> None:
        """Say that what was found is kept."""
        self._say("what was found so far is kept; the same command goes on from there")

    def end(self) -> None:
        """Stop redrawing the screen."""
        self._display.end()

    def _done(self, tallies: Mapping[str, Tally]) -> float:
        return sum(tally.seen for tally in tallies.values()) / self._images

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            self._display.line(text)
