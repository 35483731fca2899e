"""Follow a pruning: what `fp prune` says while it goes on, and the history that it keeps."""

from __future__ import annotations

import time
from typing import Any

from fpcli.cli.session import Session, join_lines
from fpcli.cli.show import Display, dot, format_briefly
from fpcli.units import format_seconds


class PruneWatch:
    """Takes the events of a pruning.

    Args:
        session: collects the warnings.
        num_epochs: of retraining after each step.
        is_quiet: the screen shows warnings only.
        is_moving: a terminal shows a bar instead of one line per epoch.
    """

    def __init__(
        self, session: Session, num_epochs: int, *, is_quiet: bool, is_moving: bool
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self._session = session
        self._num_epochs = num_epochs
        self._is_quiet = is_quiet
        self._display = Display(is_moving=is_moving and not is_quiet, unit="epoch")
        # Asked once, since a bar on the terminal puts something else in the place of stderr.
        self._dot = dot()
        self._total = self._done = 0
        self._metric = ""
        self._started = time.perf_counter()

    def log(self, **event: Any) -> None:
        """Keep an event, and show it."""
        self.history.append(event)
        if event["event"] == "before":
            self._total = event["num_steps"] * self._num_epochs
            self._metric = event["metric"]
            self.say(self._line(["before"], event))
            self._started = time.perf_counter()
            if self._total:
                self._display.begin(0, self._total)
        elif event["event"] in ("cut", "recalibrated"):
            self.say(self._line([f"step {event['step']}", event["event"]], event))
        elif event["event"] == "sparse":
            self.say(self._trained("sparse epoch", event))
        elif event["event"] == "epoch":
            self._epoch(event)

    def _epoch(self, event: dict[str, Any]) -> None:
        self._done += 1
        line = self._trained("epoch", event)
        if self._display.is_moving:
            passed = time.perf_counter() - self._started
            left = passed / self._done * max(0, self._total - self._done)
            self._display.update(self._done, f"left {format_seconds(left)}", line)
        else:
            self.say(self._dot.join([line, f"real {format_seconds(event['real_s'])}"]))

    def _trained(self, name: str, event: dict[str, Any]) -> str:
        loss = f"loss {event['loss']:.4f}"
        return self._line([f"step {event['step']}", f"{name} {event['epoch']}", loss], event)

    def _line(self, parts: list[str], event: dict[str, Any]) -> str:
        value = event["validation"][self._metric]
        parts = [*parts, f"validation {format_briefly(self._metric, value)}"]
        if "params" in event:
            parts.append(f"{event['params']:,} params")
        return self._dot.join(parts)

    def tell(self, text: str) -> None:
        """Show a warning or remark."""
        text = join_lines(text)
        if text.startswith("warning: "):
            self._session.warnings.append(text.removeprefix("warning: "))
        self._display.line(text)

    def say(self, text: str) -> None:
        """Show a line unless the screen is to be quiet."""
        if not self._is_quiet:
            self._display.line(text)

    def end(self) -> None:
        """Stop redrawing the screen."""
        self._display.end()
