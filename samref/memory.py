"""The most memory that a piece of work took: of its process, and of its CUDA device."""

import contextlib
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def reset(device: str) -> None:
    """Begin to measure; a process that did other work before forgets that work's peak (on Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: 5 sets the peak back to what is resident now
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: str) -> dict[str, float]:
    """Since `reset`: `peak_memory_gb` of the process and, on CUDA, `device_peak_memory_gb`, in 10⁹ bytes."""
    found = {"peak_memory_gb": _process_bytes() / 1e9}
    if device.startswith("cuda"):
        import torch

        found["device_peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def _process_bytes() -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
