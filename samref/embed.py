"""The embed stage: the image encoder once over every image of a dataset, its features kept on disk."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from samref import weights
from samref.backbones.backbone import Backbone, Resize
from samref.config import ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import EmbeddingWriter
from samref.precision import autocast, products
from samref.stage import Report

_LOG = logging.getLogger(__name__)
_BATCH = 8
# Batches that are read ahead, beyond the images that the threads have in hand.
_AHEAD = 2
# Batches of features on their way from the device to the disk.
_BEHIND = 2
# On a CPU larger batches of images are no faster, and take memory that cannot be asked for and refused.
_PIXELS_ON_CPU = 1024**2


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Which samples: a dataset by name, its split, and how many of them."""

    name: str
    split: Literal["train", "val"]
    samples: int | None


def embed(
    model: ModelConfig,
    source: DataSource,
    resize: Resize,
    *,
    inputs: Mapping[str, Path],
    out: Path,
    runtime: Runtime,
    report: Report,
) -> dict[str, float]:
    """Encode every image of a dataset into `out` (samref.embeddings).

    Args:
        model: which backbone, and the precisions of encoder and storage.
        source: which images.
        resize: how an image becomes the network's input.
        inputs: `weights`, the training that changed the encoder, if one did.
        out: empty folder.
        runtime: device and data.
        report: called with the number of images done.
    """
    bare = model.model_copy(update={"refiner": "none"})
    backbone = weights.build_model(bare, runtime, weights=inputs.get("weights")).backbone
    dataset = open_dataset(source.name, split=source.split, data_root=runtime.data_root, samples=source.samples)
    return encode_all(backbone, dataset, model, resize, out=out, runtime=runtime, report=report)


@torch.inference_mode()
def encode_all(
    backbone: Backbone,
    dataset: Dataset,
    model: ModelConfig,
    resize: Resize,
    *,
    out: Path,
    runtime: Runtime,
    report: Report,
) -> dict[str, float]:
    """What `embed` does, with a backbone and a dataset that are there: reading, encoding and writing overlap.

    On CUDA as many threads read as the stage has CPUs, and features travel while the next images are encoded.
    """
    device = runtime.resolve_device()
    keys = list(dict.fromkeys(sample.image_key for sample in dataset.samples))
    if backbone.features_are_images:  # there is nothing to keep that is not there already
        EmbeddingWriter(out, keys, {}, model.embedding_precision).close()
        return {}
    writer = EmbeddingWriter(out, keys, backbone.feature_channels, model.embedding_precision)
    on_cuda = device.startswith("cuda")
    at_once = _BATCH if on_cuda else max(1, _PIXELS_ON_CPU // backbone.image_size**2)

    def encoded(images_B3SS: Tensor) -> dict[str, Tensor]:
        nonlocal at_once
        with products(model.precision), autocast(device, model.precision):
            features, at_once = encode(backbone, images_B3SS.to(device, non_blocking=True), at_once)
        return features

    if on_cuda:  # what a device does once, at the first images, is not counted in their time
        encoded(torch.zeros(_BATCH, 3, backbone.image_size, backbone.image_size, dtype=torch.uint8))
    readers = (runtime.threads or _num_cpus()) if on_cuda else 1  # a CPU is the encoder's
    resized = partial(backbone.resize, resize=resize)
    done, clock = 0, time.perf_counter()
    with (
        contextlib.closing(_read(dataset, keys, resized, readers, pinned=on_cuda)) as batches,
        ThreadPoolExecutor(1, thread_name_prefix="embeddings") as writing,
    ):
        on_their_way: deque[Future[int]] = deque()
        for start, images_B3SS in zip(range(0, len(keys), _BATCH), batches, strict=True):
            store = writer.receive(start, encoded(images_B3SS))
            on_their_way.append(writing.submit(store))
            behind = _BEHIND if on_cuda and start + _BATCH < len(keys) else 0
            while len(on_their_way) > behind:
                done += on_their_way.popleft().result()
                report(done, {"total": len(keys)})
    writer.close()
    return {"images_per_second": done / (time.perf_counter() - clock)}


def encode(backbone: Backbone, images_B3SS: Tensor, at_once: int) -> tuple[dict[str, Tensor], int]:
    """Features of images, encoded in parts that fit the device's memory.

    Args:
        backbone: whose encoder.
        images_B3SS: as `Backbone.encode` takes them, on the device.
        at_once: images of one part.

    Returns:
        The features, and how many images were encoded at once: half as many whenever CUDA's memory ran out.

    Raises:
        torch.OutOfMemoryError: not even one image fits.
    """
    while True:
        try:
            parts = [backbone.encode(part.float()) for part in torch.split(images_B3SS, at_once)]
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        else:
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, at_once
        # Out of the except block, so that no traceback holds the failed part's tensors any more.
        at_once = min(at_once, len(images_B3SS)) // 2 or 1
        _LOG.warning("out of memory; %d images at once from here on", at_once)
        if images_B3SS.is_cuda:
            torch.cuda.empty_cache()


def _read(
    dataset: Dataset, keys: Sequence[str], resized: Callable[[Tensor], Tensor], threads: int, *, pinned: bool
) -> Generator[Tensor]:
    """Batches B×3×S×S in order, each image read and resized in a thread of its own while the encoder works."""

    def read(key: str) -> Tensor:
        # Channels last, as files have them: torch resizes that without rearranging the whole photograph.
        return resized(torch.from_numpy(dataset.image(key)).permute(2, 0, 1))

    # torch keeps its number of threads for each thread that calls it.
    alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)} if threads > 1 else {}
    pool = ThreadPoolExecutor(threads, "images", **alone)
    waiting = iter(keys)
    try:
        ahead = deque(pool.submit(read, key) for key in islice(waiting, threads + _AHEAD * _BATCH))
        while ahead:
            images: list[Tensor] = []
            while ahead and len(images) < _BATCH:
                images.append(ahead.popleft().result())
                ahead.extend(pool.submit(read, key) for key in islice(waiting, 1))
            batch_B3SS = torch.empty(len(images), *images[0].shape, dtype=images[0].dtype, pin_memory=pinned)
            yield torch.stack(images, out=batch_B3SS)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
