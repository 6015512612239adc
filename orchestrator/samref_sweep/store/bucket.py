"""A bucket of object storage: lists, reads, writes and removes objects by name through pyarrow.fs; tested with S3 only.

What goes wrong is a StoreError in one line that names the object; an object or a file that is not there is a
FileNotFoundError. An object appears whole. Knows nothing of stages. The only module here that imports pyarrow.
"""

import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest

QUICK, PATIENT = 3, 10
"""Attempts at each request. A server that is away is told after ten seconds by the first, after a minute by the second;
pyarrow's own strategy waits longer for a silent one and holds up the end of the process too (pyarrow 25)."""
AT_ONCE = 16
"""Requests that wait for their answers at a time: the server takes seconds to copy an object of a gigabyte."""
CHUNK_BYTES = 2**25
"""Bytes of one request, of which a large file takes several."""
OPTIONS = ("endpoint_override", "region", "scheme")
"""What may follow the ? of an S3 URI; credentials do not stand in it, for it is shown and kept in tables."""
REASONS = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NETWORK_CONNECTION": "no answer; is its endpoint right (?endpoint_override=HOST:PORT&scheme=http, or "
    "AWS_ENDPOINT_URL), and its server up?",
    "ACCESS_DENIED": "access denied; are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, or a profile or role?",
}
"""What the AWS SDK calls an error → what it is."""


Result = TypeVar("Result")


class Bucket:
    """A bucket's objects whose names begin with a URI's path: s3://bucket/folder, with options after ? (`OPTIONS`).

    Each request is tried `QUICK` or `PATIENT` times. Raises StoreError where the URI is none of object storage.
    """

    def __init__(self, uri: str, attempts: int = PATIENT) -> None:
        self._uri = uri
        self.where = uri.partition("?")[0].rstrip("/")
        """The URI without its options, for people."""
        try:
            self._files, root = _connect(uri, attempts)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(f"{self.where}: is no place for objects: {error}") from None
        self._root = root.rstrip("/")

    def list(self, folder: str) -> dict[str, float]:
        """Return the objects directly in a folder, by base name, and when each was written, in seconds since 1970."""
        return {each.base_name: (each.mtime_ns or 0) / 1e9 for each in self._objects(folder)}

    def _objects(self, folder: str) -> Iterable[fs.FileInfo]:
        with self._told(folder):
            found = self._files.get_file_info(fs.FileSelector(self._path(folder), allow_not_found=True))
        return [each for each in found if each.type == fs.FileType.File]

    def lacks(self, about: Mapping[str, Any], names: Iterable[str]) -> str | None:
        """Say which of some files that a marker tells of is missing, or has another size; None if none is."""
        sizes = {each.base_name: each.size for each in self._objects(about["upload"])}
        for name in names:
            if sizes.get(name) != about["manifest"]["files"][name]["bytes"]:
                return f"{self.where}/{about['upload']}/{name} is missing, or has another size"
        return None

    def has(self, name: str) -> bool:
        """Tell whether there is an object of that name."""
        with self._told(name):
            (found,) = self._files.get_file_info([self._path(name)])
        return bool(found.type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """Return what a small object holds."""
        with self._told(name), self._files.open_input_file(self._path(name)) as stream:
            return bytes(stream.read())

    def opened(self, name: str) -> pa.NativeFile:
        """Open an object, to read parts of it."""
        with self._told(name):
            return self._files.open_input_file(self._path(name))

    def read_part(self, opened: pa.NativeFile, name: str, start: int, stop: int) -> bytes:
        """Return the bytes of an opened object from `start` to before `stop`."""
        with self._told(name):
            return bytes(opened.read_at(stop - start, start))  # type: ignore[call-arg]  # pyarrow's own stubs

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, or replace it."""
        with self._told(name), self._files.open_output_stream(self._path(name)) as stream:
            stream.write(content)

    def put(self, path: Path, name: str) -> None:
        """Upload a file as an object, or replace it."""
        with self._told(name):
            fs.copy_files(str(path), self._path(name), fs.LocalFileSystem(), self._files)

    def get(self, name: str, path: Path) -> None:
        """Download an object into a file, in a folder that may be new."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told(name):
            fs.copy_files(self._path(name), str(path), self._files, fs.LocalFileSystem(), chunk_size=CHUNK_BYTES)

    def put_folder(
        self, folder: Path, upload: str, marker: str, there: Mapping[str, str] | None = None, **about: Any
    ) -> None:
        """Upload the files of a folder that has a manifest; the marker, written last, says that they are whole.

        What is `there` already (a file's hash → an object's name) the server copies.
        """
        content = manifest.read(folder)

        def bring(name: str) -> None:
            if not self._copied((there or {}).get(content["files"][name]["sha256"]), f"{upload}/{name}"):
                self.put(folder / name, f"{upload}/{name}")

        self.at_once(bring, content["files"])
        self.write(marker, json.dumps({"upload": upload, "manifest": content, **about}).encode())

    def _copied(self, source: str | None, name: str) -> bool:
        """Have the server copy an object; False where there is none."""
        with suppress(FileNotFoundError), self._told(name):
            if source:
                self._files.copy_file(self._path(source), self._path(name))
                return True
        return False

    def get_folder(self, about: Mapping[str, Any], folder: Path, leave: re.Pattern[str] | None = None) -> None:
        """Fetch the files that a marker tells of, but for those that match `leave`, and their manifest, into an empty
        folder.

        Raises DamagedError: one is missing, or they are not those that were uploaded (of those left: by their size).
        """
        (folder / manifest.FILE).write_text(json.dumps(about["manifest"], indent=1) + "\n")
        files = about["manifest"]["files"]
        left = {name for name in files if leave and leave.fullmatch(name)}
        if left and (reason := self.lacks(about, left)):
            raise DamagedError(reason)
        try:
            for name in files.keys() - left:
                self.get(f"{about['upload']}/{name}", folder / name)
        except FileNotFoundError as error:
            raise DamagedError(str(error)) from None
        if reason := manifest.difference(folder, {files[name]["sha256"] for name in left}):
            raise DamagedError(reason.replace(str(folder), f"{self.where}/{about['upload']}"))

    @staticmethod
    def at_once(call: Callable[[str], Result], names: Iterable[str]) -> Sequence[Result]:
        """Call a function that waits for the server with each name, several at a time, and return each call's result.

        Raises what the first call that failed raised, when all have ended.
        """
        with ThreadPoolExecutor(AT_ONCE, "bucket") as pool:
            return list(pool.map(call, names))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with suppress(FileNotFoundError), self._told(name):
            self._files.delete_file(self._path(name))

    def remove_below(self, folder: str) -> None:
        """Remove all objects below a name."""
        with suppress(FileNotFoundError), self._told(folder):
            self._files.delete_dir(self._path(folder))

    @contextmanager
    def probe(self) -> Iterator[Callable[[], None]]:
        """Give a function by which any process makes sure that it can write into this very bucket, for the block.

        It can be pickled, and raises StoreError where it cannot.
        """
        name = f"probes/{secrets.token_hex(6)}"
        self.write(name, b"")
        try:
            yield partial(_look, self._uri, name)
        finally:
            self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.where}/{name} is missing") from None
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{self.where}/{name}: {_reason(error)}") from None


@contextmanager
def uploaded(uri: str) -> Iterator[Path]:
    """Give an empty folder, whose files become objects below a URI when the block ends (`StoreError`: they cannot)."""
    bucket = Bucket(uri, QUICK)
    with bucket.probe(), tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir()):
            bucket.put(path, path.name)


def _look(uri: str, name: str) -> None:
    bucket = Bucket(uri, QUICK)
    if not bucket.has(name):
        raise StoreError(f"{bucket.where}/{name}: was written by the driver, and is not there")
    with bucket.probe():
        pass


def _connect(uri: str, attempts: int) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(uri)
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:  # else a quarter of an hour
        seconds = 10 if attempts == QUICK else 60
        return fs.FileSystem.from_uri(f"{uri}{'&' if parts.query else '?'}retry_limit_seconds={seconds}")
    if parts.scheme != "s3":
        return fs.FileSystem.from_uri(uri)
    if "@" in parts.netloc:
        raise ValueError("credentials stand in the environment or a profile, not in the URI")
    if not parts.netloc:
        raise ValueError("it names no bucket")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if unknown := options.keys() - OPTIONS:
        raise ValueError(f"{', '.join(sorted(unknown))} is no option; there are {', '.join(OPTIONS)}")
    if "endpoint_override" not in options and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        options |= {"endpoint_override": urlsplit(endpoint).netloc, "scheme": urlsplit(endpoint).scheme}
    options["retry_strategy"] = fs.AwsStandardS3RetryStrategy(max_attempts=attempts)
    options["allow_delayed_open"] = True  # a small object is one request
    return fs.S3FileSystem(**options), parts.netloc + parts.path


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return next((f"{reason} ({text})" for code, reason in REASONS.items() if f"AWS Error {code}" in text), text)[:500]
