"""What the server did, as a picture: shares of steps, and rates of layers."""

from __future__ import annotations

from typing import Any

from fpcli.report.canvas import draw_in_style
from fpcli.report.method_plots import draw_methods

CLIENT = {"pruning_error": 0.0, "notes": {}}
PRUNED = {
    "rate": 0.5, "clients": {"0": 0.4, "3": 0.6},
    "layers": {"conv1": {"rate": 0.25, "kept": 6, "width": 8}},
}  # fmt: skip


def step(share: float, *, is_undone: bool = False) -> dict[str, Any]:
    note = {"accuracy": 0.5, "weight": 0.8, "share": share, "num_steps": 40 * share}
    return {"server_step": note | {"is_undone": is_undone}}


def event(number: int, **notes: Any) -> dict[str, Any]:
    return {"round": number, "notes": notes, "clients": [CLIENT]}


def test_shares_and_rates_have_a_panel_each() -> None:
    rounds = [event(1, **step(0.4)), event(2, **step(0.2, is_undone=True), pruned=PRUNED)]
    with draw_in_style():
        ((stem, figure),) = draw_methods(rounds, "run")
        figure.draw_without_rendering()
    assert stem == "steps"
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.get_lines()}
    assert list(lines["share of the step (alpha)"].get_ydata()) == [0.4, 0.0]
    (steps,) = left.child_axes
    assert steps.get_ylim()[1] == 40 * left.get_ylim()[1]
    assert [bar.get_width() for bar in right.patches] == [0.25]
    assert [text.get_text().strip() for text in right.texts] == ["6 of 8 stay"]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["conv1", "clients (p_k)"]


def test_one_of_both_is_one_panel() -> None:
    for notes in (step(0.4), {"pruned": PRUNED}):
        with draw_in_style():
            ((_, figure),) = draw_methods([event(1, **notes)], "run")
        assert len(figure.axes) == 1
    assert list(draw_methods([event(1)], "run")) == []
