"""Embeddings on disk: one memory-mapped array a feature and shard, and an index of the images' names.

Written by the embed stage, read by training and evaluation. An array is `NAME.SHARD.npy`, N×channels×side×side;
bf16 is kept as the uint16 of its bits, which numpy can name. `images.npy` has an entry an image (`_entry`), in the
order of their names' hashes, and `names.bin` the names: a million images are found without being read. A store from
before this has all names in `index.json`, and no checksums.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from samref.config import Far
from samref.errors import UserError
from samref.shards import Shards, linked

INDEX = "index.json"
_CHECKSUMS = "checksums.npy"
_OPEN = 48
"""Arrays that are open at a time: a process may have 1 024 files open, and a million images are 2 000 shards."""
TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_HEADER = 128
"""Bytes of an array's file before its values, as numpy writes it for a shape of four numbers."""
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}


class EmbeddingError(UserError, ValueError):
    """An embedding's bytes are not those that were written; one line."""


def _new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """An array in a new file, whose disk is taken now (OSError): where there is none, writing to memory is a SIGBUS."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file, contextlib.suppress(AttributeError):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class EmbeddingWriter:
    """Writes the features of images of these names, a shard, in any order."""

    def __init__(
        self, folder: Path, names: Sequence[str], features: Mapping[str, tuple[int, int]], precision: str
    ) -> None:
        self._folder = folder
        self._names = names
        self._precision = precision
        count = len(names)
        self._dtype = TORCH[precision]
        self._features = sorted(features)
        self._checksums = np.zeros((count, len(features)), np.uint32)
        self._arrays = {
            name: _new_array(folder / f"{name}.npy", _NUMPY[precision], (count, channels, side, side))
            for name, (channels, side) in features.items()
        }

    def receive(self, first: int, features: Mapping[str, Tensor]) -> Callable[[], int]:
        """Begin to fetch the features of consecutive images from their device, each B×channels×side×side.

        Returns:
            What waits for them and stores them, in any thread; it returns B, and raises EmbeddingError where one is
            not finite as it would be stored.
        """
        # Rounded and put in order where they are: half as much to copy, and nothing to do here before it has arrived.
        # Off a CUDA device torch copies into pinned memory.
        values = {name: feature.detach().to(self._dtype).contiguous() for name, feature in features.items()}
        device = next(iter(values.values())).device
        finite = {
            name: value.flatten(1).isfinite().all(1).to("cpu", non_blocking=True) for name, value in values.items()
        }
        values = {name: value.to("cpu", non_blocking=True) for name, value in values.items()}
        copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

        def store() -> int:
            if copied is not None:
                copied.synchronize()
            for name, value in values.items():
                if not finite[name].all():
                    image = self._names[first + int(finite[name].int().argmin())]
                    raise EmbeddingError(
                        f"the encoder's {name} of {image} has values that are no finite numbers in {self._precision}; "
                        "try model.embedding_precision: fp32 and model.precision: fp32, and look at the checkpoint"
                    )
                own_checksums = self._checksums[:, self._features.index(name)]
                array = (value.view(torch.uint16) if self._dtype is torch.bfloat16 else value).numpy()
                for row, own in enumerate(array, start=first):
                    self._arrays[name][row] = own
                    own_checksums[row] = zlib.crc32(own)
            return len(array)

        return store

    def close(self) -> None:
        """Let go of the files; who renames them brings them to the disk (`flush` would, and keep Python's lock)."""
        self._arrays.clear()
        np.save(self._folder / _CHECKSUMS, self._checksums)


def join(shards: Shards, out: Path, image_keys: Sequence[str], precision: str) -> list[str]:
    """Put finished shards together in an empty folder: their arrays get another name, and the images an index.

    Returns the names of the features, which are none where the features are the images.
    """
    hashes = {}
    features: list[str] = []  # in the order of their names, as their checksums are
    for number, about in enumerate(shards.about()):
        features = [file.removesuffix(".npy") for file in about["files"] if file != _CHECKSUMS]
        for name in features:
            if (array := shards.path(number) / f"{name}.npy").exists():  # else it lies where its node brought it
                linked(array, out / f"{name}.{number}.npy")
            hashes[f"{name}.{number}.npy"] = about["files"][f"{name}.npy"]
    (out / "hashes.json").write_text(json.dumps(hashes) + "\n")
    names = [_bytes(key) for key in image_keys]
    entries = np.zeros(len(names), _entry(len(features)))
    entries["hash"] = np.fromiter(map(_hash, names), np.uint64, len(names))
    entries["position"] = np.arange(len(names))
    entries["length"] = np.fromiter(map(len, names), np.uint32, len(names))
    entries["start"] = np.cumsum(entries["length"], dtype=np.uint64) - entries["length"]
    checksums = [np.load(shards.path(number) / _CHECKSUMS) for number in range(shards.count)]
    entries["checksums"] = np.concatenate(checksums) if checksums else 0
    (out / "names.bin").write_bytes(b"".join(names))
    np.save(out / "images.npy", entries[np.argsort(entries["hash"], kind="stable")])
    index = {"count": len(names), "precision": precision, "features": dict.fromkeys(features, shards.size)}
    (out / INDEX).write_text(json.dumps(index) + "\n")
    return features


def _entry(num_features: int) -> np.dtype[np.void]:
    """An image in the index: its name's hash, its row, where its name stands, and a checksum (CRC-32) a feature."""
    numbers = [("hash", "<u8"), ("start", "<u8"), ("position", "<u4"), ("length", "<u4")]
    return np.dtype([*numbers, ("checksums", "<u4", (num_features,))])


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")  # a file's name need not be UTF-8


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


class _Names:
    """Finds images by name, in `images.npy` and `names.bin`."""

    def __init__(self, folder: Path) -> None:
        self._entries = np.load(folder / "images.npy", mmap_mode="r")
        self._hashes = np.ascontiguousarray(self._entries["hash"])
        self.count = len(self._hashes)
        self._names = np.memmap(folder / "names.bin", np.uint8, "r") if self.count else np.zeros(0, np.uint8)

    def find(self, key: str) -> tuple[int, NDArray[np.uint32] | None]:
        name = _bytes(key)
        wanted = np.uint64(_hash(name))
        for place in range(int(np.searchsorted(self._hashes, wanted)), self.count):
            entry = self._entries[place]
            if entry["hash"] != wanted:
                break
            start = int(entry["start"])
            if self._names[start : start + int(entry["length"])].tobytes() == name:
                return int(entry["position"]), entry["checksums"]
        raise KeyError(key)


class _ListedNames:
    """Finds images by name, in an index of before."""

    def __init__(self, images: Sequence[str]) -> None:
        self._positions = {key: i for i, key in enumerate(images)}
        self.count = len(images)

    def find(self, key: str) -> tuple[int, NDArray[np.uint32] | None]:
        return self._positions[key], None


class _FarArray:
    """An array in a file that is not here: its rows are read one by one."""

    def __init__(self, path: Path, far: Far) -> None:
        header = io.BytesIO(far(path, 0, _HEADER))
        np.lib.format.read_magic(header)
        self.shape, _, self._dtype = np.lib.format.read_array_header_1_0(header)
        self._begins = header.tell()
        self._read = partial(far, path)

    def __getitem__(self, row: int) -> NDArray[np.generic]:
        return self.row(row)

    def row(self, row: int, *, anew: bool = False) -> NDArray[np.generic]:
        """Read a row; `anew` one that turned out to be damaged, from where it was written."""
        count = math.prod(self.shape[1:]) * self._dtype.itemsize
        content = self._read(self._begins + row * count, count, anew=anew)
        return np.frombuffer(content, self._dtype).reshape(self.shape[1:])


class Embeddings:
    """Reads embeddings; safe to share between threads. Arrays are opened when needed, and at most `_OPEN` are open."""

    def __init__(self, folder: Path, far: Far | None = None) -> None:
        """Open embeddings; `far` reads the rows of arrays that are not in the folder."""
        self._folder = folder
        self._far = far
        index = json.loads((folder / INDEX).read_text())
        self._names = _ListedNames(index["images"]) if "images" in index else _Names(folder)
        self._dtype = TORCH[index["precision"]]
        self._rows: dict[str, int] = index["features"]
        self._array = lru_cache(_OPEN)(self._opened)
        self._shapes = {name: self._array(name, 0).shape[1:] for name in self._rows}
        self._checked = {name: np.zeros(self._names.count, bool) for name in self._rows}

    def _opened(self, name: str, shard: int) -> NDArray[np.generic] | _FarArray:
        path = self._folder / f"{name}.{shard}.npy"
        if self._far and not path.exists():
            return _FarArray(path, self._far)
        array: NDArray[np.generic] = np.load(path, mmap_mode="r")
        return array

    def read(self, image_keys: Sequence[str], device: str | torch.device) -> dict[str, Tensor]:
        """Features of these images, float32, each B×channels×side×side."""
        return {name: values.to(device).float() for name, values in self.stored(image_keys).items()}

    def stored(self, image_keys: Sequence[str]) -> dict[str, Tensor]:
        """Features of these images in the precision that they are stored in, each B×channels×side×side."""
        stored = self.room(len(image_keys))
        for place, key in enumerate(image_keys):
            self.load(key, stored, place)
        return stored

    def room(self, count: int, *, pinned: bool = False) -> dict[str, Tensor]:
        """Where `load` puts the features of `count` images, B×channels×side×side, in the precision of the store.

        pinned: in memory from which CUDA copies while the host goes on.
        """
        return {
            name: torch.empty(count, *shape, dtype=self._dtype, pin_memory=pinned)
            for name, shape in self._shapes.items()
        }

    def load(self, image_key: str, room: Mapping[str, Tensor], place: int) -> None:
        """Read one image's features into the given place of each tensor of `room`.

        Raises:
            KeyError: there is no such image.
            EmbeddingError: other bytes were written; seen when an image is first read.
        """
        position, checksums = self._names.find(image_key)
        for i, (name, rows) in enumerate(self._rows.items()):
            shard, row = divmod(position, rows)
            values = room[name][place]
            values = values.view(torch.uint16) if self._dtype is torch.bfloat16 else values
            array = self._array(name, shard)
            np.copyto(values.numpy(), array[row])
            if checksums is not None and not self._checked[name][position]:
                if zlib.crc32(values.numpy().data) != checksums[i] and isinstance(array, _FarArray):
                    np.copyto(values.numpy(), array.row(row, anew=True))
                if zlib.crc32(values.numpy().data) != checksums[i]:
                    raise EmbeddingError(
                        f"{self._folder / f'{name}.{shard}.npy'}: row {row}, of {image_key}, has other bytes than "
                        "those that were written; run again with --redo embed to make it anew"
                    )
                self._checked[name][position] = True
