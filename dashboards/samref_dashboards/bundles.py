"""Opens a bundle that `samref-sweep bundle` wrote, after comparing each of its files with its hash."""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from samref_dashboards.load import COPIED, ResultsError

FORMAT = 1
"""The newest bundle that this package reads."""
MANIFEST, CRATE = "bundle.json", "ro-crate-metadata.json"


def opened(bundle: Path, folder: Path) -> Path:
    """Unpack a bundle's tables below `folder`, and give the folder of its results.

    Raises ResultsError: it is no bundle, is of a newer version, or a file in it is not what it was when it was written.
    """
    into = folder / f"{bundle.stem}-{hashlib.sha256(str(bundle.absolute()).encode()).hexdigest()[:8]}"
    try:
        with zipfile.ZipFile(bundle) as archive:
            hashes = _hashes(bundle, archive)
            names = [info.filename for info in archive.infolist()]
            if more := sorted({*names} - {*hashes, MANIFEST, CRATE}):
                raise ResultsError(f"{bundle}: {more[0]} was added to the bundle after it was written")
            for name, expected in hashes.items():
                content = archive.read(name) if name in names else None
                if content is None or hashlib.sha256(content).hexdigest() != expected:
                    what = "is missing from" if content is None else "was changed in"
                    raise ResultsError(f"{bundle}: {name} {what} the bundle after it was written; get it again")
                path = PurePosixPath(name)
                if path.parts[0] == "results" and len(path.parts) == 2:
                    (into / path.name).parent.mkdir(parents=True, exist_ok=True)
                    (into / path.name).write_bytes(content)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError) as error:
        raise ResultsError(f"{bundle}: is no whole bundle ({error}); get it again") from None
    if not (into / "trials.parquet").is_file():
        raise ResultsError(f"{bundle}: has no results/trials.parquet; samref-sweep bundle writes bundles")
    (into / COPIED).write_text(str(bundle))
    return into


def _hashes(bundle: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """The bundle's files and their SHA-256, as it says."""
    try:
        manifest = json.loads(archive.read(MANIFEST))
        number, hashes = int(manifest["samref.bundle"]), {str(k): str(v) for k, v in manifest["files"].items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ResultsError(f"{bundle}: is no bundle of samref-sweep (it has no {MANIFEST} that says so)") from None
    if number > FORMAT:
        raise ResultsError(f"{bundle}: is a bundle of version {number}, this samref-dashboard reads up to {FORMAT}")
    return hashes
