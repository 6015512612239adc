"""What an image file is, and its pixels: the one reader of photographs, for datasets and for pages.

What is certain is read, what is odd is read and said (`Oddity`), what is ambiguous is refused. EXIF orientation is
ignored: masks carry none and were drawn on the stored pixels, so turning the photograph alone would tear the pair
apart.

Knows nothing of datasets, and imports nothing of this package but its errors: the dashboards, which know nothing else
of it, read files by these rules too.
"""

import logging
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from samref.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 1 << 30
"""The pixels of the largest image that is read: OpenCV's limit."""

ORIENTED = "have an EXIF orientation, which is ignored: masks are of the stored pixels"
PAGES = "have several pages or frames, of which the first is read"
ALPHA = "have an alpha channel, which is dropped"
CMYK = "are CMYK, converted to RGB without their colour profile"

# A broken file is told once, by our DataError, not also by OpenCV and Pillow on stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("PIL").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow is asked for headers and palette indices; OpenCV, which decodes, has a limit of its own (2^30 pixels).
PIL.Image.MAX_IMAGE_PIXELS = None

_REDUCED = 254
"""TIFF's NewSubfileType: bit 0 marks a smaller copy of another page."""
_ORIENTATION = 0x0112
_PNG_DEPTH = 24
"""Where a PNG says how many bits a channel has; Pillow tells 8 of colours with 16."""
_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTHS = (8, 10, 12, 14, 16)
_OTHER_KINDS = {
    b"version https://git-lfs": "a pointer of Git LFS, whose file was never fetched",
    b"ftypheic": "HEIC, which is not read here (save it as .jpg or .png)",
    b"ftypmif1": "HEIF, which is not read here (save it as .jpg or .png)",
    b"ftypavif": "AVIF, which is not read here (save it as .jpg or .png)",
    b"%PDF-": "a PDF",
    b"<html": "a page of HTML, not what it was downloaded for",
    b"<!DOCTYPE html": "a page of HTML, not what it was downloaded for",
}
"""What a file is that has an image's suffix and is none, by what it begins with."""


class Oddity(NamedTuple):
    """What is odd about a file that could be read."""

    what: str
    """In words that follow `3 images`, e.g. `are CMYK, …`; equal for equal oddities, so that they can be counted."""
    pixels: int = 0
    """How many pixels it concerns; 0 where that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself."""

    mode: str
    """Pillow's name: L, P, RGBA, CMYK, …"""
    bits: int
    """Bits a channel; 0 where that is not known before it is decoded."""
    pages: int
    """Pages or frames, smaller copies of other pages not counted."""
    orientation: int
    """EXIF's: 1 is upright."""


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image as it was read."""

    pixels: NDArray[np.uint8]
    """H×W×3, RGB."""
    scaling: str
    """How deep values became 8 bits, where that is a rule of its own; part of what the data is."""
    odd: tuple[Oddity, ...]


def is_rgb(image: object) -> TypeGuard[NDArray[np.uint8]]:
    """Whether this is an image as all of this package has them: H×W×3 uint8, of one pixel or more."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return False
    return image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as H×W×3 uint8, RGB: grey, palette and CMYK are converted, alpha is dropped, 16 bits are scaled.

    Raises DataError where the file cannot be read, or holds what has no certain brightness.
    """
    return load_image(path).pixels


def load_image(path: Path) -> ImageFile:
    """Read an image, and say what is odd about it; raises DataError as `read_image` does."""
    content = read_bytes(path)
    header = read_header(BytesIO(content))
    if header is not None and header.mode == "LAB":
        raise DataError(f"{path}: is in LAB colours, which have more than one reading; save it as RGB")
    odd = header_oddities(header)
    if header is None or header.bits != 8:
        deep = decode(content, path, cv2.IMREAD_UNCHANGED)
        if deep.dtype != np.uint8:
            bits, own = scale_of(deep, path)
            if bits != 16:
                white = 2**bits - 1
                odd = (*odd, Oddity(f"hold {own}, of which {white} is read as white"))
                level = np.rint(deep.astype(np.float64) * (255 / white)).astype(np.uint8)
                return ImageFile(pixels=_three_channels(level), scaling=f"{bits} bits", odd=odd)
    bgr = decode(content, path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return ImageFile(pixels=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), scaling="", odd=odd)


def describe_image(path: Path) -> tuple[str, tuple[Oddity, ...]]:
    """`scaling` and `odd` of an image; only files deeper than 8 bits are decoded for it."""
    try:
        with path.open("rb") as stream:
            header = read_header(stream)
    except OSError as error:
        raise unreadable(path, error) from None
    if header is not None and header.bits == 8:
        return "", header_oddities(header)
    image = load_image(path)
    return image.scaling, image.odd


def read_bytes(path: Path) -> bytes:
    """The file's bytes; DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error of a file that cannot be opened or read."""
    return DataError(f"{path}: cannot be read ({error.strerror}); restore the file")


def decode(content: bytes, path: Path, flags: int) -> NDArray[Any]:
    """OpenCV's array of a file; DataError where there is none."""
    try:
        whole = content and not _is_damaged_png(content)
        array = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if whole else None
    except cv2.error:
        array = None
    if array is None:
        kind = next((kind for mark, kind in _OTHER_KINDS.items() if mark in content[:64]), "no complete image")
        raise DataError(
            f"{path}: {len(content)} bytes that are {kind}; replace the file, or remove it with its partner"
        )
    return array


def _is_damaged_png(content: bytes) -> bool:
    """Whether a PNG's own checksums say that its pixels are cut off or damaged; libpng would say so on stderr."""
    at, view = len(_PNG), memoryview(content)
    while content.startswith(_PNG) and at < len(content):
        end = at + 12 + int.from_bytes(view[at : at + 4])  # length, kind, data, checksum
        if bytes(view[at + 4 : at + 8]) in (b"IHDR", b"PLTE", b"IDAT") and (
            end > len(content) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end])
        ):
            return True
        at = end
    return False


def read_header(stream: IO[bytes]) -> Header | None:
    """What a file says of itself; None where Pillow does not know it (OpenCV may)."""
    start = stream.read(_PNG_DEPTH + 1)
    stream.seek(0)
    try:
        with PIL.Image.open(stream) as opened:
            # A PNG is decoded for its EXIF when that stands behind its pixels, where nobody writes it.
            exif = opened.getexif() if opened.format != "PNG" or "exif" in opened.info else {}
            return Header(
                mode=opened.mode,
                bits=_bits(opened, start),
                pages=sum(_pages(opened)),
                orientation=int(exif.get(_ORIENTATION, 1)),
            )
    # Pillow lets whatever a broken byte leads to pass: OSError, SyntaxError, struct.error, KeyError, ….
    except Exception:
        return None


def header_oddities(header: Header | None) -> tuple[Oddity, ...]:
    """What is odd about a photograph by its header alone."""
    if header is None:
        return ()
    found = {
        ORIENTED: header.orientation != 1,
        PAGES: header.pages > 1,
        ALPHA: "A" in header.mode and header.mode != "LAB",
        CMYK: header.mode == "CMYK",
    }
    return tuple(Oddity(what) for what, true in found.items() if true)


def _bits(opened: PIL.Image.Image, start: bytes) -> int:
    if opened.format == "PNG":
        return 16 if start[_PNG_DEPTH] == 16 else 8
    if opened.format == "TIFF":
        tags: Any = opened.tag_v2  # type: ignore[attr-defined]
        return 8 if max(tags.get(258, (1,))) <= 8 else 0
    return 8


def _pages(opened: PIL.Image.Image) -> Iterator[int]:
    """1 for each page that is no smaller copy of another."""
    # A phone's JPEG with a depth map or a preview behind it is one photograph.
    count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    if opened.format != "TIFF":
        yield count
        return
    for page in range(count):
        opened.seek(page)
        tags: Any = opened.tag_v2  # type: ignore[attr-defined]
        yield 0 if page and tags.get(_REDUCED, 0) & 1 else 1
    opened.seek(0)


def scale_of(deep: NDArray[Any], path: Path) -> tuple[int, str]:
    """How many bits hold the values of an image deeper than 8 bits, and what it holds in words.

    The least of 8, 10, 12, 14 and 16 that holds the largest value, as cameras and scanners write so many into 16; 1
    for floats from 0 to 1. Raises DataError for other floats, negative values and larger ones: what is white in them
    cannot be known.
    """
    low, high = (float(deep.min()), float(deep.max())) if deep.size else (0.0, 0.0)
    if deep.dtype.kind == "f" and low >= 0 and high <= 1:
        return 1, f"{deep.dtype} from 0 to 1"
    whole = deep.dtype.kind in "iu" or bool(np.isfinite(deep).all() and (deep == np.rint(deep)).all())
    if not whole or not 0 <= low <= high < 2**16:
        raise DataError(
            f"{path}: holds {deep.dtype} from {low:g} to {high:g}, of which it is not known what is white; save it as "
            "8 bits, as 16 bits from 0 up, or as floats from 0 to 1"
        )
    bits = next(bits for bits in _DEPTHS if high < 2**bits)
    return bits, f"{bits}-bit values in {deep.dtype}"


def _three_channels(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H×W×3 RGB of what OpenCV gives of any file: grey, BGR or with alpha."""
    if level.ndim == 2 or level.shape[2] < 3:
        level = level if level.ndim == 2 else level[:, :, 0]
        return np.repeat(level[:, :, None], 3, axis=2)
    return np.ascontiguousarray(level[:, :, 2::-1])
