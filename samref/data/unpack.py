"""Archives into folders: only the wanted files, none outside, no links."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from samref.data.sample import DataError
from samref.progress import OnProgress, silent

Member = tuple[str, bool, Callable[[], IO[bytes] | None]]
"""A member's name, whether it is a plain file (else a link or a device), and how to read it."""


def unpack(archive: Path, folder: Path, places: Mapping[str, str], progress: OnProgress = silent) -> None:
    """Write the wanted files of a .zip or a (compressed) .tar; files that are there are replaced.

    places: file or folder in the archive, at whatever depth → its place in `folder`. progress: told files written.
    Raises DataError: broken, wanted files that lead elsewhere, or something wanted is not in it.
    """
    found: set[str] = set()
    written = 0
    try:
        for name, plain, opened in _members(archive):
            parts = PurePosixPath(name.replace("\\", "/")).parts
            place = _place(parts, places)
            if place is None:
                continue
            if not plain or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
                raise DataError(f"{archive}: its {name} leads out of its folder; nothing more was unpacked")
            target = folder / place[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            content = opened()
            assert content is not None, "plain files can be read"
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            found.add(place[0])
            progress(written := written + 1, None)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: is broken or no archive ({error}); remove it and run again") from error
    except OSError as error:
        where = error.filename or folder
        raise DataError(f"{where}: cannot be unpacked from {archive.name} ({error.strerror or error})") from error
    lost = [name for name in places if name not in found]
    if lost:
        raise DataError(f"{archive}: holds no {', '.join(lost)}; it is another archive than the published one")


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    linked = stat.S_ISLNK(info.external_attr >> 16)
                    yield info.filename, not linked, lambda info=info: zipped.open(info)  # type: ignore[misc]
        return
    # A stream, read once from start to end: to seek in a compressed tar is to read it again.
    with closing(tarfile.open(archive, "r|*")) as tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.isreg(), lambda member=member: tar.extractfile(member)  # type: ignore[misc]


def _place(parts: tuple[str, ...], places: Mapping[str, str]) -> tuple[str, PurePosixPath] | None:
    """Which of `places` a member belongs to, and where it goes."""
    if "__MACOSX" in parts or parts[-1].startswith("."):
        return None
    for depth in range(len(parts)):
        for name, place in places.items():
            end = depth + 1 + name.count("/")
            if name == "/".join(parts[depth:end]):
                return name, PurePosixPath(place, *parts[end:])
    return None
