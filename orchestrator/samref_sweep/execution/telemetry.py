"""What a training does to its machine, sampled while it runs: one JSON line each ten seconds.

The names are those of MLflow's own system metrics, which a worker could log only by writing to MLflow itself: the
driver does, from the reports that carry the newest reading. Of the GPU, memory and utilisation are of all that run on
it. The readings were not tried on a GPU.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from samref.stage import Report
from samref_sweep.repeating import every

SAMPLE_SECONDS = 10.0
MEGABYTE = 1e6


@contextmanager
def sampled(file: Path, device: str, report: Report) -> Iterator[Report]:
    """Sample a training's machine and its device (torch's name of it) for the block, and give its report in place of
    `report`: to that it passes on each with the newest reading, under names that begin with `system/`.

    The file gets lines {"time": seconds since 1970, "step": steps made, "steps_per_second": since the line before, …}.
    """
    gpu = _gpu(device) if device.startswith("cuda") else None
    newest: dict[str, float] = {}
    step = 0
    with file.open("a", buffering=1) as lines:

        def sample() -> None:
            nonlocal newest
            now: dict[str, float] = {"time": time.time(), "step": step}
            if newest and step > newest["step"]:
                now["steps_per_second"] = (step - newest["step"]) / (now["time"] - newest["time"])
            now |= {**_machine(), **(_gpu_reading(gpu) if gpu is not None else {})}
            lines.write(json.dumps(now) + "\n")
            newest = now

        def told(steps: int, metrics: Mapping[str, Any]) -> None:
            nonlocal step
            step = steps
            report(steps, {**metrics, **{f"system/{name}": value for name, value in newest.items()}})

        sample()
        with every(SAMPLE_SECONDS, sample, "system"):
            yield told


def _machine() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system_memory_usage_percentage": memory.percent,
    }


def _gpu(device: str) -> object | None:
    """NVML's handle of the device, found by its UUID: Ray hides the other GPUs of the machine from torch only."""
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        handle: object = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None
    return handle


def _gpu_reading(gpu: object) -> dict[str, float]:
    import pynvml

    try:
        memory, rates = pynvml.nvmlDeviceGetMemoryInfo(gpu), pynvml.nvmlDeviceGetUtilizationRates(gpu)
        watts = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
    except pynvml.NVMLError:
        return {}
    return {
        "gpu_0_utilization_percentage": rates.gpu,
        "gpu_0_memory_usage_megabytes": memory.used / MEGABYTE,
        "gpu_0_memory_usage_percentage": 100 * memory.used / memory.total,
        "gpu_0_power_usage_watts": watts,
    }
