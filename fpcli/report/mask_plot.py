"""The picture of which units of each layer stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fpcli.report.canvas import make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_masks(rounds: Events, title: str) -> Figure:
    """Draw the mask of every layer as an image of outputs by inputs.

    Args:
        rounds: the last one notes ``kept_units``: the pattern, and of each layer its ``shape`` and
            its units in hexadecimal.
    """
    # It needs torch, which other pages do without.
    from fpcli.structure.mask_units import number_units, read_bits

    kept = rounds[-1]["notes"]["kept_units"]
    layers = kept["layers"]
    picture = make_figure(9, 1 + 2.3 * len(layers))
    panels = picture.subplots(len(layers), 1, squeeze=False)[:, 0]
    for axes, (name, layer) in zip(panels, layers.items(), strict=True):
        units = number_units(layer["shape"], kept["pattern"])
        mask = read_bits(layer["kept"], int(units.max()) + 1)[units]
        axes.imshow(
            mask.numpy(), cmap="Blues", vmin=-0.15, vmax=1.3, aspect="auto", interpolation="none"
        )
        axes.grid(visible=False)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("output")
        inputs = "input" if len(layer["shape"]) == 2 else "input channel x kernel"
        axes.set_xlabel(f"{inputs} (of {math.prod(layer['shape'][1:])})")
        share = float(mask.float().mean())
        axes.set_title(f"{name}: {share:.0%} kept (dark)", loc="left", fontsize=9.5)
    heading = f"{title}: {kept['pattern']} units after round {rounds[-1]['round']}"
    picture.suptitle(heading, x=0.01, ha="left", fontweight="bold")
    return picture
