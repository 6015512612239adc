"""Where the time of work goes on a GPU and beside it: its kernels, and what the calling thread does meanwhile.

Twice: once by torch's profiler, whose kernels' sum is what the work would take if the host never kept the device
waiting, and which tells before what the device waits; and once with a look at the calling thread's stack every few
milliseconds, which tells launching from waiting.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from torch.profiler import ProfilerActivity, profile

_LOOK_SECONDS = 0.002
_ROWS = 16


def tell(name: str, work: Callable[[], object], device: str) -> None:
    """Print both for work that has been warmed up."""
    if device.startswith("cuda"):
        _kernels(name, work)
    looks, seconds = _looks(work)
    total = sum(looks.values())
    print(f"\n{name}: {seconds:.2f} s; the calling thread's share, of {total} looks")
    for place, count in looks.most_common(_ROWS):
        print(f"  {100 * count / total:5.1f} %  {place}")
    sys.stdout.flush()


def _kernels(name: str, work: Callable[[], object]) -> None:
    torch.cuda.synchronize()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    rows = sorted(profiled.key_averages(), key=lambda row: -row.self_device_time_total)
    taken, count = sum(row.self_device_time_total for row in rows) / 1e6, sum(row.count for row in rows)
    print(f"\n{name}: {seconds:.2f} s, profiled; {count} kernels and copies took {taken:.2f} s, of which")
    for row in rows[:_ROWS]:
        print(f"  {row.self_device_time_total / 1e3:9.2f} ms {row.count:7d} ×  {row.key[:110]}")
    waits, times = Counter[str](), Counter[str]()
    end = 0
    events = profiled.profiler.kineto_results.events() if profiled.profiler else []
    for begin, took, key in sorted(
        (each.start_ns(), each.duration_ns(), each.name()) for each in events if "CUDA" in str(each.device_type())
    ):
        if end and begin > end:
            waits[key] += begin - end
            times[key] += 1
        end = max(end, begin + took)
    print(f"it waited for {sum(waits.values()) / 1e9:.2f} s, of which before")
    for key, nanoseconds in waits.most_common(_ROWS // 2):
        print(f"  {nanoseconds / 1e6:9.2f} ms {times[key]:7d} ×  {key[:110]}")


def _looks(work: Callable[[], object]) -> tuple[Counter[str], float]:
    """How often the calling thread was seen in each place: the innermost line of ours, and what it had called."""
    thread, found, over = threading.get_ident(), Counter[str](), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if frame := sys._current_frames().get(thread):
                found[_place(frame)] += 1

    looking = threading.Thread(target=look)
    looking.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        over.set()
        looking.join()
    return found, time.perf_counter() - began


def _place(frame: FrameType) -> str:
    innermost = frame.f_code.co_name
    own: FrameType | None = frame
    while own is not None and "samref" not in Path(own.f_code.co_filename).parts:
        own = own.f_back
    if own is None:
        return innermost
    where = f"{Path(own.f_code.co_filename).name}:{own.f_lineno} {own.f_code.co_name}"
    return where if own is frame else f"{where} > {innermost}"
