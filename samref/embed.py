"""The embed stage: the image encoder once over every image of a dataset, its features kept on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from samref import weights
from samref.backbones.backbone import Resize, resize_image
from samref.config import ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import EmbeddingWriter

if TYPE_CHECKING:
    from samref.trial import Report

_BATCH = 8
_AHEAD = 3


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
    done, clock = 0, time.perf_counter()
    for images_B3SS in _read(dataset, keys, backbone.image_size, resize):
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=model.precision == "bf16"):
            features = backbone.encode(images_B3SS.to(device).float())
        for i in range(len(images_B3SS)):
            writer.write(done, {name: feature[i] for name, feature in features.items()})
            done += 1
        report(done, {"total": len(keys)})
    writer.close()
    return {"images_per_second": done / (time.perf_counter() - clock)}


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
