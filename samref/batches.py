"""Training batches: which samples, in which order, read in the background.

The order is a function of the seed and the step alone, so that a training goes on from any step as if it had never
stopped. Legend: B samples, S side of the network's input, h w an image's own size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samref.backbones.backbone import Resize, resize_image
from samref.data.sample import Dataset, Pixels, Sample

_CACHE_BYTES = 1 << 30
_AHEAD = 3
# Random resized crops keep at least this share of each side.
_SMALLEST_CROP = 0.5


@dataclass(frozen=True)
class Batch:
    """The pixels of B samples; masks and clicks live in the network's S×S frame."""

    samples: tuple[Sample, ...]
    images: list[Tensor]  # each 3×h×w uint8, padded to a square where the network's input is
    images_B3SS: Tensor  # uint8
    truth_BSS: NDArray[np.int8]  # -1 also where padded


class Batches:
    """Iterates over the batches of steps first, first + 1, …, last - 1."""

    def __init__(
        self, dataset: Dataset, *, size: int, resize: Resize, batch_size: int, seed: int, augment: bool
    ) -> None:
        self._dataset = dataset
        self._size = size
        self._resize = resize
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._cache: OrderedDict[str, Pixels] = OrderedDict()
        self._cached_bytes = 0
        self._lock = Lock()

    def indices(self, step: int) -> list[int]:
        """The samples of a step: every epoch is a permutation of its own, drawn from the seed."""
        count = len(self._dataset.samples)
        chosen = []
        for position in range(step * self._batch_size, (step + 1) * self._batch_size):
            epoch, place = divmod(position, count)
            chosen.append(int(np.random.default_rng([self._seed, epoch]).permutation(count)[place]))
        return chosen

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches, read ahead in a background thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead: list[Future[Batch]] = []
            try:
                for step in range(first, last):
                    while len(ahead) < _AHEAD and step + len(ahead) < last:
                        ahead.append(pool.submit(self.read, step + len(ahead)))
                    yield ahead.pop(0).result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def read(self, step: int) -> Batch:
        """The batch of one step."""
        samples, images, inputs, truths = [], [], [], []
        for place, index in enumerate(self.indices(step)):
            sample = self._dataset.samples[index]
            image, truth = self._pixels(sample)
            if self._augment:
                image, truth = _augment(image, truth, np.random.default_rng([self._seed, step, place]))
            image_3hw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            samples.append(sample)
            inputs.append(resize_image(image_3hw, self._size, self._resize))
            truths.append(resize_truth(truth, self._size, self._resize))
            if self._resize == "pad":
                side = max(image_3hw.shape[1:])
                image_3hw = F.pad(image_3hw, (0, side - image_3hw.shape[2], 0, side - image_3hw.shape[1]))
            images.append(image_3hw)
        return Batch(tuple(samples), images, torch.stack(inputs), np.stack(truths))

    def _pixels(self, sample: Sample) -> Pixels:
        with self._lock:
            if sample.key in self._cache:
                return self._cache[sample.key]
        pixels = Pixels(self._dataset.image(sample.image_key), self._dataset.truth(sample.key))
        size = pixels.image.nbytes + pixels.truth.nbytes
        with self._lock:
            if self._cached_bytes + size <= _CACHE_BYTES:  # enough for the small sets that are read again and again
                self._cache[sample.key] = pixels
                self._cached_bytes += size
        return pixels


def resize_truth(truth_HW: NDArray[np.int8], size: int, resize: Resize) -> NDArray[np.int8]:
    """A truth in the network's frame, S×S int8, nearest neighbour; -1 where padded. An object never vanishes."""
    height, width = truth_HW.shape
    scale_y = scale_x = size / max(height, width)
    if resize == "stretch":
        scale_y, scale_x = size / height, size / width
    target = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
    resized: NDArray[np.int8] = np.full((size, size), -1, np.int8)
    small = cv2.resize(truth_HW.view(np.uint8), target, interpolation=cv2.INTER_NEAREST_EXACT).view(np.int8)
    if not (small == 1).any():
        y, x = np.argwhere(truth_HW == 1)[0]
        small[min(int(y * scale_y), target[1] - 1), min(int(x * scale_x), target[0] - 1)] = 1
    resized[: target[1], : target[0]] = small
    return resized


def _augment(
    image: NDArray[np.uint8], truth: NDArray[np.int8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    # A crop that would lose the object is not taken.
    if rng.random() < 0.5:
        image, truth = image[:, ::-1], truth[:, ::-1]
    height, width = truth.shape
    share_y, share_x = rng.uniform(_SMALLEST_CROP, 1, 2)
    crop_height, crop_width = max(16, int(share_y * height)), max(16, int(share_x * width))
    top = int(rng.integers(0, max(1, height - crop_height + 1)))
    left = int(rng.integers(0, max(1, width - crop_width + 1)))
    window = np.s_[top : top + crop_height, left : left + crop_width]
    if (truth[window] == 1).sum() >= 0.1 * (truth == 1).sum():
        image, truth = image[window], truth[window]
    return np.ascontiguousarray(image), np.ascontiguousarray(truth)
