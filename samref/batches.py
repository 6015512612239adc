"""Training batches: which samples, in which order, read in the background.

The order is a function of the seed and the step alone, so that a training goes on from any step as if it had never
stopped; and what is drawn for a sample is a function of its position in the batch, so that it does not matter in how
many parts, or on how many processes, a batch is worked.
Legend: B samples, S side of the network's input, h w an image's own size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samref.backbones.backbone import Resize, resize_image
from samref.clicks import Click, next_click
from samref.data.sample import Dataset, Pixels, Sample
from samref.embeddings import Embeddings

_CACHE_BYTES = 1 << 30
_AHEAD = 3
# Random resized crops keep at least this share of each side.
_SMALLEST_CROP = 0.5

# What a training draws, each from a random stream of its own: [seed, stream, ...].
ORDER = 0  # of the samples: [seed, ORDER, epoch]
ROUNDS = 1  # number of simulated click rounds: [seed, ROUNDS, step]
CLICKS = 2  # of one sample: [seed, CLICKS, step, position in the batch]
AUGMENTATION = 3  # of one sample: [seed, AUGMENTATION, step, position in the batch]


@dataclass(frozen=True)
class Batch:
    """The pixels of B samples; masks and clicks live in the network's S×S frame."""

    samples: tuple[Sample, ...]
    positions: tuple[int, ...]  # in the whole batch of the step
    images: list[Tensor]  # each 3×h×w uint8, padded to a square where the network's input is
    images_B3SS: Tensor  # as the backbone resizes them
    truth_BSS: NDArray[np.int8]  # -1 also where padded
    centers: tuple[Click | None, ...]  # the first click of each: it depends on the truth alone
    features: Mapping[str, Tensor]  # of the images, as stored; none where the encoder is part of a step

    def split(self, parts: int) -> list[Batch]:
        """Split the batch into consecutive parts, of one size where the number divides; none is empty."""
        count = len(self.samples)
        parts = min(parts, count)
        edges = [part * count // parts for part in range(parts + 1)]
        return [
            Batch(
                self.samples[start:end],
                self.positions[start:end],
                self.images[start:end],
                self.images_B3SS[start:end],
                self.truth_BSS[start:end],
                self.centers[start:end],
                {name: feature[start:end] for name, feature in self.features.items()},
            )
            for start, end in pairwise(edges)
        ]


class Batches:
    """Iterates over the batches of steps first, first + 1, …, last - 1."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        size: int,
        resize: Resize,
        batch_size: int,
        seed: int,
        augment: bool,
        positions: range | None = None,
        embeddings: Embeddings | None = None,
        threads: int = 1,
        pinned: bool = False,
        resize_input: Callable[[Tensor, Resize], Tensor] | None = None,
    ) -> None:
        """What to read, and how.

        Args:
            dataset: of the samples.
            size: S.
            resize: how an image becomes S×S.
            batch_size: samples of a step.
            seed: of their order and of what augmentation draws.
            augment: whether images are flipped and cropped.
            positions: those of each batch that are read: all, or one process's share.
            embeddings: of the images, whose features are then read too.
            threads: that read, each one sample at a time.
            pinned: put all tensors in memory from which CUDA copies while the host goes on.
            resize_input: makes an image the network's input, as a backbone's `resize` does; None: as most do.
        """
        self._dataset = dataset
        self._size = size
        self._resize = resize
        self._resize_input = resize_input or (lambda image, resize: resize_image(image, size, resize))
        self._input_type = self._resize_input(torch.zeros(3, 1, 1, dtype=torch.uint8), resize).dtype
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._positions = range(batch_size) if positions is None else positions
        self._embeddings = embeddings
        self.threads = threads
        self.pinned = pinned
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._cache: dict[str, Pixels] = {}
        self._cached_bytes = 0
        self._lock = Lock()

    def indices(self, step: int) -> list[int]:
        """The samples of a step's whole batch: every epoch is a permutation of its own, drawn from the seed."""
        count = len(self._dataset.samples)
        places = (divmod(place, count) for place in range(step * self._batch_size, (step + 1) * self._batch_size))
        return [int(self._permutation(epoch)[place]) for epoch, place in places]

    def keys(self, step: int) -> list[str]:
        """The names of a step's samples, those of all processes."""
        return [self._dataset.samples[index].key for index in self.indices(step)]

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        known, permutation = self._epoch
        if known != epoch:  # COCO+LVIS has over a million samples: permuted once an epoch, not once a sample
            permutation = np.random.default_rng([self._seed, ORDER, epoch]).permutation(len(self._dataset.samples))
            self._epoch = (epoch, permutation)
        return permutation

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches, read ahead in background threads."""
        # torch on one thread in each, as they take the cores.
        with ThreadPoolExecutor(
            self.threads, thread_name_prefix="batches", initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            ahead: deque[Callable[[], Batch]] = deque()
            try:
                for step in range(first, last):
                    while len(ahead) < _AHEAD and step + len(ahead) < last:
                        ahead.append(self._begin(step + len(ahead), pool))
                    yield ahead.popleft()()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def read(self, step: int) -> Batch:
        """The batch of one step, or this process's share of it."""
        with ThreadPoolExecutor(1) as pool:
            return self._begin(step, pool)()

    def _begin(self, step: int, pool: Executor) -> Callable[[], Batch]:
        """Start to read a step's samples; what is returned waits for them."""
        indices, count = self.indices(step), len(self._positions)
        samples = tuple(self._dataset.samples[indices[position]] for position in self._positions)
        inputs = torch.empty(count, 3, self._size, self._size, dtype=self._input_type, pin_memory=self.pinned)
        truths = torch.empty(count, self._size, self._size, dtype=torch.int8, pin_memory=self.pinned).numpy()
        features = self._embeddings.room(count, pinned=self.pinned) if self._embeddings else {}

        def read(place: int) -> tuple[Tensor, Click | None]:
            image_3hw, truth = self._sample(samples[place], step, self._positions[place])
            inputs[place] = self._resize_input(image_3hw, self._resize)
            truths[place] = resize_truth(truth, self._size, self._resize)
            if self._embeddings:
                self._embeddings.load(samples[place].image_key, features, place)
            if self._resize == "pad":
                side = max(image_3hw.shape[1:])
                image_3hw = F.pad(image_3hw, (0, side - image_3hw.shape[2], 0, side - image_3hw.shape[1]))
            center = next_click(truths[place], np.zeros((self._size, self._size), bool), ())
            return image_3hw.pin_memory() if self.pinned else image_3hw, center

        started = [pool.submit(read, place) for place in range(count)]

        def batch() -> Batch:
            images, centers = zip(*(each.result() for each in started), strict=True)
            return Batch(samples, tuple(self._positions), list(images), inputs, truths, centers, features)

        return batch

    def _sample(self, sample: Sample, step: int, position: int) -> tuple[Tensor, NDArray[np.int8]]:
        """Image 3×h×w uint8 and truth h×w of one sample, augmented where that is asked for."""
        image, truth = self._pixels(sample)
        if self._augment:
            rng = np.random.default_rng([self._seed, AUGMENTATION, step, position])
            image, truth = _augment(image, truth, rng)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), truth

    def _pixels(self, sample: Sample) -> Pixels:
        with self._lock:
            if sample.key in self._cache:
                return self._cache[sample.key]
        pixels = Pixels(self._dataset.image(sample.image_key), self._dataset.truth(sample.key))
        size = pixels.image.nbytes + pixels.truth.nbytes
        with self._lock:
            # Enough for the small sets that are read again and again. Another thread may have read the same meanwhile.
            if sample.key not in self._cache and self._cached_bytes + size <= _CACHE_BYTES:
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
