"""What of this machine a process may use: by CPU affinity, Linux control groups, Slurm and CUDA_VISIBLE_DEVICES.

The plan refuses by these numbers, and the Ray that a run starts has them.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from samref.progress import readable_size

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""In this order; the first is set where a job asks for CPUs by the task."""


def cpus(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> tuple[int, str]:
    """CPUs that this process may use, at least one, and what bounds them; nothing does where they are the machine's.

    `root` is where `proc` and `sys` are.
    """
    bounds = {"": float(os.cpu_count() or 1)}
    if hasattr(os, "sched_getaffinity"):
        bounds["CPU affinity"] = len(os.sched_getaffinity(0))
    if quotas := list(_quotas(root)):
        bounds["the control group's quota"] = min(quotas)
    if name := next((name for name in SLURM if environment.get(name, "").isdecimal()), None):
        bounds[name] = int(environment[name])
    by = min(bounds, key=bounds.__getitem__)
    return max(1, int(bounds[by])), by


def memory(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes of memory that this process and the others of its control groups may use, and what bounds them."""
    bounds = [(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "")]
    for folder in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                bounds.append((int((folder / name).read_text()), "the control group's limit"))
    return min(bounds)


def killed(root: Path = Path("/")) -> int:
    """How many processes the kernel killed so far because the memory of one of this one's control groups was full."""
    kills = 0
    for folder in _groups("memory", root):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                kills += int(dict(map(str.split, (folder / name).read_text().splitlines())).get("oom_kill", 0))
    return kills


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Where the process' control groups may be, from its own up to the root's, of either version of them."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            mounted = root / "sys/fs/cgroup"
            if controllers and controller not in controllers.split(","):
                continue
            for group in (Path(own), *Path(own).parents):
                for folder in dict.fromkeys((mounted, mounted / controllers, mounted / "unified")):
                    yield folder / str(group).lstrip("/")


def _quotas(root: Path) -> Iterator[float]:
    """The CPUs that the process' control groups allow."""
    for folder in _groups("cpu", root):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # "max" is no number
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                yield int(quota) / int(period)


def gpus(environment: Mapping[str, str] = os.environ, present: Mapping[int, str] | None = None) -> tuple[int, str]:
    """GPUs that this process may use, and what CUDA_VISIBLE_DEVICES names that is not there.

    `present` has the UUIDs of the machine's GPUs by number; None asks the driver.
    """
    there = _present() if present is None else present
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return len(there), ""
    names = [name.strip() for name in named.split(",") if name.strip()]
    for count, name in enumerate(names):
        # CUDA takes what stands before the first name that it does not know.
        known = int(name) in there if name.isdecimal() else any(uuid.startswith(name) for uuid in there.values())
        if not known and not (name.startswith("MIG-") and there):
            return count, "" if name == "-1" else f"CUDA_VISIBLE_DEVICES={named}"
    return len(names), ""


def _present() -> dict[int, str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return {number: str(pynvml.nvmlDeviceGetUUID(handle)) for number, handle in enumerate(handles)}
    except pynvml.NVMLError:
        return {}


def this_machine() -> list[dict[str, float]]:
    """The resources of this machine as a cluster's only node, in Ray's words, found without starting Ray."""
    return [{"CPU": float(cpus()[0]), "GPU": float(gpus()[0])}]


def notes() -> tuple[str, ...]:
    """What to know where this machine is not used whole."""
    (count, by), (seen, absent), (size, limit) = cpus(), gpus(), memory()
    few = f"{count} of this machine's {os.cpu_count()} CPUs are used ({by})"
    none = f"{absent} names GPUs that are not there; {seen} are used"
    little = f"{readable_size(size)} of this machine's memory may be used ({limit})"
    return (*([few] if by else []), *([none] if absent else []), *([little] if limit else []))
