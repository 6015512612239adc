"""One file from a public address: resumed where it was cut off, checked, and in its place only when it is whole.

Bytes are gathered in FILE.part, which one process at a time writes; a dropped connection, or the next run, goes on
from there. Proxies are those of the environment, as urllib reads them. Knows nothing of checkpoints or datasets.
"""

import contextlib
import fcntl
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from samref import drive
from samref.errors import UserError
from samref.progress import OnProgress, readable_size, silent
from samref.sha256 import sha256_of

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
SLOW_BYTES = 30_000
"""Fewer in TIMEOUT_SECONDS are as good as none: a server that drips is one that does not answer."""
PAGE_BYTES = 1 << 20
"""How much is read of a web page that came instead of the file."""
ATTEMPTS = 5
"""How many attempts fail in a row, with fewer than SLOW_BYTES more, before it gives up."""
PAUSE_SECONDS = 1.0
"""The pause before the second attempt; it is doubled before each further one."""


class DownloadError(UserError, ValueError):
    """A file cannot be downloaded; one line that names the address and what to do."""


class _DroppedError(Exception):
    """An attempt to download failed; another one may not."""

    def __init__(self, text: str, *, anew: bool = False) -> None:
        super().__init__(text)
        self.anew = anew
        """Whether the part that is here already is of no use to the next attempt."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A public file, and what is known of it beforehand."""

    address: str
    size: int | None = None
    """The file's size, bytes."""
    sha256: str | None = None
    """The whole file's hash, hexadecimal."""

    @property
    def name(self) -> str:
        """The last part of the address: a file's name, or its id where a query names it."""
        return self.address.rpartition("/")[2].rpartition("=")[2]


def download(source: Source, target: Path, progress: OnProgress = silent) -> str:
    """Bring a file here and give its SHA-256; one that is here already stays as it is.

    progress: told bytes so far, of how many (None: not known), and that while another process downloads it, too.
    Raises DownloadError: no network, refused, a web page instead of the file, another size or hash, no room.
    """
    part = target.with_name(f"{target.name}.part")
    tag = target.with_name(f"{target.name}.part.tag")

    def waiting() -> None:
        with contextlib.suppress(OSError):
            progress(part.stat().st_size, source.size)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(part, waiting) as file:
            try:
                if target.exists():
                    return sha256_of(target)
                _gather(source, file, tag, progress)
                os.fsync(file.fileno())
                digest = _check(source, part)
                part.replace(target)
                return digest
            finally:
                if not _is(part, file) or not file.seek(0, os.SEEK_END):
                    tag.unlink(missing_ok=True)
                    if _is(part, file):
                        part.unlink()
    except OSError as error:  # the network's own errors do not come this far
        raise DownloadError(
            f"{target}: cannot be written ({error.strerror}); make room, or its folder writable, and run again to go on"
        ) from error


@contextlib.contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[BinaryIO]:
    """Open a file for appending, by one process at a time; the others call `waiting` now and then."""
    while True:
        with path.open("ab") as file:
            while not _lock(file):
                waiting()
                time.sleep(0.2)
            # Whoever held it before may have renamed it: then this lock is on something else by now.
            if _is(path, file):
                yield file
                return


def _is(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the hash still tells two that wrote at once
        pass
    return True


def _gather(source: Source, file: BinaryIO, tag: Path, progress: OnProgress) -> None:
    """All attempts; afterwards the file is as long as it was announced."""
    most = file.seek(0, os.SEEK_END)
    failures = 0
    while True:
        try:
            return _attempt(source, file, tag, progress)
        except _DroppedError as error:
            size = file.seek(0, os.SEEK_END)
            failures = 1 if size - most >= SLOW_BYTES else failures + 1
            most = max(most, size)
            if error.anew:
                file.truncate(0)
            if failures == ATTEMPTS:
                kept = f"; {readable_size(size)} of it are kept, run again to go on" if size else "; try again later"
                raise DownloadError(f"{source.address}: {error}, {ATTEMPTS} times in a row{kept}") from error
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _attempt(source: Source, file: BinaryIO, tag: Path, progress: OnProgress) -> None:
    start = file.seek(0, os.SEEK_END)
    validator = _validator(tag, source)
    if start == source.size:
        return
    # What came before is worth something only if it can be told to be of the same file.
    if start and (not (validator or source.sha256) or start > (source.size or start)):
        file.truncate(start := 0)
    response = _open(source, source.address, start, validator)
    if response is not None and _is_page(response):
        response = _open(source, _behind(source, response), start, validator)
    if response is None:
        return
    with response:
        if start and response.status != http.client.PARTIAL_CONTENT:
            file.truncate(start := 0)
        total = _announced(response, start)
        _require_the_file(source, response, total)
        if total is not None and total - start > shutil.disk_usage(tag.parent).free:
            free = readable_size(shutil.disk_usage(tag.parent).free)
            raise DownloadError(
                f"{tag.parent}: {source.name} needs {readable_size(total - start)} more, but {free} are free; make room"
            )
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        tag.write_text(f"{source.address}\n{validator}\n")
        _copy(response, file, start, total, progress)


def _open(source: Source, address: str, start: int, validator: str) -> http.client.HTTPResponse | None:
    """The server's answer; None: it has nothing behind `start`."""
    request = urllib.request.Request(address, headers={"User-Agent": "samref", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    try:
        # A new opener: urlopen keeps the proxies of its first call.
        response: http.client.HTTPResponse = urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return None
            raise _DroppedError("the server cannot go on where it was cut off", anew=True) from None
        if error.code >= 500 or error.code in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS):
            raise _DroppedError(f"the server answered {error.code} {error.reason}") from None
        gone = "; it may have moved" if error.code in (404, 410) else ""
        raise DownloadError(f"{source.address}: the server answered {error.code} {error.reason}{gone}") from None
    except urllib.error.URLError as error:
        if start:
            raise _DroppedError(f"cannot be reached ({_why(error)})") from error
        raise DownloadError(
            f"{source.address}: cannot be reached ({_why(error)}): there is no network, or a proxy to set (https_proxy)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(f"the connection broke ({_why(error)})") from error


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def _announced(response: http.client.HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file, as the server tells."""
    if response.status == http.client.PARTIAL_CONTENT:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            raise _DroppedError(f"the server went on from elsewhere ({span})", anew=True)
        return int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _is_page(response: http.client.HTTPResponse) -> bool:
    return response.headers.get_content_type() in ("text/html", "application/xhtml+xml")


def _behind(source: Source, response: http.client.HTTPResponse) -> str:
    """Where the file is that a page of Google Drive asks to confirm; DownloadError at any other page."""
    with response:
        try:
            page = response.read(PAGE_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise _DroppedError(f"the connection broke ({_why(error)})") from error
    address = drive.behind(page, response.url)
    if address is None:
        raise _page_error(source, drive.title(page))
    return address


def _page_error(source: Source, title: str = "") -> DownloadError:
    what = f"titled {title[:80]!r}" if title else "a login, a proxy, a notice?"
    return DownloadError(
        f"{source.address}: answered with a web page instead of the file ({what}); open it in a browser"
    )


def _require_the_file(source: Source, response: http.client.HTTPResponse, total: int | None) -> None:
    if _is_page(response):
        raise _page_error(source)
    if source.size is not None and total is not None and total != source.size:
        raise DownloadError(
            f"{source.address}: has {total} bytes instead of {source.size}; it is not the file that was published"
        )


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, start: int, total: int | None, progress: OnProgress
) -> None:
    done = then = start
    since = time.monotonic()
    progress(done, total)
    try:
        while block := _read(response):
            file.write(block)
            done += len(block)
            progress(done, total)
            if time.monotonic() - since > TIMEOUT_SECONDS:
                if done - then < SLOW_BYTES:
                    raise _DroppedError(f"it gave only {done - then} bytes in {TIMEOUT_SECONDS:.0f} s")
                since, then = time.monotonic(), done
    finally:
        file.flush()
    if total is not None and done != total:
        raise _DroppedError(f"the connection ended after {done} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(f"the connection broke ({_why(error)})") from error


def _check(source: Source, part: Path) -> str:
    """The file's hash; one that is not what it should be is removed."""
    size, digest = part.stat().st_size, sha256_of(part)
    if source.size in (None, size) and source.sha256 in (None, digest):
        return digest
    part.unlink()
    raise DownloadError(
        f"{source.address}: gave {size} bytes of SHA-256 {digest[:16]}… instead of "
        f"{source.size if source.size is not None else 'any number'} of {(source.sha256 or 'any')[:16]}…; removed: it "
        "was changed on its way, or at its place"
    )


def _validator(tag: Path, source: Source) -> str:
    """What tells whether the server's file is still the one that the part is of; empty: nothing does."""
    try:
        address, _, validator = tag.read_text().partition("\n")
    except OSError:
        return ""
    return validator.strip() if address == source.address else ""
