"""Datasets of a person's own: what they give is checked, and what they need not give is filled in.

Knows nothing of files.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from samref import plugins
from samref.data.sample import DataError, Dataset, Image, Request, Sample, Truth, evenly_spaced
from samref.image_files import is_rgb


def open_own(request: Request) -> Dataset:
    """The dataset that a plug-in's `open(request, **options)` returns, at most as many samples as were asked for.

    It has `samples`, a sequence of `Sample`, and reads by `image(image_key)` and `truth(key)`. The other methods of
    `Dataset` are taken where they are there: without `fingerprint` every pixel is read to make one.
    """
    inner = plugins.call(request.name, request)
    return OwnDataset(request.name, inner, plugins.source(request.name), request.samples)


class OwnDataset:
    """A dataset around an object with `samples`, `image` and `truth`."""

    def __init__(self, name: str, inner: Any, source: str = "", samples: int | None = None) -> None:
        """Wrap an object, of whose samples at most so many are taken; `source` counts in the fingerprint.

        Raises DataError: it lacks something, or its samples cannot be.
        """
        self.name = name
        self._inner = inner
        self._source = source
        where = plugins.place_of(type(inner))
        if lacking := [each for each in ("samples", "image", "truth") if not hasattr(inner, each)]:
            raise DataError(f"{name}: {where}: it lacks {', '.join(lacking)}; give what samref.data.Dataset has")
        found: Sequence[Any] = tuple(inner.samples)
        if not found or not all(isinstance(each, Sample) for each in found):
            raise DataError(f"{name}: {where}: samples should be some samref.data.Sample, and are {found[:2]!r}")
        if len({each.key for each in found}) < len(found):
            raise DataError(f"{name}: {where}: two samples have one key; give each its own")
        self.samples = evenly_spaced(found, samples, name)
        self._image_of = {each.key: each.image_key for each in found}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._told = partial(plugins.told, name) if plugins.is_plugin(name) else nullcontext

    def image(self, image_key: str) -> Image:
        """The image, checked."""
        with self._told():
            image = self._inner.image(image_key)
        if not is_rgb(image):
            raise DataError(f"{self.name}: image {image_key} is {_said(image)}; give H×W×3 uint8, RGB")
        self._sizes[image_key] = image.shape[:2]
        return image

    def truth(self, key: str) -> Truth:
        """The sample's mask, checked."""
        with self._told():
            truth = self._inner.truth(key)
        if not isinstance(truth, np.ndarray) or truth.dtype != np.int8 or truth.ndim != 2:
            raise DataError(f"{self.name}: truth {key} is {_said(truth)}; give H×W int8: 1 object, 0 not, -1 ignored")
        if set(np.unique(truth)) - {-1, 0, 1} or not (truth == 1).any():
            raise DataError(
                f"{self.name}: truth {key} has the values {np.unique(truth)[:5].tolist()}; give 1 object (some), 0 "
                "not, -1 ignored"
            )
        image_key = self._image_of[key]
        if image_key not in self._sizes:
            self.image(image_key)
        if truth.shape != (size := self._sizes[image_key]):
            raise DataError(f"{self.name}: truth {key} is {truth.shape}, its image {size}: they must be of one size")
        return truth

    def notes(self) -> tuple[str, ...]:
        """What the inner one says."""
        return tuple(self._inner.notes()) if hasattr(self._inner, "notes") else ()

    def fingerprint(self) -> str:
        """The code, and what the inner one says; else a hash of all pixels, which are read for it."""
        keys = [(sample.key, sample.image_key) for sample in self.samples]
        found = hashlib.sha256(json.dumps([self._source, keys]).encode())
        if hasattr(self._inner, "fingerprint"):
            found.update(str(self._inner.fingerprint()).encode())
        else:
            for image_key in dict.fromkeys(sample.image_key for sample in self.samples):
                found.update(self.image(image_key).tobytes())
            for sample in self.samples:
                found.update(self.truth(sample.key).tobytes())
        return found.hexdigest()[:16]

    def image_digests(self) -> frozenset[str]:
        """What the inner one says."""
        return frozenset(self._inner.image_digests()) if hasattr(self._inner, "image_digests") else frozenset()


def _said(value: Any) -> str:
    shape = "×".join(map(str, getattr(value, "shape", ())))
    return f"{shape} {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
