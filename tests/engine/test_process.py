from __future__ import annotations

import os

import pytest
import torch

ASKED = os.environ.get("ATEN_CPU_CAPABILITY", "")


@pytest.mark.processor
@pytest.mark.skipif(not ASKED, reason="ATEN_CPU_CAPABILITY is not set")
def test_the_instruction_set_is_the_one_that_was_asked_for() -> None:
    """Otherwise repeating tests under others would prove nothing."""
    assert torch.backends.cpu.get_cpu_capability().lower() == ASKED
