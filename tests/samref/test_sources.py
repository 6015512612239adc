"""Archives with several addresses: real local servers that are gone, slow, cut off, or send a web page."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from web import Web, serving, zipped

from samref import drive
from samref.data import DataError
from samref.data.archives import ARCHIVES, Archive, ArchiveSource, PublishedDataset
from samref.data.fetch import fetch
from samref.download import ATTEMPTS, DownloadError, Source, download


def png() -> bytes:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[5:12, 8:20] = 255
    return cv2.imencode(".png", pixels)[1].tobytes()


GRABCUT = {"GrabCut/data_GT/a.png": png(), "GrabCut/boundary_GT/a.png": png()}
FORM = """<html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="1a&amp;b"><input type="hidden" name="confirm" value="t"></form></body></html>"""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("samref.download.PAUSE_SECONDS", 0.0)
    with serving() as server:
        server.files["/good.zip"] = zipped(GRABCUT)
        yield server


def gone() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/GrabCut.zip"


def fetched(root: Path, *sources: ArchiveSource) -> list[str]:
    """What is said while a dataset with these addresses is fetched."""
    said: list[str] = []
    archive = Archive(sources=sources, places={"data_GT": "data_GT", "boundary_GT": "boundary_GT"})
    published = PublishedDataset(folder="GrabCut", page="https://page", licence="none", archives=(archive,))
    fetch("grabcut", ["val"], root, said.append, {"grabcut": published})
    return said


def complete(root: Path) -> bool:
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return files == {"GrabCut/data_GT/a.png", "GrabCut/boundary_GT/a.png", "downloads/lock", "downloads/record.json"}


def test_the_next_address_is_taken_where_one_is_gone_or_moved(web: Web, tmp_path: Path) -> None:
    sources = [ArchiveSource(address=each) for each in (gone(), web.at("/moved.zip"), web.at("/good.zip"))]
    said = fetched(tmp_path, *sources)
    assert complete(tmp_path)
    tried = [line for line in said if line.endswith("trying the next of 3 addresses")]
    assert len(tried) == 2
    assert "cannot be reached" in tried[0]
    assert "404 Not Found; it may have moved" in tried[1]


def test_a_web_page_or_a_broken_archive_is_no_dataset(web: Web, tmp_path: Path) -> None:
    web.pages["/login.zip"] = b"<title>Sign in</title>"
    web.files["/broken.zip"] = web.files["/good.zip"][:-30]
    web.files["/other/good.zip"] = zipped({"else/a.png": png()})
    paths = ("/login.zip", "/broken.zip", "/other/good.zip", "/good.zip")
    said = fetched(tmp_path, *(ArchiveSource(address=web.at(path)) for path in paths))
    assert complete(tmp_path), "what the broken ones left is removed"
    assert any("a web page instead of the file (titled 'Sign in')" in line for line in said)
    assert any("is broken or no archive" in line for line in said)
    assert any("holds no data_GT, boundary_GT" in line for line in said)


def test_a_connection_that_always_breaks_is_left_for_the_next_address(web: Web, tmp_path: Path) -> None:
    web.files["/cut.zip"] = web.files["/good.zip"]
    web.break_after = [50, *[0] * (ATTEMPTS - 1)]
    said = fetched(tmp_path, *(ArchiveSource(address=web.at(path)) for path in ("/cut.zip", "/good.zip")))
    assert complete(tmp_path)
    assert any(f"{ATTEMPTS} times in a row" in line for line in said)


def test_a_server_that_drips_is_given_up(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samref.download.TIMEOUT_SECONDS", 0.1)
    web.drip_seconds = 0.02
    with pytest.raises(DownloadError, match=rf"gave only \d+ bytes in 0 s, {ATTEMPTS} times in a row; .* are kept"):
        download(Source(address=web.at("/good.zip")), tmp_path / "good.zip")


def test_all_addresses_fail_in_one_line(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, ArchiveSource(address=gone()), ArchiveSource(address=web.at("/moved.zip")))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("grabcut: none of its 2 addresses gave it: ")
    assert text.endswith("By hand: https://page")


def test_what_one_address_gave_is_not_fetched_from_another(web: Web, tmp_path: Path) -> None:
    sources = [ArchiveSource(address=each) for each in (gone(), web.at("/good.zip"))]
    fetched(tmp_path, *sources)
    assert fetched(tmp_path, *sources) == ["grabcut: good.zip is unpacked already"]


def test_one_archive_of_several_sets_gives_only_the_wanted_one(web: Web, tmp_path: Path) -> None:
    other = {f"repository/datasets/Other/{kind}/x.png": png() for kind in ("data_GT", "boundary_GT")}
    web.files["/commit.zip"] = zipped(
        {**other, **{f"repository/datasets/{name}": body for name, body in GRABCUT.items()}}
    )
    fetched(tmp_path, ArchiveSource(address=web.at("/commit.zip"), inside="GrabCut"))
    assert complete(tmp_path)


class TestDrive:
    ASKED = "/uc?export=download&id=1a"

    def test_the_confirmation_page_is_passed_and_a_broken_download_goes_on(self, web: Web, tmp_path: Path) -> None:
        body = web.files["/download?id=1a%26b&confirm=t"] = web.files["/good.zip"]
        web.pages[self.ASKED] = FORM.format(action="/download").encode()
        web.break_after = [10_000, 100, 10_000]  # the page, a part of the file, the page again
        source = Source(address=web.at(self.ASKED))
        assert source.name == "1a"
        download(source, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == body
        assert [entry.get("Range") for entry in web.asked] == [None, None, "bytes=100-", "bytes=100-"]

    def test_its_other_pages_are_named(self, web: Web, tmp_path: Path) -> None:
        web.pages[self.ASKED] = b"<title>Google Drive -\n Quota exceeded</title><form id='f' action='/x'></form>"
        with pytest.raises(DownloadError, match=r"instead of the file \(titled 'Google Drive - Quota exceeded'\)"):
            download(Source(address=web.at(self.ASKED)), tmp_path / "file")
        web.pages[self.ASKED] = FORM.format(action="/again").encode()
        web.pages["/again?id=1a%26b&confirm=t"] = FORM.format(action="/again").encode()
        with pytest.raises(DownloadError, match="answered with a web page"):
            download(Source(address=web.at(self.ASKED)), tmp_path / "file")
        assert len(web.asked) == 3

    def test_a_form_leads_nowhere_less_safe(self) -> None:
        address = drive.drive_address("1a")
        assert drive.behind(FORM.format(action="http://drive.google.com/download"), address) is None
        target = drive.behind(FORM.format(action="https://drive.usercontent.google.com/download"), address)
        assert target == "https://drive.usercontent.google.com/download?id=1a%26b&confirm=t"
        assert drive.behind("no page <<", address) is None


def test_the_published_addresses() -> None:
    """GrabCut, Berkeley, DAVIS and COCO_MVal have more than the release that is reported gone."""
    for name in ("grabcut", "berkeley", "davis", "coco_mval"):
        (archive,) = ARCHIVES[name].archives
        hosts = [source.address.split("/")[2] for source in archive.sources]
        assert hosts[0] == "drive.google.com"
        assert hosts[-1] == "github.com"
        names = {dataclasses.replace(source).name for source in archive.sources}
        assert len(names) == len(archive.sources)
