"""The SHA-256 of a file, by which all that is downloaded, kept or shared is told from anything else."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Read a whole file for its SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
