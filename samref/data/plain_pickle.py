"""Pickles of plain data, read without running what they say: numbers, text, lists, dicts and numpy arrays, no more.

A pickle is a program that may call anything. Here every name that it asks for is refused but the few by which numpy
writes an array or a number, and those lead to the makers below, not to numpy's own.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from samref.data.sample import DataError

_NUMBERS = re.compile(r"[|<>=]?[biuf][1248]|bool")


def read_plain(file: Path) -> Any:
    """Read a pickle of plain data.

    Raises DataError: it cannot be read, is broken, or wants to make anything else; one line that names what.
    """
    try:
        with file.open("rb") as stream:
            return _finished(_PlainUnpickler(stream).load())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); restore the file") from None
    # Whatever a broken byte leads to: UnpicklingError, EOFError, KeyError, UnicodeDecodeError, MemoryError, …
    except Exception as error:
        raise DataError(
            f"{file}: is no pickle of plain data ({error or type(error).__name__}); get it again"
        ) from error


class _Kind:
    """The type of an array's numbers, as numpy pickles it: dtype('u1', False, True) and its byte order."""

    def __init__(self, text: str, *_: object) -> None:
        if not isinstance(text, str) or not _NUMBERS.fullmatch(text):
            raise pickle.UnpicklingError(f"an array of {text!r}, which are no numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array to be: numpy pickles an empty one and then its state."""

    def __init__(self, *_: object) -> None:
        self.value = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        self.value = _from_buffer(content, kind, shape, "F" if by_columns else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, *_: object) -> Any:
    if not isinstance(kind, _Kind) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array of something else than numbers")
    return np.frombuffer(bytes(content), kind.dtype).reshape(shape, order="F" if order == "F" else "C")


_MAKERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,  # named as an argument only
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): lambda text, encoding: str(text).encode("latin-1"),  # how protocol 2 writes bytes
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for module, name, maker in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", lambda kind, content: _from_buffer(content, kind, (), "C").item()),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _MAKERS:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is refused")
        return _MAKERS[module, name]


def _finished(value: Any) -> Any:
    """The value with arrays in their places."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, list | tuple | set):
        return type(value)(_finished(each) for each in value)
    if isinstance(value, dict):
        return {key: _finished(each) for key, each in value.items()}
    return value
