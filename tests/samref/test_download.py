"""Downloads against a real server on this machine."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from web import Web, serving

from samref.download import ATTEMPTS, DownloadError, Source, download
from samref.progress import ProgressLine, readable_size

BODY = bytes(range(256)) * 4000  # 1 MB, no two neighbours alike
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr("samref.download.PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1,nowhere.invalid")
    with serving() as server:
        server.files["/weights.bin"] = BODY
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "weights.bin"


def refused(source: Source, target: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        download(source, target)
    text = str(caught.value)
    assert "\n" not in text
    assert not target.exists()
    return text


def only(target: Path) -> None:
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_comes_whole_and_is_not_asked_for_twice(web: Web, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    source = Source(address=web.at("/weights.bin"), size=len(BODY), sha256=SHA256)
    assert download(source, target, lambda done, total: told.append((done, total))) == SHA256
    assert target.read_bytes() == BODY
    assert told[0] == (0, len(BODY))
    assert told[-1] == (len(BODY), len(BODY))
    only(target)
    assert download(source, target) == SHA256
    assert len(web.asked) == 1


def test_dropped_connections_go_on_where_they_ended(web: Web, target: Path) -> None:
    web.break_after = [300_000, 1, 200_000]
    assert download(Source(address=web.at("/weights.bin")), target) == SHA256
    assert [entry.get("Range") for entry in web.asked] == [None, "bytes=300000-", "bytes=300001-", "bytes=500001-"]
    assert {entry.get("If-Range") for entry in web.asked[1:]} == {'"1"'}
    only(target)


def test_the_next_run_goes_on_too(web: Web, target: Path) -> None:
    web.break_after = [400_000, *[0] * ATTEMPTS]
    source = Source(address=web.at("/weights.bin"))
    said = refused(source, target)
    assert f"ended after 400000 of {len(BODY)} bytes, {ATTEMPTS} times in a row; 400 kB of it are kept" in said
    web.asked.clear()
    web.break_after.clear()
    assert download(source, target) == SHA256
    assert [entry["Range"] for entry in web.asked] == ["bytes=400000-"]
    only(target)


@pytest.mark.parametrize("change", ["another file", "no ranges", "no etag", "another address"])
def test_what_may_be_of_another_file_is_not_gone_on_with(web: Web, target: Path, change: str) -> None:
    other = bytes(reversed(BODY))
    web.files["/moved.bin"] = BODY
    web.etag = None if change == "no etag" else web.etag
    web.break_after = [400_000, *[0] * ATTEMPTS]
    refused(Source(address=web.at("/weights.bin")), target)
    web.break_after.clear()
    if change == "another file":
        web.files["/weights.bin"], web.etag = other, '"2"'
    web.ranges = change != "no ranges"
    download(Source(address=web.at("/moved.bin" if change == "another address" else "/weights.bin")), target)
    assert target.read_bytes() == (other if change == "another file" else BODY)


def test_a_whole_part_needs_no_more_bytes(web: Web, target: Path) -> None:
    """A run killed between the last byte and the renaming."""
    target.parent.mkdir()
    target.with_name("weights.bin.part").write_bytes(BODY)
    address = web.at("/weights.bin")
    target.with_name("weights.bin.part.tag").write_text(f'{address}\n"1"\n')
    assert download(Source(address=address), target) == SHA256
    assert [entry["Range"] for entry in web.asked] == [f"bytes={len(BODY)}-"]  # answered 416
    only(target)


def test_a_server_in_trouble_is_asked_again(web: Web, target: Path) -> None:
    web.status = [503, 500, 429]
    assert download(Source(address=web.at("/weights.bin")), target) == SHA256
    target.unlink()
    web.status = [503] * ATTEMPTS
    assert f"answered 503 Service Unavailable, {ATTEMPTS} times" in refused(
        Source(address=web.at("/weights.bin")), target
    )


class TestErrors:
    def test_not_there(self, web: Web, target: Path) -> None:
        said = refused(Source(address=web.at("/nothing.bin")), target)
        assert said.startswith(f"{web.at('/nothing.bin')}: the server answered 404 Not Found; it may have moved")
        assert len(web.asked) == 1
        assert list(target.parent.iterdir()) == []

    def test_a_web_page(self, web: Web, target: Path) -> None:
        web.content_type = "text/html; charset=utf-8"
        assert "answered with a web page instead of the file" in refused(Source(address=web.at("/weights.bin")), target)

    def test_another_size_is_told_before_it_is_read(self, web: Web, target: Path) -> None:
        said = refused(Source(address=web.at("/weights.bin"), size=7), target)
        assert f"has {len(BODY)} bytes instead of 7" in said
        assert list(target.parent.iterdir()) == []

    def test_shorter_than_announced(self, web: Web, target: Path) -> None:
        web.announced, web.ranges = len(BODY) + 5, False
        said = refused(Source(address=web.at("/weights.bin")), target)
        assert f"ended after {len(BODY)} of {len(BODY) + 5} bytes" in said

    def test_another_hash_is_removed(self, web: Web, target: Path) -> None:
        said = refused(Source(address=web.at("/weights.bin"), sha256="0" * 64), target)
        assert f"gave {len(BODY)} bytes of SHA-256 {SHA256[:16]}… instead of any number of 0000000000000000…" in said
        assert list(target.parent.iterdir()) == []

    def test_no_network(self, web: Web, target: Path) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # nobody listens
            address = f"http://127.0.0.1:{closed.getsockname()[1]}/weights.bin"
            assert f"{address}: cannot be reached (Connection refused): there is no network" in refused(
                Source(address=address), target
            )
        assert "cannot be reached" in refused(Source(address="http://nowhere.invalid/weights.bin"), target)

    def test_no_room_is_told_before_it_is_read(self, web: Web, target: Path) -> None:
        web.announced = 10**18
        assert "weights.bin needs 1000000000 GB more, but " in refused(Source(address=web.at("/weights.bin")), target)

    def test_a_disk_that_fills_up(self, web: Web, target: Path) -> None:
        target.parent.mkdir()
        target.with_name("weights.bin.part").symlink_to("/dev/full")
        assert f"{target}: cannot be written (No space left on device); make room" in refused(
            Source(address=web.at("/weights.bin")), target
        )

    def test_a_file_where_the_folder_should_be(self, web: Web, target: Path) -> None:
        target.parent.write_text("")
        assert f"{target}: cannot be written (" in refused(Source(address=web.at("/weights.bin")), target)


def test_two_processes_fetch_it_once(web: Web, target: Path) -> None:
    web.gate = threading.Event()
    code = (
        "import sys; from pathlib import Path; from samref.download import Source, download;"
        "print(download(Source(address=sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, web.at("/weights.bin"), str(target)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    opened = threading.Event()
    while not web.asked:  # one of them is in the middle of it, and the other waits for it or has not begun
        opened.wait(0.01)
    web.gate.set()
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [SHA256, SHA256]
    assert len(web.asked) == 1
    only(target)


def test_the_environments_proxy_is_used(web: Web, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is asked for whole addresses."""
    address = "http://nowhere.invalid/weights.bin"
    web.files[address] = BODY
    monkeypatch.setenv("http_proxy", web.address)
    monkeypatch.setenv("no_proxy", "")
    assert download(Source(address=address), target) == SHA256
    assert web.asked[0]["path"] == address


def test_sizes() -> None:
    assert [readable_size(size) for size in (7, 999, 1000, 375_042_383, 2_564_550_879, 19_336_861_798)] == [
        "7 bytes",
        "999 bytes",
        "1 kB",
        "375 MB",
        "2.56 GB",
        "19.3 GB",
    ]


def test_progress_overwrites_on_a_terminal_and_prints_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERMINAL_SECONDS", "PLAIN_SECONDS"):
        monkeypatch.setattr(f"samref.progress.{name}", 0.0)
    with ProgressLine("a.bin") as line:
        line(0, 2_000_000)
        line(1_000_000, 2_000_000)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "a.bin: 0 bytes of 2 MB"
    assert second.startswith("a.bin: 1 MB of 2 MB, ")
    assert second.endswith(" left")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ProgressLine("grabcut", "images") as line:
        line(10, 11)
        line(9, None)
    assert capsys.readouterr().err == "\rgrabcut: 10/11 images\rgrabcut: 9 images    \r" + " " * 17 + "\r"
