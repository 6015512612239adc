"""Results at a URI (s3://…), copied to this machine. Tested with S3 only."""

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from samref_dashboards.load import COPIED, ResultsError


def fetch(uri: str, folder: Path) -> Path:
    """Copy the tables at a URI, or one level below it, into a folder below `folder`.

    Raises ResultsError: there are none, or they cannot be read.
    """
    shown = uri.partition("?")[0].rstrip("/")
    try:
        files, root = fs.FileSystem.from_uri(uri)
        found = files.get_file_info(fs.FileSelector(root.rstrip("/"), recursive=True, allow_not_found=True))
        names = [each.path.removeprefix(root.rstrip("/") + "/") for each in found if each.extension == "parquet"]
        names = [name for name in names if name.count("/") <= 1]
        into = folder / shown.replace("://", "-").replace("/", "-")
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            fs.copy_files(f"{root.rstrip('/')}/{name}", str(into / name), files, fs.LocalFileSystem())
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"{shown}: cannot be read: {' '.join(str(error).split())[:300]}") from None
    if not names:
        raise ResultsError(f"{shown}: no trials.parquet there; name a place that samref-sweep --results wrote")
    for place in {name.rpartition("/")[0] for name in names}:
        (into / place / COPIED).write_text(f"{shown}/{place}".rstrip("/"))
    return into
