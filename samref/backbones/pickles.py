"""A file of weights as its bytes tell what it is, read without running any code that stands in it.

A pickled file can name any function of any module, to be called while it is read. Here it can name those alone that
make tensors, numpy's numbers and arrays, and the plain values and containers which training scripts put beside the
weights; a file that names another is refused before anything is called.
"""

import argparse
import collections
import datetime
import pathlib
import pickle
import types
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import load_file

from samref.backbones.checkpoints import CheckpointError, is_page

SAVE = "torch.save(model.state_dict(), 'weights.pth')"
"""The command that makes a file which can be read."""

_HEADER_BYTES = 512
_LARGEST_HEADER = 100_000_000  # of a safetensors file
_REBUILT = "tensor tensor_v2 tensor_v3 parameter parameter_with_state sparse_tensor qtensor meta_tensor_no_storage"
"""What the functions `_rebuild_…` of torch make."""


class _ForeignError(Exception):
    """Raised with the name of a class or function that a pickled file may not call."""


def read(path: Path, *, lazily: bool = False) -> Any:
    """What a file of weights holds, on the CPU: a safetensors or a torch.save file, whatever its suffix.

    With `lazily` values stay on disk until they are looked at, where the format allows it. Raises CheckpointError: it
    is no such file, is cut off, or holds objects whose unpickling would run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
            file.seek(0)
            problem = _no_checkpoint(path, head)
            if not problem:
                return load_file(path) if _is_safetensors(head) else _unpickled(path, file, lazily)
    except _ForeignError as error:
        problem = (
            f"it holds an object of {error} (a whole model, or a script's own settings), and reading it would run "
            f"code; where it was made, save the weights alone: {SAVE}"
        )
    except OSError as error:
        problem = error.strerror or str(error)
    except Exception:  # each format fails in its own ways; the user needs the file's name
        problem = "it is cut off, or another kind of file; fetch it again"
    raise CheckpointError(f"{path} cannot be read as a checkpoint: {problem}")


def _is_safetensors(head: bytes) -> bool:
    """A length in eight bytes, then JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER


def _no_checkpoint(path: Path, head: bytes) -> str:
    """What a file is that is none at all; empty: it may be one."""
    if is_page(path):
        return "it is a web page, not a checkpoint; fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; `git lfs pull` brings the file itself"
    if not head:
        return "it is empty; fetch it again"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # Of a program torch.load would read more than data.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return f"it is a TorchScript program; where it was made, save the weights alone: {SAVE}"
    return ""


def _unpickled(path: Path, file: IO[bytes], lazily: bool) -> Any:
    """By torch.load, whose every unpickler is ours."""
    # Given a path, torch goes by its suffix; what is only called a safetensors file is read from the open one.
    by_path = path.suffix.lower() != ".safetensors"
    return torch.load(
        path if by_path else file,
        map_location="cpu",
        mmap=lazily and by_path and zipfile.is_zipfile(path),
        weights_only=False,  # torch's own restricted unpickler knows neither newer protocols nor most containers
        pickle_module=_PICKLE,
    )


class _Unpickler(pickle.Unpickler):
    """Calls nothing but what is allowed."""

    def find_class(self, module: str, name: str, /) -> Any:
        """The function or class of that name, if it is allowed."""
        try:
            return _allowed()[f"{module}.{name}"]
        except KeyError:
            raise _ForeignError(f"{module}.{name}") from None


_PICKLE = types.SimpleNamespace(
    Unpickler=_Unpickler, load=lambda file, **options: _Unpickler(file, **options).load(), __name__=__name__
)
"""What torch.load takes for the pickle module."""


@cache
def _allowed() -> dict[str, Callable[..., Any]]:
    """What a file may call, by the names that files of any release of Python, numpy and torch have for it."""
    return dict(_names())


def _names() -> Iterator[tuple[str, Callable[..., Any]]]:
    for function in (f"_rebuild_{name}" for name in _REBUILT.split()):
        if hasattr(torch._utils, function):
            yield f"torch._utils.{function}", getattr(torch._utils, function)
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype | torch.layout | torch.qscheme):
            yield f"torch.{name}", value  # type: ignore[misc]  # a constant, by its name
    yield "torch.serialization._get_layout", torch.serialization._get_layout
    yield "torch.nn.parameter.Parameter", torch.nn.Parameter
    yield from ((f"torch.{each.__name__}", each) for each in (torch.Tensor, torch.Size, torch.device))
    scalar, reconstruct = np.float64(0).__reduce__()[0], np.ndarray(0).__reduce__()[0]
    for core in ("core", "_core"):  # numpy 1, numpy 2
        yield f"numpy.{core}.multiarray.scalar", scalar  # type: ignore[misc]
        yield f"numpy.{core}.multiarray._reconstruct", reconstruct  # type: ignore[misc]
    yield "numpy.ndarray", np.ndarray
    yield "numpy.dtype", np.dtype
    for name, value in vars(np.dtypes).items():
        if isinstance(value, type):
            yield f"numpy.dtypes.{name}", value
    yield "_codecs.encode", _bytes
    for module in ("builtins", "__builtin__"):  # Python 3, and its names in files of protocol 2
        for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice):
            yield f"{module}.{kind.__name__}", kind
        yield f"{module}.long", int
        yield f"{module}.xrange", range
    for container in (collections.OrderedDict, collections.defaultdict, collections.deque, collections.Counter):
        yield f"collections.{container.__name__}", container
    yield "argparse.Namespace", argparse.Namespace
    yield "types.SimpleNamespace", types.SimpleNamespace
    for name in ("datetime", "date", "time", "timedelta", "timezone"):
        yield f"datetime.{name}", getattr(datetime, name)
    for path in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"):
        for module in ("pathlib", "pathlib._local"):  # of Python 3.13
            yield f"{module}.{path}", pathlib.PureWindowsPath if "Windows" in path else pathlib.PurePosixPath


def _bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise _ForeignError(f"_codecs.encode to {encoding}")
    return text.encode(encoding)
