"""FileDataset: samples whose images, and usually masks, are files; with the checks that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from samref.data.decode import ReadMask, read_image
from samref.data.hashes import FileHashes, digest
from samref.data.sample import DataError, Image, Sample, Truth

READER_VERSION = 1
"""Raised when files come to be read differently: the same bytes are then other data."""


class Mask(Protocol):
    """Where one sample's truth comes from."""

    @property
    def place(self) -> str:
        """The file and spot, for messages."""
        ...

    def read(self) -> Truth:
        """H×W int8: 1 object, 0 background, -1 ignored."""
        ...

    def content(self, hashes: FileHashes) -> str:
        """A hash of all that `read` depends on."""
        ...


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file of its own, read by its family's rule."""

    path: Path
    reader: ReadMask

    @property
    def place(self) -> str:
        return str(self.path)

    def read(self) -> Truth:
        return self.reader(self.path)

    def content(self, hashes: FileHashes) -> str:
        return f"{self.reader.__name__}:{hashes.of(self.path)}"


@dataclass(eq=False)
class FileDataset:
    """A `Dataset` on files."""

    name: str
    samples: tuple[Sample, ...]
    image_files: Mapping[str, Path]
    """File of each image key."""
    masks: Mapping[str, Mask]
    """Truth of each sample key."""
    cache: Path | None
    """Folder of the file hashes; None keeps none."""
    _sizes: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False)
    _image_keys: dict[str, str] = field(init=False)
    _image_digests: frozenset[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._image_keys = {sample.key: sample.image_key for sample in self.samples}

    def image(self, image_key: str) -> Image:
        image = read_image(self.image_files[image_key])
        self._sizes[image_key] = image.shape[:2]
        return image

    def truth(self, key: str) -> Truth:
        image_key, mask = self._image_keys[key], self.masks[key]
        truth = mask.read()
        if image_key not in self._sizes:
            self.image(image_key)
        size = self._sizes[image_key]
        if truth.shape != size:
            turned = truth.shape == size[::-1]
            hint = " (EXIF orientation is ignored: masks must fit the stored pixels)" if turned else ""
            raise DataError(
                f"{mask.place}: the mask is {_size(truth.shape)}, its image {self.image_files[image_key]} is "
                f"{_size(size)}{hint}; both must be of one size"
            )
        if not (truth == 1).any():
            raise DataError(f"{mask.place}: the mask has no object pixel; remove the sample or redraw its mask")
        return truth

    def fingerprint(self) -> str:
        hashes = FileHashes(self.cache)
        try:
            images = {key: hashes.of(file) for key, file in self.image_files.items()}
            contents = [
                [sample.key, sample.image_key, images[sample.image_key], self.masks[sample.key].content(hashes)]
                for sample in self.samples
            ]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}); restore it") from None
        hashes.save()
        self._image_digests = frozenset(images.values())
        return digest({"reader": READER_VERSION, "samples": contents})

    def image_digests(self) -> frozenset[str]:
        if self._image_digests is None:
            self.fingerprint()
        assert self._image_digests is not None
        return self._image_digests


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
