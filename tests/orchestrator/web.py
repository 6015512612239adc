"""A web server on this machine for the tests of downloads, with ranges, and with what goes wrong with servers.

It lies beside toys.py because this folder is on the path of every test.
"""

from __future__ import annotations

import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served, and how badly. Paths begin with a slash."""

    files: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)
    """Files that are served as HTML, and always whole."""
    content_type: str = "application/octet-stream"
    etag: str | None = '"1"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    """One entry a request, then none: the connection is closed after as many bytes of the body."""
    announced: int | None = None
    """Content-Length, where it is not the truth."""
    status: list[int] = field(default_factory=list)
    """One entry a request, then none: answered instead of the file."""
    drip_seconds: float = 0.0
    """The first eighty bytes of a body come one by one, so far apart."""
    gate: threading.Event | None = None
    """The second half of a body waits for it."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """Path, Range and If-Range of every request."""
    address: str = ""

    def at(self, path: str) -> str:
        return self.address + path


def answering_for(web: Web) -> type[BaseHTTPRequestHandler]:
    """What answers a request as `web` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = ("Range", "If-Range")
            web.asked.append({"path": self.path, **{n: self.headers[n] for n in names if n in self.headers}})
            body = web.pages.get(self.path, web.files.get(self.path))
            status = web.status.pop(0) if web.status else 200 if body is not None else 404
            if status != 200 or body is None:
                self.send_error(status)
                return
            self.answer(body, self.start(body))

        def start(self, body: bytes) -> int:
            wanted = self.headers.get("Range")
            if (
                not web.ranges
                or self.path in web.pages
                or not wanted
                or self.headers.get("If-Range", web.etag) != web.etag
            ):
                return 0
            return int(wanted.removeprefix("bytes=").removesuffix("-"))

        def answer(self, body: bytes, start: int) -> None:
            if start >= len(body) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(web.announced or len(body) - start))
            self.send_header("Content-Type", "text/html" if self.path in web.pages else web.content_type)
            if web.etag:
                self.send_header("ETag", web.etag)
            self.end_headers()
            rest = body[start : start + web.break_after.pop(0)] if web.break_after else body[start:]
            self.close_connection = True
            with suppress(ConnectionError):  # one who refuses the file hangs up
                if web.drip_seconds:
                    for byte in rest[:80]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(web.drip_seconds)
                    rest = rest[80:]
                self.wfile.write(rest[: len(rest) // 2])
                if web.gate:
                    web.gate.wait(30)
                self.wfile.write(rest[len(rest) // 2 :])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Web]:
    """The server, while the block runs; it hears nothing from other machines."""
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering_for(web))
    server.daemon_threads = True
    web.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        if web.gate:
            web.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A .zip of these files."""
    with zipfile.ZipFile(content := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return content.getvalue()


def tarred(*members: tarfile.TarInfo, **files: bytes) -> bytes:
    """A .tgz of these files and of other members."""
    with tarfile.open(fileobj=(content := io.BytesIO()), mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for member in members:
            archive.addfile(member)
    return content.getvalue()
