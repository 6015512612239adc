"""The index of a COCO or LVIS annotation file, built without holding the file: where each object's JSON lies.

LVIS v1 train is 1.1 GB with 1.27 M objects: parsed at once, a file of that size took 6.3 GB and 47 s of a core. Here it
is read in blocks (0.2 GB, 19 s), and of an object only its numbers and its place in the file stay; its outline is read
from there when its mask is asked for.

Knows nothing of samples, masks or which objects are wanted.
"""

from __future__ import annotations

import contextlib
import json
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from math import nan
from pathlib import Path
from typing import Any

from samref.data.sample import DataError

BLOCK_BYTES = 1 << 22
"""Read at once. Any size gives the same index; larger ones were no faster."""

MAX_SIDE_PX = 1 << 15
"""The largest side of an image; what is larger is a mistake."""

_SPACE = " \t\r\n"
_BYTE_ORDER_MARK = "\xef\xbb\xbf"
"""What programs of Windows write first, as the reader sees it (Latin-1)."""

# Nearly all of the time went into outlines' numbers, which the index has no use for. An object without objects in it
# and without escapes is found by its braces, and parsed without its outline: a third less. Others are parsed whole.
_FLAT_OBJECT = re.compile(r'\{[^{}"]*+(?:"[^"\\{}]*+"[^{}"]*+)*+\}')
_OUTLINE = re.compile(r'"segmentation"\s*+:\s*+\[[][\d\s.,eE+-]*\]')


@dataclass
class Index:
    """Images by id, and one column for each property of the objects (in the file's order, crowds left out)."""

    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    identities: array[int] = field(default_factory=lambda: array("q"))
    """Annotation ids."""
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    """Annotated areas, in pixels; NaN where none is told."""
    boxes: array[float] = field(default_factory=lambda: array("d"))
    """Areas of the annotated boxes, in pixels; NaN where none is told."""
    crowds: int = 0
    """Objects that were left out as crowds."""
    starts: array[int] = field(default_factory=lambda: array("q"))
    """Bytes before the object's JSON in the file."""
    lengths: array[int] = field(default_factory=lambda: array("q"))
    """Bytes of the object's JSON."""


def read_index(file: Path) -> Index:
    """Build the index of `file`. Raises DataError where it is no COCO instances file."""
    index = Index()

    wrong: list[str] = []

    def add_image(entry: dict[str, Any], start: int, end: int) -> None:
        try:
            identity, image = _image(entry)
            if index.images.setdefault(identity, image) != image:
                raise ValueError(f"its id is that of {index.images[identity]['name']} too, and this is {image['name']}")
        except ValueError as error:
            wrong.append(f"{_named('image', entry)}: {error}")

    def add_object(entry: dict[str, Any], start: int, end: int) -> None:
        try:
            if _is_crowd(entry):
                index.crowds += 1
                return
            identity, image_id = _whole(entry, "id"), _whole(entry, "image_id")
            if "segmentation" not in entry:
                raise ValueError("it has no segmentation")
        except ValueError as error:
            wrong.append(f"{_named('annotation', entry)}: {error}")
            return
        index.identities.append(identity)
        index.image_ids.append(image_id)
        index.areas.append(_number(entry.get("area")))
        index.boxes.append(_box_area(entry.get("bbox")))
        index.starts.append(start)
        index.lengths.append(end - start)

    try:
        with file.open("rb") as stream:
            seen = _Reader(stream).walk({"images": add_image, "annotations": add_object})
        for needed in ("images", "annotations"):
            if needed not in seen:
                raise KeyError(needed)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); restore the file") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: no COCO instances ({type(error).__name__}: {error}); {_NEEDS}") from error
    wrong += (
        f"annotation {identity}: its image {image_id} is not among the images"
        for identity, image_id in zip(index.identities, index.image_ids, strict=True)
        if image_id not in index.images
    )
    if wrong:
        more = f" (and {len(wrong) - 1} more that are wrong)" if len(wrong) > 1 else ""
        raise DataError(f"{file}: no COCO instances: {wrong[0]}{more}; {_NEEDS}")
    return index


_NEEDS = (
    "it needs images (id, file_name or coco_url, height, width) and annotations (id, image_id, segmentation, area); "
    "correct it, or get it again if it was cut short"
)


def _image(entry: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    # Only what is used is kept: the links and lists of LVIS's images are ten times that.
    if not isinstance(entry, dict):
        raise ValueError("it is no object with properties")
    name, address = entry.get("file_name"), entry.get("coco_url")
    name = name or ("/".join(address.rsplit("/", 2)[1:]) if isinstance(address, str) else None)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"its file_name is {_shown(name)}")
    # The reader decodes byte for byte; names are UTF-8, unless they were escaped.
    with contextlib.suppress(UnicodeError):
        name = name.encode("latin-1").decode("utf-8")
    height, width = _whole(entry, "height"), _whole(entry, "width")
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise ValueError(f"its size is {width}×{height}")
    return _whole(entry, "id"), {"name": name, "height": height, "width": width}


def _is_crowd(entry: dict[str, Any]) -> bool:
    if not isinstance(entry, dict):
        raise ValueError("it is no object with properties")
    said = entry.get("iscrowd") or 0
    # Exporters write numbers as text; "0" would be true.
    if str(said).strip().lower() not in ("0", "1", "false", "true", "0.0", "1.0"):
        raise ValueError(f"its iscrowd is {_shown(said)}, neither 0 nor 1")
    return str(said).strip().lower() in ("1", "true", "1.0")


def _whole(entry: dict[str, Any], name: str) -> int:
    if name not in entry:
        raise ValueError(f"it has no {name}")
    value = entry[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < 2**63 or value != int(value):
        raise ValueError(f"its {name} is {_shown(value)}, no whole number")
    return int(value)


def _number(value: Any) -> float:
    """NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return nan


def _box_area(box: Any) -> float:
    """NaN where there is none."""
    return _number(box[2]) * _number(box[3]) if isinstance(box, list) and len(box) == 4 else nan


def _named(what: str, entry: Any) -> str:
    identity = entry.get("id") if isinstance(entry, dict) else None
    return f"{what} {_shown(entry if identity is None else identity)}"


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def read_object(file: Path, start: int, length: int, identity: int) -> dict[str, Any]:
    """Read one annotation by its place. Raises DataError where the file is no longer the one that was indexed."""
    try:
        with file.open("rb", buffering=0) as stream:
            stream.seek(start)
            entry = json.loads(stream.read(length), parse_constant=_refuse)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); restore the file") from None
    except _NotFiniteError as error:
        raise DataError(f"{file}: annotation {identity}: {error} among its numbers; correct or remove it") from None
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or entry.get("id") != identity:
        raise DataError(
            f"{file}: annotation {identity} cannot be read from byte {start} on; the file is broken, or was changed "
            "since it was opened: get it again, or start again"
        )
    return entry


class _NotFiniteError(ValueError):
    """NaN or infinity, which Python's JSON has and the standard's has not."""


def _refuse(constant: str) -> None:
    raise _NotFiniteError(constant)


class _Reader:
    """A JSON object read block by block: the elements of chosen lists one at a time, everything else skipped.

    Bytes are decoded as Latin-1, so that one character is one byte and places in the text are places in the file;
    JSON's own characters are ASCII, and in UTF-8 no other character's bytes look like them.
    """

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._dropped = 0
        """Bytes before `_text` in the file."""
        self._ended = False

    def walk(self, lists: dict[str, Callable[[dict[str, Any], int, int], None]]) -> set[str]:
        """Give each element of the lists of these names, with its first byte and the one behind it; all names seen."""
        seen: set[str] = set()
        self._next()
        if self._text.startswith(_BYTE_ORDER_MARK):
            self._at += len(_BYTE_ORDER_MARK)
        for _ in self._between("{", "}"):
            name, _, _ = self._value()
            self._expect(":")
            if name in seen and name in lists:
                raise ValueError(f"{name!r} is there twice, again before byte {self._dropped + self._at}")
            seen.add(name)
            if name not in lists:
                self._value()
                continue
            for _ in self._between("[", "]"):
                lists[name](*(self._flat_object() or self._value()))
        if behind := self._next():
            raise ValueError(f"{behind!r} behind its end at byte {self._dropped + self._at}")
        return seen

    def _between(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each item of an object or a list, for the caller to take it; take both ends and the commas."""
        self._expect(opening)
        if self._next() != closing:
            yield
            while self._next() == ",":
                self._at += 1
                yield
        self._expect(closing)

    def _flat_object(self) -> tuple[Any, int, int] | None:
        """Read a value as `_value` does, the outline replaced by 0; None where a plain reading is needed."""
        self._next()
        found = _FLAT_OBJECT.match(self._text, self._at)
        if found is None:
            return None
        try:
            value, _ = self._decode(_OUTLINE.sub('"segmentation":0', found[0], count=1), 0)
        except json.JSONDecodeError:
            return None
        self._at = found.end()
        return value, self._dropped + found.start(), self._dropped + found.end()

    def _value(self) -> tuple[Any, int, int]:
        """The JSON value that follows, its first byte and the one behind it."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    place = self._dropped + error.pos
                    raise ValueError(f"{error.msg} at byte {place}") from None
            else:
                # A number that ends with the block may go on in the next one.
                if end < len(self._text) or self._ended:
                    start, self._at = self._at, end
                    return value, self._dropped + start, self._dropped + end
            self._more()

    def _next(self) -> str:
        """The next character that is no space, not taken; empty at the file's end."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in _SPACE:
                    return character
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def _expect(self, character: str) -> None:
        found = self._next()
        if not found:
            raise ValueError(f"it ends at byte {self._dropped + self._at}")
        if found != character:
            raise ValueError(f"{found!r} instead of {character!r} at byte {self._dropped + self._at}")
        self._at += 1

    def _more(self) -> None:
        """Drop what was read, and read at least as much again as is left: a long value is not tried too often."""
        left = self._text[self._at :]
        block = self._stream.read(max(BLOCK_BYTES, len(left)))
        self._dropped += self._at
        self._text, self._at, self._ended = left + block.decode("latin-1"), 0, not block
