"""The manifest of a finished stage: its files, their sizes and hashes, and the commit of the code that wrote them."""

import json
import os
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from samref.sha256 import sha256_of

FILE = "manifest.json"
KNOWN = "hashes.json"
VERSION = 1
# `difference` reads the smallest files until it has hashed this much, so that it costs well under a second; the sizes
# of all files are compared always. 256 MiB holds every weight file but the largest backbones'.
HASH_AT_MOST_BYTES = 256 * 2**20


def read(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest: `version`, `commit`, and for each of its `files` `bytes` and `sha256`."""
    return dict(json.loads((folder / FILE).read_text()))


def difference(folder: Path, elsewhere: Collection[str] = ()) -> str | None:
    """Say how a folder's files differ from its manifest: one is missing, of another size, or has other bytes.

    Files whose hashes are among those `elsewhere` may be missing.

    Returns:
        A line that names the file; None where all sizes, and the bytes of the smallest files, are as they were written.

    Raises:
        OSError: the disk does not answer.
    """
    try:
        files: dict[str, dict[str, Any]] = read(folder)["files"]
        left = HASH_AT_MOST_BYTES
        for name, entry in sorted(files.items(), key=lambda item: item[1]["bytes"]):
            if entry["sha256"] in elsewhere and not (folder / name).exists():
                continue
            size = (folder / name).stat().st_size
            if size != entry["bytes"]:
                return f"{folder / name} has {size} bytes, its manifest says {entry['bytes']}"
            left -= size
            if left >= 0 and sha256_of(folder / name) != entry["sha256"]:
                return f"{folder / name} has other bytes than those that were written"
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{folder / FILE} cannot be read: {error}"
    return None


def is_file(path: Path, entry: dict[str, Any]) -> bool:
    """Tell whether a file is there, and is the one of which a manifest has this entry."""
    return path.is_file() and path.stat().st_size == entry["bytes"] and sha256_of(path) == entry["sha256"]


def write(folder: Path) -> None:
    """Write a folder's manifest, with all that it lists on the disk before it.

    What stands in a file `hashes.json` (name → what the manifest says of it) was on the disk when it was hashed, by
    whoever wrote it; that file goes.
    """
    known = folder / KNOWN
    files: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    known.unlink(missing_ok=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if (name := path.relative_to(folder).as_posix()) not in files:
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            sync(path)
    path = folder / FILE
    path.write_text(json.dumps({"version": VERSION, "commit": commit(), "files": files}, indent=1) + "\n")
    sync(path)
    sync(folder)


@cache
def commit() -> str | None:
    """Return the commit of the code that runs, `-dirty` where files were changed since; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.check_output(
            command, cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.strip() or None


def sync(path: Path) -> None:
    """Make sure that a file or a folder's entries are on the disk before what comes next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
