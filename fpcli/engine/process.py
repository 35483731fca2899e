"""Settings of a computing process that must be the same everywhere for equal bits and good speed.

Imports no torch at module level: :func:`prepare_libraries` must be able to run first.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_libraries() -> None:
    """Set the variables that the numerical libraries read once, when torch is imported.

    Spinning OpenMP threads make a step ten times slower as soon as anything else runs on the
    cores; a value that the user has set is kept.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def settle_process(num_threads: int = 1) -> None:
    """Set the intra-op threads, keep freed memory in the process, choose deterministic kernels.

    Without the allocator settings glibc returns memory to the system after every step of a deep
    network and faults it in again: about 15 % of the time of a small ResNet.
    """
    import torch

    torch.set_num_threads(num_threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Let operations use so many intra-op threads while the context lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
