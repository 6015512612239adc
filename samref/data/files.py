"""FileDataset: samples whose images, and usually masks, are files; with the checks that all of them share."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self
from unicodedata import category

from samref.data.hashes import FileHashes, digest
from samref.data.sample import DataError, Image, Request, Sample, Truth, evenly_spaced
from samref.image_files import Oddity, describe_image, read_image
from samref.mask_files import MaskRule, ReadMask, read_folder_mask, reads_as_nonzero

READER_VERSION = 1
"""Raised when files come to be read differently: the same bytes are then other data."""

SHOWN = 3
"""Names that a message lists before it only counts."""


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


@dataclass(frozen=True)
class ObjectMask:
    """One of the objects that a file holds, by its number there; a subclass reads it."""

    kind: ClassVar[str]
    """What the file is, in the mask's hash."""
    what: ClassVar[str]
    """What its objects are called, for messages."""
    file: Path
    number: int

    @property
    def place(self) -> str:
        return f"{self.file}: {self.what} {self.number}"

    def read(self) -> Truth:
        raise NotImplementedError

    def content(self, hashes: FileHashes) -> str:
        return f"{self.kind}:{self.number}:{hashes.of(self.file)}"


class MaskDescription(NamedTuple):
    """What is known of a folder's mask once it was read."""

    plain: bool
    """Whether any non-zero value is the object, so that the same data was read before there were rules."""
    ids: tuple[int, ...]
    odd: tuple[Oddity, ...]


@dataclass(frozen=True)
class FolderMaskFile:
    """An object of a mask in a folder of the user's own."""

    path: Path
    rule: MaskRule
    identity: int | None = None
    """The object's value in the mask; None: all that is object."""

    @property
    def place(self) -> str:
        return str(self.path) if self.identity is None else f"{self.path}: object {self.identity}"

    def read(self) -> Truth:
        return read_folder_mask(self.path, self.rule).truth(self.identity)

    def content(self, hashes: FileHashes) -> str:
        if self.identity is None and describe_mask(self.path, self.rule, hashes).plain:
            return f"read_nonzero_mask:{hashes.of(self.path)}"
        return f"folder mask 1:{self.rule.text}:{self.identity}:{hashes.of(self.path)}"


def describe_mask(path: Path, rule: MaskRule, hashes: FileHashes) -> MaskDescription:
    """What a folder's mask holds; it is read once a content."""

    def read() -> str:
        mask = read_folder_mask(path, rule)
        return json.dumps([reads_as_nonzero(path, mask), mask.ids, mask.odd])

    plain, ids, odd = json.loads(hashes.remembered(path, f"?mask 2 {rule.text}", read))
    return MaskDescription(plain, tuple(ids), tuple(Oddity(*each) for each in odd))


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
    left_out: tuple[str, ...] = ()
    """What was found and is no sample, in words and counts."""
    _sizes: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False)
    _image_keys: dict[str, str] = field(init=False)
    _image_digests: frozenset[str] | None = field(default=None, init=False)
    _hashes: FileHashes | None = field(default=None, init=False)

    @classmethod
    def of(cls, request: Request, every: Sequence[tuple[Sample, Path, Mask]], left_out: tuple[str, ...] = ()) -> Self:
        """At most as many of these samples as were asked for, each with its image's file and its mask."""
        chosen = evenly_spaced(every, request.samples, request.name)
        return cls(
            name=request.name,
            samples=tuple(sample for sample, _, _ in chosen),
            image_files={sample.image_key: file for sample, file, _ in chosen},
            masks={sample.key: mask for sample, _, mask in chosen},
            cache=request.cache,
            left_out=left_out,
        )

    def __post_init__(self) -> None:
        self._image_keys = {sample.key: sample.image_key for sample in self.samples}
        for key in self._image_keys:
            # Surrogates are what Python makes of a file's name in another encoding; Parquet and JSON cannot hold them.
            if any(category(character) in ("Cs", "Cc") for character in key):
                raise DataError(
                    f"{self.name}: the name {key!a} is no text that can be written; rename its file, in UTF-8 and "
                    "without control characters"
                )

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

    def notes(self) -> tuple[str, ...]:
        hashes = self._file_hashes()
        images = set(self.image_files.values())
        rules = {mask.path: mask.rule for mask in self.masks.values() if isinstance(mask, FolderMaskFile)}
        try:
            of_images = [(path, _describe_image(path, hashes)[1]) for path in sorted(images)]
            of_masks = [(path, describe_mask(path, rules[path], hashes).odd) for path in sorted(rules)]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}); restore it") from None
        hashes.save()
        return (*self.left_out, *_counted(of_images, "images"), *_counted(of_masks, "masks"))

    def fingerprint(self) -> str:
        hashes = self._file_hashes()
        try:
            images = {key: _image_content(file, hashes) for key, file in self.image_files.items()}
            digests = frozenset(hashes.of(file) for file in self.image_files.values())
            contents = [
                [sample.key, sample.image_key, images[sample.image_key], self.masks[sample.key].content(hashes)]
                for sample in self.samples
            ]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}); restore it") from None
        hashes.save()
        self._image_digests = digests
        return digest({"reader": READER_VERSION, "samples": contents})

    def image_digests(self) -> frozenset[str]:
        if self._image_digests is None:
            self.fingerprint()
        assert self._image_digests is not None
        return self._image_digests

    def _file_hashes(self) -> FileHashes:
        # Kept, so that without a cache nothing is read twice for the fingerprint and the notes.
        if self._hashes is None:
            self._hashes = FileHashes(self.cache)
        return self._hashes


def _image_content(path: Path, hashes: FileHashes) -> str:
    """Hash an image; with how it was scaled, where that is not what has always been done with 16 bits."""
    scaling, _ = _describe_image(path, hashes)
    return f"{scaling}:{hashes.of(path)}" if scaling else hashes.of(path)


def _describe_image(path: Path, hashes: FileHashes) -> tuple[str, tuple[Oddity, ...]]:
    scaling, odd = json.loads(hashes.remembered(path, "?image 1", lambda: json.dumps(describe_image(path))))
    return scaling, tuple(Oddity(*each) for each in odd)


def _counted(found: Iterable[tuple[Path, Iterable[Oddity]]], what: str) -> list[str]:
    """A line for each oddity: how many files have it, which first, and of how many pixels."""
    names: dict[str, list[str]] = {}
    pixels: dict[str, int] = {}
    total = 0
    for path, odd in found:
        total += 1
        for each in odd:
            names.setdefault(each.what, []).append(path.name)
            pixels[each.what] = pixels.get(each.what, 0) + each.pixels
    return [
        f"{len(files)} of {total} {what} {odd}" + (f": {pixels[odd]}" if pixels[odd] else "") + f" ({first(files)})"
        for odd, files in names.items()
    ]


def first(names: list[str]) -> str:
    """The first names of a list, and a sign that there are more."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
