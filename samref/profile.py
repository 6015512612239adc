"""What a model costs (paper, Table 3): parameters, images per second, memory.

FPS is one encode plus one click, as the paper's numbers imply. Weights do not matter to it, so they are random. On a
CPU, memory is the process's peak while the model runs; on CUDA it is the device's.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from samref import weights
from samref.backbones.backbone import parameter_counts
from samref.clicks import Click
from samref.config import ModelConfig, ProfileConfig, Runtime

if TYPE_CHECKING:
    from samref.trial import Report


@torch.inference_mode()
def profile(
    model: ModelConfig, config: ProfileConfig, *, out: Path, runtime: Runtime, report: Report
) -> dict[str, float | int]:
    """Measure a model on the runtime's device.

    Args:
        model: which network; its checkpoint is not loaded.
        config: how often to repeat.
        out: nothing is written into it.
        runtime: the device.
        report: called after each repetition.

    Returns:
        parameters, parameters_leaf (those of leaf modules, the paper's column), encode_seconds and click_seconds
        (medians), fps (1 / their sum), memory_gb (peak, 10⁹ bytes).
    """
    device = runtime.resolve_device()
    network = weights.build_model(model.model_copy(update={"checkpoint": "none"}), runtime, weights=None)
    everything, leaves = parameter_counts(network)
    size = network.backbone.image_size
    generator = torch.Generator().manual_seed(0)
    image_3SS = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator).to(device)
    click = Click(size // 2, size // 2, True)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)

    encode_seconds, click_seconds = [], []
    for repeat in range(config.repeats + 1):
        start = _clock(device)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=model.precision == "bf16"):
            features = network.backbone.encode(image_3SS[None].float())
        encoded = _clock(device)
        context = network.prepare(features, image_3SS[None], [image_3SS])
        interaction = network(context, [[click]], None, None, [(size, size)])
        network.paste(interaction, 0, None, (size, size))
        done = _clock(device)
        if repeat:  # the first one warms up
            encode_seconds.append(encoded - start)
            click_seconds.append(done - encoded)
            report(repeat, {"total": config.repeats})
    encode, one_click = statistics.median(encode_seconds), statistics.median(click_seconds)
    return {
        "parameters": everything,
        "parameters_leaf": leaves,
        "encode_seconds": encode,
        "click_seconds": one_click,
        "fps": 1 / (encode + one_click),
        "memory_gb": _peak_bytes(device) / 1e9,
    }


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
