"""Peak memory of one model: opened and run in a process that does nothing else.

``python -m fpcli.export.peak_memory PATH BATCH CODE`` prints it as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fpcli.engine.process import prepare_libraries

_STATUS = Path("/proc/self/status")
_TIMEOUT_S = 300.0


def measure_peak(path: Path, batch: int, code: str = "") -> dict[str, int] | None:
    """Return ``peak_bytes``, the most memory that a process needed to open and run a model, and
    ``own_bytes``, what of that came after its libraries were loaded.

    None where the process failed.
    """
    words = [sys.executable, "-m", "fpcli.export.peak_memory", str(path), str(batch), code]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return figures


def read_resident(key: str) -> int:
    """Return bytes of this process' memory: ``VmRSS`` now, ``VmHWM`` at most so far.

    Where the system has no ``/proc`` both are the most so far.
    """
    if _STATUS.exists():
        # Not from getrusage, whose peak may be that of the process that started this one.
        line = next(x for x in _STATUS.read_text("utf-8").splitlines() if x.startswith(key))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows: the process fails, and nothing is told

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def run_model() -> None:
    """Open, run, and print."""
    path, batch, code = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    prepare_libraries()
    from fpcli.engine.process import settle_process
    from fpcli.export.candidates import open_candidate, try_out
    from fpcli.export.formats import PROGRAMS

    settle_process()
    if path.suffix == ".onnx":  # its library is no part of the model either
        PROGRAMS["onnx"].check_installed(str(path), ["onnxruntime"])
    before = read_resident("VmRSS")
    candidate = open_candidate(path, code=code)
    try_out(candidate, candidate.draw(batch))()
    peak = read_resident("VmHWM")
    print(json.dumps({"peak_bytes": peak, "own_bytes": max(0, peak - before)}))


if __name__ == "__main__":
    run_model()
