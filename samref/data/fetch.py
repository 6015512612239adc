"""Datasets from their public archives into the data root.

Each archive has one or several addresses, tried in their order until one gives it whole. DATA_ROOT/downloads holds
archives on their way, and record.json: address, size and SHA-256 of all that came. What comes again from an address
must be the same. An archive is removed once it is unpacked.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samref.data.archives import ARCHIVES, Archive, ArchiveSource, PublishedDataset
from samref.data.sample import DataError, Split
from samref.data.unpack import unpack
from samref.download import DownloadError, Source, alone, download
from samref.progress import ProgressLine, readable_size

Say = Callable[[str], None]


def fetch(
    name: str, splits: Sequence[Split], root: Path, say: Say, archives: Mapping[str, PublishedDataset] = ARCHIVES
) -> None:
    """Download and unpack a dataset; what was unpacked before is left, what was cut off goes on.

    One process at a time works below a data root; another one waits. Raises DataError: it cannot be had, or is not what
    it was before; one line.
    """
    published = archives[name]
    folder = root / "downloads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = functools.cache(lambda: say(f"another samref-data works in {root}; waiting for it"))
        with alone(folder / "lock", waiting):
            for archive in published.archives:
                if set(archive.splits) & set(splits):
                    _fetch(name, archive, published, root, say)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error


def _fetch(name: str, archive: Archive, published: PublishedDataset, root: Path, say: Say) -> None:
    known = _read(root / "downloads")
    for source in archive.sources:
        there = all((root / published.folder / place).exists() for place in archive.places.values())
        if there and known.get(source.address, {}).get("unpacked"):
            say(f"{name}: {source.name} is unpacked already")
            return
    refused: list[DataError] = []
    for source in archive.sources:
        if refused:
            say(f"{name}: {refused[-1]}; trying the next of {len(archive.sources)} addresses")
        try:
            _fetch_from(source, name, archive, published, root, say)
        except DataError as error:
            refused.append(error)
        else:
            for other in archive.sources:  # what another address left when it broke off, or was broken
                for left in (root / "downloads").glob(f"{_file_name(published, archive, other)}*"):
                    left.unlink()
            return
    reasons = "; ".join(str(error) for error in refused)
    every = f"none of its {len(refused)} addresses gave it: " if len(refused) > 1 else ""
    raise DataError(f"{name}: {every}{reasons}. By hand: {published.page}") from refused[-1]


def _fetch_from(
    source: ArchiveSource, name: str, archive: Archive, published: PublishedDataset, root: Path, say: Say
) -> None:
    folder, downloads = root / published.folder, root / "downloads"
    known = _read(downloads).get(source.address, {})
    size = f", {readable_size(source.size)}" if source.size else ""
    say(f"{name}: {source.address}{size} (licence: {published.licence})")
    file = downloads / _file_name(published, archive, source)
    expected = Source(address=source.address, size=source.size, sha256=source.sha256 or known.get("sha256"))
    try:
        with ProgressLine(source.name) as line:
            digest = download(expected, file, line)
    except DownloadError as error:
        other = f"; remove its entry in {downloads / 'record.json'} if the new one is right" if known else ""
        raise DataError(f"{error}{other}") from error
    entry = {"size": file.stat().st_size, "sha256": digest}
    _record(downloads, source.address, {**entry, "unpacked": False})
    inside = f"{source.inside}/" if source.inside else ""
    with ProgressLine(f"unpacking {source.name}", "files") as line:
        unpack(file, folder, {inside + wanted: place for wanted, place in archive.places.items()}, line)
    _record(downloads, source.address, {**entry, "unpacked": True})
    file.unlink()
    say(f"{name}: unpacked in {folder}; SHA-256 {digest}")


def _file_name(published: PublishedDataset, archive: Archive, source: ArchiveSource) -> str:
    """What the archive is called here: each of its addresses goes on from its own part."""
    number = archive.sources.index(source)
    return f"{published.folder}-{f'{number + 1}-' if number else ''}{source.name}"


def _read(downloads: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads((downloads / "record.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{downloads / 'record.json'}: cannot be read ({error}); remove it") from error
    return known


def _record(downloads: Path, address: str, entry: Mapping[str, Any]) -> None:
    aside = downloads / f"record.json.{os.getpid()}"
    aside.write_text(json.dumps({**_read(downloads), address: entry}, indent=2) + "\n", encoding="utf-8")
    aside.replace(downloads / "record.json")
