"""Embeddings on disk: one memory-mapped array a feature and shard, and the images' names.

Written by the embed stage, read by training and evaluation. An array is `NAME.SHARD.npy`, N×channels×side×side;
bf16 is kept as the uint16 of its bits, which numpy can name.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

_SHARD_BYTES = 1 << 30
TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}


def _new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """An array in a new file, whose disk is taken now (OSError): where there is none, writing to memory is a SIGBUS."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file, contextlib.suppress(AttributeError):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class EmbeddingWriter:
    """Writes the features of a known list of images, in any order."""

    def __init__(
        self, folder: Path, image_keys: Sequence[str], features: Mapping[str, tuple[int, int]], precision: str
    ) -> None:
        self._dtype = TORCH[precision]
        index: dict[str, object] = {"images": list(image_keys), "precision": precision, "features": {}}
        self._arrays: dict[str, list[np.memmap]] = {}
        self._rows: dict[str, int] = {}
        for name, (channels, side) in features.items():
            bytes_per_image = channels * side * side * np.dtype(_NUMPY[precision]).itemsize
            rows = max(1, min(len(image_keys), _SHARD_BYTES // bytes_per_image))
            self._rows[name] = rows
            self._arrays[name] = [
                _new_array(
                    folder / f"{name}.{shard}.npy",
                    _NUMPY[precision],
                    (min(rows, len(image_keys) - start), channels, side, side),
                )
                for shard, start in enumerate(range(0, len(image_keys), rows))
            ]
        index["features"] = self._rows
        (folder / "index.json").write_text(json.dumps(index) + "\n")

    def write(self, position: int, features: Mapping[str, Tensor]) -> None:
        """Store one image's features, each channels×side×side."""
        self.receive(position, {name: feature[None] for name, feature in features.items()})()

    def receive(self, first: int, features: Mapping[str, Tensor]) -> Callable[[], int]:
        """Begin to fetch the features of consecutive images from their device, each B×channels×side×side.

        Returns:
            What waits for them and stores them, in any thread; it returns B.
        """
        # Rounded where they are: half as much to copy. Off a CUDA device torch copies into pinned memory.
        values = {name: feature.detach().to(self._dtype) for name, feature in features.items()}
        device = next(iter(values.values())).device
        values = {name: value.to("cpu", non_blocking=True).contiguous() for name, value in values.items()}
        copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

        def store() -> int:
            if copied is not None:
                copied.synchronize()
            for name, value in values.items():
                array = (value.view(torch.uint16) if self._dtype is torch.bfloat16 else value).numpy()
                for position, own in enumerate(array, start=first):
                    shard, row = divmod(position, self._rows[name])
                    self._arrays[name][shard][row] = own
            return len(array)

        return store

    def close(self) -> None:
        """Bring everything to disk."""
        for arrays in self._arrays.values():
            for array in arrays:
                array.flush()
        self._arrays.clear()


class Embeddings:
    """Reads what EmbeddingWriter wrote; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self._position = {key: i for i, key in enumerate(index["images"])}
        self._dtype = TORCH[index["precision"]]
        self._rows: dict[str, int] = index["features"]
        self._arrays = {
            name: [
                np.load(folder / f"{name}.{shard}.npy", mmap_mode="r")
                for shard in range(-(-len(index["images"]) // rows))
            ]
            for name, rows in self._rows.items()
        }

    def read(self, image_keys: Sequence[str], device: str | torch.device) -> dict[str, Tensor]:
        """Features of these images, float32, each B×channels×side×side."""
        stored = self.room(len(image_keys))
        for place, key in enumerate(image_keys):
            self.load(key, stored, place)
        return {name: values.to(device).float() for name, values in stored.items()}

    def room(self, count: int, *, pinned: bool = False) -> dict[str, Tensor]:
        """Where `load` puts the features of `count` images, in the precision that they are stored in.

        Args:
            count: B of the tensors B×channels×side×side.
            pinned: in memory from which CUDA copies while the host goes on.
        """
        shapes = {name: arrays[0].shape[1:] for name, arrays in self._arrays.items()}
        return {
            name: torch.empty(count, *shape, dtype=self._dtype, pin_memory=pinned) for name, shape in shapes.items()
        }

    def load(self, image_key: str, room: Mapping[str, Tensor], place: int) -> None:
        """Read one image's features into the given place of each tensor of `room`."""
        for name, rows in self._rows.items():
            shard, row = divmod(self._position[image_key], rows)
            values = room[name][place]
            values = values.view(torch.uint16) if self._dtype is torch.bfloat16 else values
            np.copyto(values.numpy(), self._arrays[name][shard][row])
