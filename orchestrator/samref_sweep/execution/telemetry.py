"""What a training on a GPU does to its machine, sampled while it runs: one JSON line each ten seconds.

The names are those of MLflow's own system metrics, which a worker could log only by writing to MLflow itself. Of the
GPU, memory and utilisation are of all that run on it. The readings were not tried on a GPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from samref_sweep.repeating import every

SAMPLE_SECONDS = 10.0
MEGABYTE = 1e6


@contextmanager
def sampled(file: Path, device: str) -> Iterator[None]:
    """Sample a device (torch's name of it) for the block, into a file of lines {"time": seconds since 1970, …}."""
    gpu = _gpu(device) if device.startswith("cuda") else None
    with file.open("a", buffering=1) as lines:

        def sample() -> None:
            reading = {"time": time.time(), **_machine(), **(_gpu_reading(gpu) if gpu is not None else {})}
            lines.write(json.dumps(reading) + "\n")

        sample()
        with every(SAMPLE_SECONDS, sample, "system"):
            yield


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
