"""FedAvg: every client trains the whole model, and the server averages by sample counts.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1. In delta form: the server adds the mean change, which is the same
as averaging the models. It is all of `Method`'s defaults; FedMP's study calls it Syn-FL.
"""

from __future__ import annotations

from typing import ClassVar

from fpcli.engine.method import Method


class FedAvg(Method):
    """Weighted averaging of full models."""

    source: ClassVar[str] = "McMahan et al., AISTATS 2017"
