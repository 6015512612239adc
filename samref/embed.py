"""The embed stage: the image encoder once over every image of a dataset, its features kept on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from samref import weights
from samref.backbones.backbone import Backbone, Resize, resize_image
from samref.config import ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import EmbeddingWriter
from samref.precision import autocast, products
from samref.stage import Report

_LOG = logging.getLogger(__name__)
_BATCH = 8
_AHEAD = 3
# On a CPU larger batches of images are no faster, and take memory that cannot be asked for and refused.
_PIXELS_ON_CPU = 1024**2


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Which samples: a dataset by name, its split, and how many of them."""

    name: str
    split: Literal["train", "val"]
    samples: int | None


@torch.inference_mode()
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
    device = runtime.resolve_device()
    bare = model.model_copy(update={"refiner": "none"})
    backbone = weights.build_model(bare, runtime, weights=inputs.get("weights")).backbone
    dataset = open_dataset(source.name, split=source.split, data_root=runtime.data_root, samples=source.samples)
    keys = list(dict.fromkeys(sample.image_key for sample in dataset.samples))
    writer = EmbeddingWriter(out, keys, backbone.feature_channels, model.embedding_precision)
    at_once = _BATCH if device.startswith("cuda") else max(1, _PIXELS_ON_CPU // backbone.image_size**2)
    done, clock = 0, time.perf_counter()
    for images_B3SS in _read(dataset, keys, backbone.image_size, resize):
        with products(model.precision), autocast(device, model.precision):
            features, at_once = encode(backbone, images_B3SS.to(device), at_once)
        for i in range(len(images_B3SS)):
            writer.write(done, {name: feature[i] for name, feature in features.items()})
            done += 1
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


def _read(dataset: Dataset, keys: Sequence[str], size: int, resize: Resize) -> Iterator[Tensor]:
    """Batches B×3×S×S uint8, read and resized in the background while the encoder works."""

    def read(batch: Sequence[str]) -> Tensor:
        images = (torch.from_numpy(np.ascontiguousarray(dataset.image(key).transpose(2, 0, 1))) for key in batch)
        return torch.stack([resize_image(image, size, resize) for image in images])

    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        ahead: list[Future[Tensor]] = [pool.submit(read, batch) for batch in batches[:_AHEAD]]
        for following in range(len(ahead), len(batches) + len(ahead)):
            yield ahead.pop(0).result()
            if following < len(batches):
                ahead.append(pool.submit(read, batches[following]))
