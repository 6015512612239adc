"""Image and mask files to arrays. Knows nothing of datasets.

EXIF orientation is ignored for both: masks carry none and were drawn on the stored pixels, so turning the
photograph alone would tear the pair apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.data.sample import DataError, Image, Truth

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})
"""Lossless only: JPEG's noise around edges would turn into object pixels."""

# A broken file is told once, by our DataError, not also by OpenCV on stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: Path) -> Image:
    """H×W×3 uint8, RGB; grey, palette and 16-bit files are converted, alpha is dropped. DataError if
    unreadable."""
    bgr = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_nonzero_mask(path: Path) -> Truth:
    """H×W int8: 1 where any colour channel is not zero, else 0."""
    # ANYDEPTH: a 16-bit label 1 would become 0 in 8 bits. COLOR: an opaque alpha channel would be object
    # everywhere.
    channels = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    # np.any over an axis of three takes three times as long as decoding the file did.
    truth: Truth = ((channels[..., 0] | channels[..., 1] | channels[..., 2]) != 0).view(np.int8)
    return truth


def read_banded_mask(path: Path) -> Truth:
    """H×W int8 of GrabCut's and Berkeley's masks: channel 0 above 128 is object (1), 128 ignored (-1), below
    0."""
    level = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, 0]
    truth: Truth = (level > 128).astype(np.int8) - (level == 128).astype(np.int8)
    return truth


ReadMask = Callable[[Path], Truth]


def _decode(path: Path, flags: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    try:
        array = cv2.imdecode(content, flags) if content.size else None
    except cv2.error:
        array = None
    if array is None:
        raise DataError(
            f"{path}: {content.size} bytes that are no complete image; replace the file, or remove it with its partner"
        )
    return cast("NDArray[np.uint8] | NDArray[np.uint16]", array)
