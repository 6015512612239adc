"""The evaluation on a GPU: which samples advance together, read ahead, and played while others are prepared.

Two waves are in play at a time, on one thread and one stream: while one waits for the device, the host works on the
other. It is the caller's thread, as torch keeps cuDNN's plans for each thread anew. Others read samples, put the next
wave together, find windows and measure masks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samref.ahead import OneAhead
from samref.backbones.backbone import Resize
from samref.clickloop import ClickLoop, Trajectory
from samref.config import EvaluateConfig
from samref.data import Dataset
from samref.embeddings import Embeddings
from samref.judging import above
from samref.nodes import Wave
from samref.precision import autocast
from samref.refiner import SamRef
from samref.refiner.model import Context
from samref.refiner.recorded import EVERY_CLICK, forget, record
from samref.refiner.resample import Images
from samref.starts import NOTHING, Start, Starts
from samref.thetas import Thetas
from samref.threads import Map
from samref.transfers import Waiting, interleaved, to_device

_LOG = logging.getLogger(__name__)
Paths = list[list[Trajectory]]
"""For each sample its trajectories, by seed and rising θ."""

_IN_PLAY = 2
LARGEST = 64
"""Samples of a wave at most: with fewer, Python launches a click's operations more slowly than a GPU does them."""
# What a sample takes at most on the device (measured, with the refiner, at 1024 px): for the networks, and for each
# pixel of its image, of it what the masks of each path take.
_BYTES, _BYTES_PER_PIXEL, _BYTES_PER_PIXEL_AND_PATH = 300e6, 64, 2
# Of the free memory, for samples (reckoned, not measured); CUDA graphs keep their inputs for each number of rows.
_SHARE = 0.7
_MOST_PATHS = 16  # on average; where one sample has more, the wave is played in halves


class Read(NamedTuple):
    """A sample in the host's memory."""

    truth: NDArray[np.int8]
    features: dict[str, Tensor]
    """One image's features, as they are stored."""
    image: Tensor
    """3×h×w uint8; of one pixel where the network does not look at images."""
    image_3SS: Tensor
    """The image as the encoder saw it, 3×S×S."""
    size: tuple[int, int]
    """Height and width of the sample's image, px; less than the truth's where that is padded to a square."""
    start: Start
    """What the sample begins with; its mask is padded as the truth is."""


def read(
    dataset: Dataset,
    position: int,
    network: SamRef,
    embeddings: Embeddings,
    resize: Resize = "stretch",
    starts: Starts = NOTHING,
) -> Read:
    """Read the sample at a position of the dataset; may be called from several threads at once.

    With `pad`, image and truth are padded to a square, right and below, by black and by ignored pixels: what is then
    stretched to the network's square is what was padded.
    """
    sample = dataset.samples[position]
    # Only a refiner and a network without an encoder look at images. Read before the truth, which is checked against
    # their size.
    image = image_3SS = torch.zeros(3, 1, 1, dtype=torch.uint8)
    if network.gfr is not None or network.backbone.features_are_images:
        image = torch.from_numpy(np.ascontiguousarray(dataset.image(sample.image_key).transpose(2, 0, 1)))
        image_3SS = network.backbone.resize(image, resize)
    features = embeddings.stored([sample.image_key]) or network.backbone.encode(image_3SS[None])
    truth = dataset.truth(sample.key)
    size, start = truth.shape, starts.of(sample.key, truth)
    if resize == "pad":
        below, right = (max(size) - side for side in size)
        truth = np.pad(truth, ((0, below), (0, right)), constant_values=-1)
        if tuple(image.shape[1:]) == size:
            image = F.pad(image, (0, right, 0, below))
        if start.mask_HW is not None:
            start = start._replace(mask_HW=np.pad(start.mask_HW, ((0, below), (0, right))))
    return Read(truth, features, image, image_3SS, size, start)


class Stacked(NamedTuple):
    """Samples that make a wave, in the host's memory."""

    truths: list[NDArray[np.int8]]
    sizes: list[tuple[int, int]]
    features: dict[str, Tensor]
    images_B3SS: Tensor
    images: Images | list[Tensor]
    starts: list[Start]


def stack(reads: Sequence[Read], *, together: bool = False, each: Map = map) -> Stacked:
    """Join samples.

    Args:
        reads: the samples.
        together: for a ClickLoop that works on all of a batch at once, and ready to be sent to a GPU.
        each: copies each sample's pixels and features, perhaps in threads: SAM2's are a gigabyte a wave.
    """
    pinned = together and torch.cuda.is_available()

    def joined(parts: Sequence[Tensor]) -> Tensor:
        with torch.inference_mode(False):  # threads that write into it are in no mode
            whole = torch.empty(len(parts), *parts[0].shape, dtype=parts[0].dtype, pin_memory=pinned)
        list(each(lambda i: whole[i].copy_(parts[i]), range(len(parts))))
        return whole

    images = [own.image for own in reads]
    return Stacked(
        [own.truth for own in reads],
        [own.size for own in reads],
        {name: joined([own.features[name][0] for own in reads]) for name in reads[0].features},
        joined([own.image_3SS for own in reads]),
        Images.stack(images, pinned=pinned) if together else images,
        [own.start for own in reads],
    )


def assemble(first: int, stacked: Stacked, network: SamRef, device: str) -> Wave:
    """The wave of these samples, the first of which has this position; computes once what all their clicks share."""
    features = {name: to_device(feature, device).float() for name, feature in stacked.features.items()}
    images_B3SS = to_device(stacked.images_B3SS, device)
    images = stacked.images
    if isinstance(images, Images):
        images = images.to(device)
        # Channels last, as a transformer's tokens are, and what CUDA's fast convolutions take.
        features = {name: each.contiguous(memory_format=torch.channels_last) for name, each in features.items()}
    else:
        images = [image.to(device) for image in images]
    with torch.inference_mode():
        context = network.prepare(features, images_B3SS, images)
        context, starts = _begin(network, context, stacked.starts, [truth.shape for truth in stacked.truths])
    return Wave(first, stacked.truths, context, stacked.sizes, starts)


def _begin(
    network: SamRef, context: Context, starts: list[Start], frames: list[tuple[int, int]]
) -> tuple[Context, list[Start]]:
    """Bring what samples begin with into their context; what comes of a box is a mask like one that was given."""
    device = context.features["embedding"].device
    masks = [each.mask_HW for each in starts if each.mask_HW is not None]
    boxes = [each.box for each in starts if each.box is not None]
    if masks:
        context = network.correcting(context, [to_device(mask, device) for mask in masks])
    if boxes:
        context, logits_B1UU = network.boxed(context, boxes, frames)
        of_boxes = logits_B1UU[:, 0].float().cpu().numpy()
        threshold = network.backbone.threshold
        starts = [
            each._replace(mask_HW=above(logits, frame, threshold))
            for each, logits, frame in zip(starts, of_boxes, frames, strict=True)
        ]
    return context, starts


def at_once(height: int, width: int, num_paths: int, free_bytes: float) -> int:
    """How many samples of images of this size (px) may be in one wave, with so much of the device's memory for it."""
    pixel = _BYTES_PER_PIXEL + _BYTES_PER_PIXEL_AND_PATH * num_paths
    return max(1, int(min(LARGEST, free_bytes / (_BYTES + pixel * height * width))))


def play(
    network: SamRef,
    configs: Sequence[EvaluateConfig],
    dataset: Dataset,
    embeddings: Embeddings,
    device: str,
    threads: int,
    parts: Iterable[range],
    starts: Starts = NOTHING,
) -> Generator[tuple[Paths, int]]:
    """The trajectories of parts of a dataset, wave by wave in order, and each wave's decoder calls (in nodes).

    No wave has samples of two parts.

    Args:
        network: the model, on the device.
        configs: alike but for θ.
        dataset: the samples.
        embeddings: of their images.
        device: a GPU; a CPU does the same, slowly, where Triton interprets its kernels.
        threads: of the host, to read samples and to measure masks.
        parts: positions of samples, each taken when there is time for it.
        starts: what the samples begin with.
    """
    if device != "cpu":
        record(network, EVERY_CLICK)
    players = _Players(network, configs, device)
    with ExitStack() as stack_:
        readers = stack_.enter_context(_threads(threads, "samples"))
        measuring = stack_.enter_context(_threads(threads, "masks"))
        preparing = stack_.enter_context(_threads(1, "waves"))
        players.each, players.pool = measuring.map, stack_.enter_context(_threads(_IN_PLAY, "arrivals"))

        share = -(-len(dataset.samples) // _IN_PLAY)  # of few samples there are two waves nevertheless
        waiting = ((part, position) for part in parts for position in part)

        def begin(count: int) -> Iterator[_Begun]:
            for part, position in islice(waiting, count):
                reading = readers.submit(read, dataset, position, network, embeddings, configs[0].resize, starts)
                yield _Begun(part, position, reading)

        def prepared() -> Generator[_Prepared]:
            ahead = deque(begin(LARGEST))
            while ahead:
                first = ahead[0].position
                reads, batch = _take(ahead, players, share)
                ahead.extend(begin(LARGEST - len(ahead)))
                # Not in the readers' threads, which have the next wave's samples to read first.
                yield _Prepared(first, reads, stack(reads, together=True, each=measuring.map), batch)

        waves = stack_.enter_context(closing(OneAhead(preparing, prepared())))
        yield from stack_.enter_context(closing(players.played(waves)))


class _Begun(NamedTuple):
    """A sample that is being read."""

    part: range
    position: int
    reading: Future[Read]


class _Prepared(NamedTuple):
    """A wave that is ready to be played."""

    first: int
    """Position of its first sample."""
    reads: Sequence[Read]
    stacked: Stacked
    batch: int
    """The most nodes of one call of the network."""


def _take(ahead: deque[_Begun], players: _Players, share: int) -> tuple[list[Read], int]:
    """The next wave, as many samples of one part as fit, in order; and how many of its nodes one call may have."""
    taken: list[Read] = []
    height = width = 0
    batch = players.largest
    part = ahead[0].part
    while ahead and ahead[0].part is part:
        truth = ahead[0].reading.result().truth
        height, width = max(height, truth.shape[0]), max(width, truth.shape[1])
        fitting = min(players.largest, at_once(height, width, players.num_paths, players.free_bytes))
        if taken and len(taken) >= min(fitting, share):
            break
        taken.append(ahead.popleft().reading.result())
        batch = fitting
    return taken, batch


@contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads on each of which torch takes one; at the end they finish what has begun, and nothing else."""
    # torch keeps its number of threads for each thread that calls it.
    pool = ThreadPoolExecutor(count, name, torch.set_num_threads, (1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Players:
    """Plays waves on one device, two at a time, in halves where its memory does not hold one."""

    def __init__(self, network: SamRef, configs: Sequence[EvaluateConfig], device: str) -> None:
        self._network = network
        self._config = configs[0]
        self._thetas = Thetas.of(configs)
        self._device = device
        self.each: Map = map
        self.pool: Executor | None = None
        self._seeds = sorted({config.seed for config in configs})
        self.num_paths = min(len(self._thetas.listed or ()) or _MOST_PATHS, _MOST_PATHS) * len(self._seeds)
        self.largest = LARGEST
        self.free_bytes = float("inf")
        if device != "cpu":
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and free
            self.free_bytes = _SHARE * (torch.cuda.mem_get_info(device)[0] + kept) / _IN_PLAY

    def played(self, waves: OneAhead[_Prepared]) -> Generator[tuple[Paths, int]]:
        """What `play` gives of each wave, in order."""
        works = (self.play(wave.first, wave.reads, wave.stacked, wave.batch) for wave in waves)
        played = interleaved(works, _IN_PLAY, waves.ready, self.pool)
        while True:  # no mode outlasts a wave, for whoever takes what is played has modes of its own
            with torch.inference_mode(), autocast(self._device, self._config.precision):
                found = next(played, None)
            if found is None:
                return
            yield found

    def play(
        self, first: int, reads: Sequence[Read], stacked: Stacked | None, batch: int
    ) -> Waiting[tuple[Paths, int]]:
        """The trajectories of these samples, and decoder calls; `batch`: the most nodes of one call of the network."""
        try:
            return (yield from self._whole(first, stacked or stack(reads, together=True, each=self.each), batch))
        except torch.OutOfMemoryError:
            batch = min(batch, len(reads) * self.num_paths)
            if batch == 1:
                raise
        # Out of the except block, so that no traceback holds the failed wave's tensors any more.
        forget(self._network)  # what was recorded of larger ones takes memory, too
        self.largest = batch = batch // 2
        _LOG.warning("out of memory; %d samples at once from here on", batch)
        torch.cuda.empty_cache()
        paths: Paths = []
        calls = 0
        done = 0
        while done < len(reads):
            part = min(batch, self.largest)  # which an earlier part may have made smaller
            found, more = yield from self.play(first + done, reads[done : done + part], None, part)
            paths += found
            calls += more
            done += part
        return paths, calls

    def _whole(self, first: int, stacked: Stacked, batch: int) -> Waiting[tuple[Paths, int]]:
        wave = assemble(first, stacked, self._network, self._device)
        loop = ClickLoop(self._network, self._config, self._thetas, batch=batch, together=True, each=self.each)
        return (yield from loop.play(wave, self._seeds))
