"""The embed stage: the image encoder once over every image of a dataset, its features kept on disk."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from samref import embeddings, weights
from samref.ahead import in_order
from samref.backbones.backbone import Backbone, Resize
from samref.config import ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import EmbeddingWriter
from samref.precision import autocast, products
from samref.shards import Shards
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


class Embed:
    """The image encoder over every image of a dataset; a `samref.shards.Divisible`."""

    wave, unit = _BATCH, 1

    def __init__(
        self, dataset: Dataset, model: ModelConfig, resize: Resize, backbone: Callable[[], Backbone], runtime: Runtime
    ) -> None:
        """Prepare to encode.

        Args:
            dataset: whose images.
            model: the precisions of encoder and storage.
            resize: how an image becomes the network's input.
            backbone: gives the encoder when it is needed.
            runtime: device and data.
        """
        self._dataset = dataset
        self._model = model
        self._resize = resize
        self._backbone = backbone
        self._runtime = runtime
        self._keys = list(dict.fromkeys(sample.image_key for sample in dataset.samples))
        self.total = len(self._keys)

    @torch.inference_mode()
    def work(self, shards: Shards, numbers: Iterable[int], report: Report) -> None:
        """Encode the images of shards: reading, encoding and writing overlap, also from one shard to the next.

        On CUDA as many threads read as the stage has CPUs, and features travel while the next images are encoded.
        """
        backbone, precision, device = self._backbone(), self._model.precision, self._runtime.resolve_device()
        on_cuda = device.startswith("cuda")
        if backbone.features_are_images:  # there is nothing to keep that is not there already
            for number in numbers:
                with shards.writing(number) as folder:
                    EmbeddingWriter(folder, self._names(shards, number), {}, self._model.embedding_precision).close()
            return
        at_once = _BATCH if on_cuda else max(1, _PIXELS_ON_CPU // backbone.image_size**2)

        def encoded(images_B3SS: Tensor) -> dict[str, Tensor]:
            nonlocal at_once
            with products(precision), autocast(device, precision):
                features, at_once = encode(backbone, images_B3SS.to(device, non_blocking=True), at_once)
            return features

        if on_cuda:  # what a device does once, at the first images, is not counted in their time
            encoded(torch.zeros(_BATCH, 3, backbone.image_size, backbone.image_size, dtype=torch.uint8))
        readers = (self._runtime.threads or _num_cpus()) if on_cuda else 1  # a CPU is the encoder's
        resized = partial(backbone.resize, resize=self._resize)
        behind, done = _BEHIND if on_cuda else 0, 0
        places, to_read = tee((number, start) for number in numbers for start in shards.rows(number)[:: self.wave])
        batches = (self._keys[start : min(start + self.wave, shards.rows(number).stop)] for number, start in to_read)
        shards.begin()
        with (
            contextlib.closing(_read(self._dataset, batches, resized, readers, pinned=on_cuda)) as read,
            ThreadPoolExecutor(1, thread_name_prefix="shards") as finishing,
            ThreadPoolExecutor(1, thread_name_prefix="embeddings") as storing,
        ):
            on_their_way: deque[Future[int]] = deque()
            finished: Future[None] | None = None
            for images_B3SS, (number, start) in zip(read, places, strict=True):
                rows = shards.rows(number)
                if start == rows.start:
                    names, stored = self._names(shards, number), self._model.embedding_precision
                    writer = _ShardWriter(shards, number, names, backbone.feature_channels, stored)
                on_their_way.append(storing.submit(writer.receive(start - rows.start, encoded(images_B3SS))))
                if start + self.wave >= rows.stop:
                    if finished:  # one is brought to the disk while the next one is written, and no more
                        finished.result()
                    finished = finishing.submit(writer.finish, on_their_way[-1])
                while len(on_their_way) > behind:
                    done += on_their_way.popleft().result()
                    report(done, {})
            for last in on_their_way:
                done += last.result()
                report(done, {})
            if finished:
                finished.result()

    def _names(self, shards: Shards, number: int) -> list[str]:
        rows = shards.rows(number)
        return self._keys[rows.start : rows.stop]

    def join(self, shards: Shards, outs: tuple[Path, ...]) -> list[dict[str, float | int]]:
        """Write the embeddings of all images (samref.embeddings)."""
        (out,) = outs
        if not embeddings.join(shards, out, self._keys, self._model.embedding_precision):
            return [{}]
        return [{"images_per_second": self.total / sum(each["busy_seconds"] for each in shards.about())}]


class _ShardWriter:
    """Writes the features of one shard's images, in a folder that is the shard's when it has all."""

    def __init__(
        self, shards: Shards, number: int, names: Sequence[str], features: Mapping[str, tuple[int, int]], precision: str
    ) -> None:
        self._whole = shards.writing(number)
        self._writer = EmbeddingWriter(self._whole.__enter__(), names, features, precision)
        self.receive = self._writer.receive

    def finish(self, stored: Future[int]) -> None:
        """Finish the shard once its last images are stored."""
        stored.result()
        self._writer.close()
        self._whole.__exit__(None, None, None)


def embed(
    model: ModelConfig, source: DataSource, resize: Resize, *, inputs: Mapping[str, Path], runtime: Runtime
) -> Embed:
    """Open the stage that encodes every image of a dataset.

    Args:
        model: which backbone, and the precisions of encoder and storage.
        source: which images.
        resize: how an image becomes the network's input.
        inputs: `weights`, the training that changed the encoder, if one did.
        runtime: device and data.
    """

    def backbone() -> Backbone:
        bare = model.model_copy(update={"refiner": "none"})
        return weights.build_model(bare, runtime, weights=inputs.get("weights")).backbone

    dataset = open_dataset(source.name, split=source.split, data_root=runtime.data_root, samples=source.samples)
    return Embed(dataset, model, resize, backbone, runtime)


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
    dataset: Dataset,
    batches: Iterable[Sequence[str]],
    resized: Callable[[Tensor], Tensor],
    threads: int,
    *,
    pinned: bool,
) -> Generator[Tensor]:
    """Batches B×3×S×S in order, each image read and resized in a thread of its own while the encoder works."""
    sizes: deque[int] = deque()

    def keys() -> Iterator[str]:
        for batch in batches:
            sizes.append(len(batch))
            yield from batch

    def read(key: str) -> Tensor:
        # Channels last, as files have them: torch resizes that without rearranging the whole photograph.
        return resized(torch.from_numpy(dataset.image(key)).permute(2, 0, 1))

    # torch keeps its number of threads for each thread that calls it.
    alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)} if threads > 1 else {}
    pool = ThreadPoolExecutor(threads, "images", **alone)
    try:
        images = in_order(pool, read, keys(), threads + _AHEAD * _BATCH)
        for image in images:
            batch = [image, *islice(images, sizes.popleft() - 1)]
            batch_B3SS = torch.empty(len(batch), *image.shape, dtype=image.dtype, pin_memory=pinned)
            yield torch.stack(batch, out=batch_B3SS)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
