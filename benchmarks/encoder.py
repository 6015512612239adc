"""What each step makes an image encoder faster: plain float32, fused attention, bf16, torch.compile.

    python benchmarks/encoder.py --backbone sam_vit_b --repeats 3

One process, one random image batch, random weights, the steps one after the other; each line gives the fastest of the
repetitions, its ratio to the plain one and to the step before, the peak memory (of a CPU: of the process, all weights
included), and the largest difference of the output from the plain one's. *Plain* is segment-anything's own encoder; of
SAM2 and SegNext, which call torch's attention themselves, it is torch's unfused one. Stages always take the fused one,
bf16 with `model.precision: bf16` (on CUDA, for SAM, by samref.backbones.sam_triton), and do not compile (`--no-compile`
leaves it out; it compiles the modules, which SAM on CUDA then does not call). The published anchor is
segment-anything-fast: 8 times, ViT-H on an A100.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from segment_anything import sam_model_registry
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from samref import backbones, memory
from samref.backbones.backbone import Backbone
from samref.backbones.sam import SamBackbone
from samref.config import Runtime
from samref.data.sample import Image

Encode = Callable[[Tensor], Tensor]


class Measured(NamedTuple):
    """One step's output and cost."""

    output: Tensor
    seconds: float
    peak_gb: float
    first_seconds: float


@torch.inference_mode()
def main() -> None:
    """Measure, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="sam_vit_b", choices=backbones.names())
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="after one warm-up (default: 3)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: CUDA where there is one")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    device = Runtime(device=options.device).resolve_device()
    print(
        f"{options.backbone}, batch {options.batch_size}, fastest of {options.repeats}, on {machine(device)}; "
        f"torch {torch.__version__}",
        flush=True,
    )
    plain, plain_attention, backbone = build(options.backbone, device)
    size = backbone.image_size
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device).float()

    def fused(images_B3SS: Tensor) -> Tensor:
        return backbone.encode(images_B3SS)["embedding"]

    def half(images_B3SS: Tensor) -> Tensor:
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            return backbone.encode(images_B3SS)["embedding"]

    first = before = None
    for name, encode, attention in (
        ("plain float32", plain, plain_attention),
        ("fused attention", fused, contextlib.nullcontext),
        ("and bf16", half, contextlib.nullcontext),
        ("and torch.compile", half, contextlib.nullcontext),
    ):
        if name == "and torch.compile":
            if options.no_compile:
                continue
            compile_blocks(backbone)
        with attention():
            found = measure(encode, images, options.repeats, device)
        first, before = first or found, before or found
        print(
            f"{name:18} {found.seconds:8.3f} s  {first.seconds / found.seconds:5.2f} × plain  "
            f"{before.seconds / found.seconds:5.2f} × the step before  peak {found.peak_gb:.2f} GB  "
            f"difference {float((found.output - first.output).abs().max()):.1e} of "
            f"{float(first.output.abs().max()):.1f}  first call {found.first_seconds:.1f} s",
            flush=True,
        )
        before = found


def build(name: str, device: str) -> tuple[Encode, Callable[[], contextlib.AbstractContextManager[object]], Backbone]:
    """The plain encoder, the context in which it is plain, and the backbone, with the same weights."""
    if not name.startswith("sam_vit"):
        backbone = backbones.build(name).to(device)
        return lambda images: backbone.encode(images)["embedding"], lambda: sdpa_kernel(SDPBackend.MATH), backbone
    torch.manual_seed(0)
    registry = sam_model_registry[name.removeprefix("sam_")]
    sam = registry().eval().to(device)
    for parameter_name, parameter in sam.named_parameters():
        if "rel_pos" in parameter_name:
            nn.init.normal_(parameter, std=0.1)  # the package's are 0 before they are trained: nothing to compare
    copy = registry().eval().to(device)
    copy.load_state_dict(sam.state_dict())
    return lambda images: sam.image_encoder(sam.preprocess(images)), contextlib.nullcontext, SamBackbone(copy).eval()


def compile_blocks(backbone: Backbone) -> None:
    """Each transformer block on its own: blocks of one shape share the compiled code, which the whole would not."""
    for name, module in backbone.modules_of("encoder").named_modules():
        if name.rpartition(".")[2] == "blocks":
            for block in module.children():
                block.compile()


def measure(encode: Encode, images_B3SS: Tensor, repeats: int, device: str) -> Measured:
    """The fastest of the repetitions; the first call is not one of them."""

    def clock() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed() -> Iterator[tuple[Tensor, float]]:
        for _ in range(repeats + 1):
            start = clock()
            output = encode(images_B3SS)
            yield output, clock() - start

    memory.reset(device)
    (output, first), *rest = timed()
    peaks = memory.peaks(device)
    peak = peaks.get("device_peak_memory_gb", peaks["peak_memory_gb"])
    return Measured(output, min(seconds for _, seconds in rest), peak, first)


def enlarge(images: Sequence[Image], folder: Path, count: int) -> None:
    """Write `count` JPEGs of 3000×2000 px, made of these photographs and noise (large as files too), and masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((2000, 3000), np.uint8)
    mask[500:1500, 700:2300] = 255

    def write(i: int) -> None:
        enlarged = cv2.resize(images[i % len(images)][..., ::-1], (3000, 2000), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(i).integers(0, 12, enlarged.shape, np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i:04d}.jpg"), cv2.add(enlarged, noise), [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(str(folder / "masks" / f"{i:04d}.png"), mask)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def machine(device: str) -> str:
    """The GPU's name, or the CPU's with its cores and torch's threads."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
