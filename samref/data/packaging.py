"""Which packaging of a published dataset a folder holds, by manifests of hashes: numbers are comparable within one.

A manifest, manifests/NAME.txt.gz, is text: the packaging's name, the SHA-256 of its whole list, and a line for each
file with the first 16 digits of its SHA-256. A dataset that has none is not judged.
"""

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from samref.data.archives import ARCHIVES
from samref.data.sample import DataError
from samref.sha256 import sha256_of

DIGITS = 16
"""Digits kept of each file's hash: they tell which file differs, the list's own hash that none does."""


@dataclass(frozen=True)
class Manifest:
    """The files of one packaging of a dataset."""

    packaging: str
    """The packaging's name, e.g. `DAVIS, RITM's packaging`."""
    digest: str
    """`digest_of` all its files."""
    digests: Mapping[str, str]
    """File → the first DIGITS of its SHA-256."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that hold the files."""
        return tuple(sorted({name.rpartition("/")[0] for name in self.digests}))


def manifest(name: str) -> Manifest | None:
    """Read the manifest of a dataset; None where there is none."""
    file = files("samref.data") / "manifests" / f"{name}.txt.gz"
    if not file.is_file():
        return None
    packaging, digest, *lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    return Manifest(packaging, digest, {line[DIGITS + 1 :]: line[:DIGITS] for line in lines})


def digest_of(hashes: Mapping[str, str]) -> str:
    """Hash a list of files and their hashes, in the order of the names, to one SHA-256 (hex)."""
    return hashlib.sha256("".join(f"{digest} {name}\n" for name, digest in sorted(hashes.items())).encode()).hexdigest()


def packaging(name: str, root: Path) -> str:
    """Say which packaging of a dataset lies below the data root; empty where no manifest is known.

    Raises DataError: a file cannot be read.
    """
    known = manifest(name)
    if known is None:
        return ""
    return compared(known, hashes_below(root / ARCHIVES[name].folder, known.folders))


def compared(known: Manifest, found: Mapping[str, str]) -> str:
    """Compare files and their hashes with a manifest, in words."""
    if digest_of(found) == known.digest:
        return f"{known.packaging}: its {len(found)} files, unchanged"
    equal = {name for name, digest in known.digests.items() if found.get(name, "")[:DIGITS] == digest}
    changed = sorted(found.keys() & known.digests.keys() - equal)
    if 2 * len(equal) < len(known.digests):
        return (
            f"another packaging than {known.packaging} ({len(equal)} of its {len(known.digests)} files are the same): "
            "numbers are not comparable with those on it"
        )
    lacking, more = sorted(known.digests.keys() - found.keys()), sorted(found.keys() - known.digests.keys())
    of_all = f"of its {len(known.digests)} files"
    what = (changed, f"{of_all} were changed"), (lacking, f"{of_all} are not here"), (more, "files more than it has")
    told = [f"{len(names)} {text} ({names[0]}{', …' if len(names) > 1 else ''})" for names, text in what if names]
    return f"{known.packaging}, but {' and '.join(told)}: numbers are not comparable with those on it"


def hashes_below(folder: Path, inside: Iterable[str]) -> dict[str, str]:
    """Hash the files of some folders below `folder`: path → SHA-256; hidden files and Thumbs.db are passed over."""
    try:
        found = [
            path
            for part in inside
            if (folder / part).is_dir()
            for path in (folder / part).iterdir()
            if path.is_file() and not path.name.startswith(".") and path.name != "Thumbs.db"
        ]
        with ThreadPoolExecutor(2, thread_name_prefix="hashes") as pool:
            names = (path.relative_to(folder).as_posix() for path in found)
            return dict(zip(names, pool.map(sha256_of, found), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); restore it") from None
