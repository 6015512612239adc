"""What a mask file means: the rules of published datasets, and that of people's own folders.

A folder's mask is read as what it most plainly is: 0 is background, one other value is the object; a palette's indices
count, not its colours; 255 beside small ids is ignored (PASCAL VOC); grey edges are cut in the middle. Several values
that are none of these may be several objects, or one, or an edge: they are refused, with the settings that decide.

Knows nothing of datasets; the dashboards read masks by these rules too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from samref.errors import DataError
from samref.image_files import MAX_PIXELS, Oddity, decode, read_bytes, read_header

MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})
"""Lossless only: JPEG's noise around edges would turn into object pixels."""

THRESHOLD = 128
"""Grey edges: from this level of 255 on a pixel is object."""
SMALL_ID = 63
"""255 is ignored beside ids up to this one; VOC has 20 classes, and up to 56 objects in an image."""
BORDER_SHARE = 3
"""A border of VOC's 5 px has at most this many pixels for each of its objects', if they are 10 px wide or more."""
NEARLY_GREY = 16
"""By how much the channels of a grey mask differ that was a JPEG of colours once."""
INVERTED_SHARE = 0.95
"""The share of an image's pixels above which an object is likely a background."""

VOC = "have 255 beside small ids, which is ignored (VOC's border)"
GREY = "have grey edges, cut at {} of 255; pixels between black and white"
INVERTED = "cover over 95 % of the image or all of its border, as inverted masks do"

_UNKNOWN = (127, 128)
"""The one level between black and white that a trimap has, where it is not known; edges have many."""
_FLAT = (16, 239)
"""Levels at which grey edges have no flat 3×3 px, as ids have; nearer to the ends JPEG's noise has."""

Truth = NDArray[np.int8]
ReadMask = Callable[[Path], Truth]


def read_nonzero_mask(path: Path) -> Truth:
    """Read a mask as H×W int8: 1 where any colour channel is not zero, else 0 (DAVIS, ECSSD, HQSeg-44K)."""
    # ANYDEPTH: a 16-bit label 1 would become 0 in 8 bits. COLOR: an opaque alpha channel would be object everywhere.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    channels = decode(read_bytes(path), path, flags)
    # np.any over an axis of three takes three times as long as decoding the file did.
    truth: Truth = ((channels[..., 0] | channels[..., 1] | channels[..., 2]) != 0).view(np.int8)
    return truth


def read_banded_mask(path: Path) -> Truth:
    """Read a mask of GrabCut or Berkeley as H×W int8: channel 0 above 128 is object (1), 128 ignored (-1), below 0."""
    level = decode(read_bytes(path), path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, 0]
    return np.asarray(level > 128, np.int8) - np.asarray(level == 128, np.int8)


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """What the name of a folder says of its masks: `folder:NAME?objects=each&ignore=255`."""

    objects: str = ""
    """`each` value is an object of its own; all are one, `union`; empty: a mask of several is refused."""
    threshold: int | None = None
    """From which level (of 255) on a pixel is object; None: 128, where there are grey edges."""
    ignore: tuple[int, ...] = ()
    """Values that are neither object nor background."""

    @property
    def text(self) -> str:
        """The rule in one spelling."""
        said = {
            "objects": self.objects,
            "threshold": "" if self.threshold is None else str(self.threshold),
            "ignore": ",".join(map(str, self.ignore)),
        }
        return "&".join(f"{name}={value}" for name, value in said.items() if value)


def parse_folder(name: str) -> tuple[str, MaskRule]:
    """The folder and the rule of its masks in `NAME?objects=each|union&threshold=N&ignore=N,N`.

    How the folder is split (`split`, `seed`) is samref/folder_name.py's, and passed over.

    Raises DataError where the part behind the question mark is no such rule.
    """
    folder, mark, text = name.rpartition("?")
    if not mark or "=" not in text:
        return name, MaskRule()
    settings = [each for each in parse_qsl(text, keep_blank_values=True) if each[0] not in ("split", "seed")]
    given = dict(settings)
    remedy = "write ?objects=each|union, ?threshold=1..255, ?ignore=VALUE[,VALUE], ?split=0.8, ?seed=1, joined by &"
    if len(given) < len(settings) or set(given) - {"objects", "threshold", "ignore"}:
        raise DataError(f"folder:{name}: {text!r} is no rule for masks, or one given twice; {remedy}")
    if given.get("objects", "each") not in ("each", "union"):
        raise DataError(f"folder:{name}: objects={given['objects']} is neither each nor union; {remedy}")
    threshold = given.get("threshold")
    if threshold is not None and not (threshold.isdecimal() and 1 <= int(threshold) <= 255):
        raise DataError(f"folder:{name}: threshold={threshold} is not 1..255; {remedy}")
    if threshold is not None and "objects" in given:
        raise DataError(f"folder:{name}: a threshold makes one object, whatever objects= says; give one of them")
    ignored = given["ignore"].split(",") if "ignore" in given else []
    if not all(value.isdecimal() and 0 < int(value) < 2**31 for value in ignored):
        raise DataError(f"folder:{name}: ignore={given['ignore']} is no list of values above 0; {remedy}")
    return folder, MaskRule(
        objects=given.get("objects", ""),
        threshold=None if threshold is None else int(threshold),
        ignore=tuple(sorted({int(value) for value in ignored})),
    )


@dataclass(frozen=True, kw_only=True)
class FolderMask:
    """A mask of a folder as it was read."""

    labels: NDArray[np.int64]
    """H×W: 0 background, -1 ignored, above 0 the objects' ids."""
    ids: tuple[int, ...]
    """The objects in it, ascending; a mask of one object has its value, whatever that is."""
    odd: tuple[Oddity, ...]

    def truth(self, identity: int | None = None) -> Truth:
        """H×W int8: 1 object (that of an id, the others background; None: all), 0 background, -1 ignored."""
        inside = self.labels > 0 if identity is None else self.labels == identity
        return np.asarray(inside, np.int8) - np.asarray(self.labels < 0, np.int8)


def read_folder_mask(path: Path, rule: MaskRule) -> FolderMask:
    """Read a mask of a folder by its rule; DataError where the file is broken, or what it means is not certain."""
    levels = _levels(path)
    values, counts = _values(levels.values)
    ignored = [value for value in rule.ignore if value in values]
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True) if value not in ignored}
    odd: list[Oddity] = []
    labels = levels.values
    if rule.threshold is not None or (levels.soft and len(found) > 1):
        labels, odd = _cut(levels, rule.threshold or THRESHOLD)
        found = {1: 1} if (labels > 0).any() else {}
    elif len(found) > 1 and not ignored and _has_border(found, levels.is_palette or bool(rule.objects)):
        ignored = [255]
        odd.append(Oddity(VOC, found.pop(255)))
    elif len(found) > 1 and not (levels.is_palette or levels.colours) and _has_grey_edges(levels, found):
        if rule.objects == "each":
            raise DataError(
                f"{path}: a mask of {len(found)} values that look like the grey edges of one object, not like objects; "
                "redraw it, or open the folder without objects=each"
            )
        labels, odd = _cut(levels, THRESHOLD)
        found = {1: 1} if (labels > 0).any() else {}
    if len(found) > 1 and not rule.objects:
        raise DataError(_ambiguous(path, found, levels))
    if ignored:
        labels = np.where(np.isin(levels.values, ignored), -1, labels)
    if _looks_inverted(labels):
        odd.append(Oddity(INVERTED))
    return FolderMask(labels=labels, ids=tuple(found), odd=tuple(odd))


def reads_as_nonzero(path: Path, mask: FolderMask) -> bool:
    """Whether `read_nonzero_mask`, by which folders were read before they had a rule, gives the same truth."""
    try:
        return np.array_equal(read_nonzero_mask(path), mask.truth())
    except DataError:
        return False


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """What a mask's pixels are, before it is known what they mean."""

    values: NDArray[np.int64]
    """H×W, 0 background: grey levels, palette indices, or colours as 0xRRGGBB."""
    white: int = 255
    """The largest grey level that its depth has."""
    is_palette: bool = False
    soft: bool = False
    """Whether they are shares of the object, 0..255."""
    colours: bool = False

    def of_255(self) -> NDArray[np.int64]:
        """H×W grey levels, 0..255."""
        if self.colours:
            grey: NDArray[np.int64] = np.maximum(
                np.maximum(self.values >> 16, self.values >> 8 & 255), self.values & 255
            )
            return grey
        return self.values if self.white == 255 else np.rint(self.values * (255 / self.white)).astype(np.int64)


def _levels(path: Path) -> _Levels:
    content = read_bytes(path)
    header = read_header(BytesIO(content))
    if header is not None and header.pages > 1:
        raise DataError(
            f"{path}: a mask of {header.pages} pages; save the one that is meant, or each as NAME#001.png, …"
        )
    if header is not None and header.mode == "P":
        return _palette_indices(content, path)
    pixels = decode(content, path, cv2.IMREAD_UNCHANGED)
    if pixels.dtype.kind == "f":
        return _float_levels(pixels, path)
    if pixels.dtype.kind == "i" and pixels.min() < 0:
        raise DataError(f"{path}: a mask with values from {pixels.min()} on; 0 is background, and ids are above it")
    level, alpha = _without_alpha(pixels)
    white = int(np.iinfo(pixels.dtype).max) if pixels.dtype.itemsize <= 2 else 255
    if alpha is not None and (alpha != white).any():
        level = _of_alpha(level, alpha, path)
    if level.ndim == 2:
        return _Levels(values=level.astype(np.int64), white=65535 if level.max(initial=0) > 255 else 255)
    if level.dtype != np.uint8:
        raise DataError(f"{path}: a mask of colours in {level.dtype}; save it as 8 bits")
    bright, dark = level.max(axis=2), level.min(axis=2)
    if bright.max() > _FLAT[1] and (bright - dark).max() <= NEARLY_GREY:
        return _Levels(values=bright.astype(np.int64))
    blue, green, red = (level[:, :, channel].astype(np.int64) for channel in range(3))
    return _Levels(values=red << 16 | green << 8 | blue, colours=True)


def _palette_indices(content: bytes, path: Path) -> _Levels:
    """Indices, never colours: index 0 is background though it may be white."""
    try:
        with PIL.Image.open(BytesIO(content)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError("too large")
            indices = np.asarray(opened)
            colours = np.asarray(opened.getpalette("RGB"), np.int64).reshape(-1, 3)
    except Exception as error:  # as in image_files.read_header
        raise DataError(
            f"{path}: {len(content)} bytes that are no complete image ({error}); replace the file"
        ) from None
    ramp = np.arange(len(colours))[:, None]
    # A palette of greys in order is a grey image, written by a program that makes palettes of everything.
    return _Levels(values=indices.astype(np.int64), is_palette=not (colours == ramp).all())


def _float_levels(pixels: NDArray[Any], path: Path) -> _Levels:
    if pixels.ndim != 2:
        raise DataError(f"{path}: a mask of {pixels.shape[2]} channels of {pixels.dtype}; save one channel of 8 bits")
    lost = int((~np.isfinite(pixels)).sum())
    if lost:
        raise DataError(
            f"{path}: a mask with {lost} of {pixels.size} pixels NaN or infinite; save 0 for background, 1 or 255 for "
            "the object"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high < 2**31 and (pixels == np.rint(pixels)).all():
        return _Levels(values=pixels.astype(np.int64))
    if low >= 0 and high <= 1:
        return _Levels(values=np.rint(pixels.astype(np.float64) * 255).astype(np.int64), soft=True)
    raise DataError(
        f"{path}: a mask of {pixels.dtype} from {low:g} to {high:g}; whole numbers are ids, and 0 to 1 are shares: "
        "save it as one of these"
    )


def _without_alpha(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Grey levels H×W where all channels are equal, else BGR; and the alpha channel, if there is one."""
    if pixels.ndim == 2:
        return pixels, None
    alpha = pixels[:, :, -1] if pixels.shape[2] in (2, 4) else None
    colours = pixels[:, :, : pixels.shape[2] - (alpha is not None)]
    first = colours[:, :, 0]
    return (first if (colours == first[:, :, None]).all() else colours), alpha


def _of_alpha(level: NDArray[Any], alpha: NDArray[Any], path: Path) -> NDArray[Any]:
    """The channels that hold the mask: alpha where the colours are one; the colours where both agree on background."""
    flat = level.reshape(*level.shape[:2], -1)
    if (flat == flat[0, 0]).all():
        return alpha
    if np.array_equal(alpha != 0, flat.any(axis=2)):
        return level
    raise DataError(
        f"{path}: a mask whose colours and whose alpha channel mark different pixels; save the one that is meant, alone"
    )


def _values(levels: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values above 0, ascending, and how many pixels have each."""
    if levels.size and levels.max() < 2**16:
        counts = np.bincount(levels.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(levels, return_counts=True)
    return values[values > 0], counts[values > 0]


def _has_border(found: dict[int, int], certain: bool) -> bool:
    """Whether 255 is VOC's border: beside small ids, and thin where nothing else says that these are ids."""
    ids = sum(count for value, count in found.items() if value != 255)
    small = max((value for value in found if value != 255), default=0) <= SMALL_ID
    return 255 in found and small and (certain or found[255] <= BORDER_SHARE * ids)


def _has_grey_edges(levels: _Levels, found: dict[int, int]) -> bool:
    """Whether values are black, white, and an edge or noise between: no surface has a grey of its own."""
    grey = levels.of_255()
    if grey.max() < _FLAT[1] or all(value <= SMALL_ID or value == 255 for value in found):
        return False
    if len(found) == 2 and min(found) in _UNKNOWN:
        return False
    small = np.clip(grey, 0, 255).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.erode(small, kernel) == cv2.dilate(small, kernel)
    return not bool((flat & (small >= _FLAT[0]) & (small <= _FLAT[1])).any())


def _cut(levels: _Levels, threshold: int) -> tuple[NDArray[np.int64], list[Oddity]]:
    """1 from the threshold on, else 0; and the grey pixels, if there are any."""
    grey = levels.of_255()
    between = int(((grey > 0) & (grey < grey.max())).sum())
    odd = [Oddity(GREY.format(threshold), between)] if between else []
    return (grey >= threshold).astype(np.int64), odd


def _looks_inverted(labels: NDArray[np.int64]) -> bool:
    inside = labels > 0
    known = int((labels >= 0).sum())
    edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return bool(inside.sum() > INVERTED_SHARE * known or (known and all(edge.all() for edge in edges)))


def _ambiguous(path: Path, found: dict[int, int], levels: _Levels) -> str:
    named = [f"{f'#{value:06x}' if levels.colours else value} ({count} px)" for value, count in found.items()]
    seen = ", ".join(named[:6]) + (f", … {len(named)} in all" if len(named) > 6 else "")
    return (
        f"{path}: a mask with several values beside 0: {seen}; say in the dataset's name what they are: ?objects=each "
        "(each value an object), ?objects=union (one object), ?threshold=128 (grey edges) or ?ignore=VALUE"
    )
