"""samref-data: the list of datasets and checkpoints, the reading of one, and downloads from a real local server."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from web import Web, serving, tarred, zipped

from samref.backbones.official import OFFICIAL
from samref.data import names
from samref.data.archives import ARCHIVES, Archive, ArchiveSource
from samref.data.command import main
from samref.data.registry import FAMILIES
from samref.download import Source

OTHER_PACKAGING = (
    "another packaging than GrabCut, RITM's packaging (0 of its 100 files are the same): numbers are not comparable "
    "with those on it"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with two images of GrabCut."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:20] = 255
    for stem in "ab":
        for path, pixels in (("data_GT", np.dstack([mask] * 3)), ("boundary_GT", mask)):
            (tmp_path / "GrabCut" / path).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "GrabCut" / path / f"{stem}.bmp"), pixels)
    return tmp_path


def test_the_list_names_all_and_what_is_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line} == {"dataset", "checkpoint", *names(), *OFFICIAL}
    assert all(len(line) <= 80 for line in lines)
    (grabcut,) = (line.split() for line in lines if line.startswith("grabcut"))
    assert grabcut == ["grabcut", "val", "2", "present", "(published:", "50)"]
    sbd = [line.split() for line in lines if line.startswith("sbd")]
    assert [(split, " ".join(state)) for _, split, *state in sbd] == [
        ("train", "not here: samref-data download sbd"), ("val", "not here: samref-data download sbd"),
    ]  # fmt: skip


def test_details_say_where_it_is_or_what_is_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "grabcut", "sbd", "--data-root", str(root)]) == 0
    grabcut, *sbd = capsys.readouterr().out.splitlines()
    assert "present: 2 samples (published: 50) of 2 images" in grabcut
    assert len(sbd) == 2
    assert all("not usable: " in line and str(root / "SBD" / "img") in line and "https://" in line for line in sbd)


def test_verify_reads_everything(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "grabcut val: 2 samples (published: 50) of 2 images; all read",
        f"grabcut: {OTHER_PACKAGING}",
    ]
    (root / "GrabCut" / "data_GT" / "b.bmp").write_bytes(b"BM")
    assert main(["--data-root", str(root), "verify", "grabcut", "--split", "train"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"samref-data: {root / 'GrabCut' / 'data_GT' / 'b.bmp'}: 2 bytes that are no complete")
    assert told.err.count("\n") == 1


def test_verify_knows_folders_and_unknown_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "mine").mkdir()
    (root / "GrabCut" / "data_GT").rename(root / "mine" / "images")
    (root / "GrabCut" / "boundary_GT").rename(root / "mine" / "masks")
    assert main(["verify", "folder:mine", "--data-root", str(root)]) == 0
    assert "2 samples of 2 images; all read" in capsys.readouterr().out
    (root / "mine" / "images" / "b.heic").write_bytes(b"")
    (root / "mine" / "masks" / "b.gif").write_bytes(b"")
    shutil.copytree(root / "mine" / "images", root / "other" / "images", ignore=shutil.ignore_patterns("*.heic"))
    shutil.copytree(root / "mine" / "masks", root / "other" / "masks", ignore=shutil.ignore_patterns("*.gif"))
    assert main(["verify", "folder:mine", "folder:other", "--data-root", str(root)]) == 0
    first, note, second = capsys.readouterr().out.splitlines()
    assert first.startswith("folder:mine val: ")
    assert note == "  note: 2 files or folders of other kinds are left out (images/b.heic, masks/b.gif)"
    assert second.startswith("folder:other val: ")
    assert main(["verify", "gabcut", "--data-root", str(root)]) == 2
    assert "gabcut is not a dataset. Did you mean grabcut?" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_only(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samref.progress.TERMINAL_SECONDS", 0.0)
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    told = capsys.readouterr().err
    assert "\rgrabcut val: 1/2 images\rgrabcut val: 2/2 images" in told
    assert told.endswith("\r")


def test_real_grabcut(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "grabcut", "--data-root", str(real_data)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "grabcut val: 50 samples (as published) of 50 images; all read",
        "grabcut: GrabCut, RITM's packaging: its 100 files, unchanged",
    ]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("samref.download.PAUSE_SECONDS", 0.0)
    with serving() as server:
        yield server


def png(value: int = 255) -> bytes:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[5:12, 8:20] = value
    return cv2.imencode(".png", pixels)[1].tobytes()


def publish(web: Web, monkeypatch: pytest.MonkeyPatch, name: str, *contents: bytes, **source: object) -> None:
    """Serve archives of a dataset in place of its public ones; their places and splits stay."""
    archives: list[Archive] = []
    for archive, content in zip(ARCHIVES[name].archives, contents, strict=True):
        path = f"/{archive.sources[-1].name}"
        web.files[path] = content
        from_here = ArchiveSource(address=web.at(path), **source)  # type: ignore[arg-type]
        archives.append(dataclasses.replace(archive, sources=(from_here,)))
    monkeypatch.setitem(ARCHIVES, name, dataclasses.replace(ARCHIVES[name], archives=tuple(archives)))


GRABCUT = {
    "GrabCut/data_GT/a.jpg": png(),
    "GrabCut/boundary_GT/a.bmp": png(),
    "GrabCut/readme.txt": b"not wanted",
    "__MACOSX/GrabCut/data_GT/._a.jpg": b"not wanted",
    "GrabCut/data_GT/.DS_Store": b"not wanted",
}


class TestDownload:
    def test_unpacked_verified_and_recorded(
        self, web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = zipped(GRABCUT)
        publish(web, monkeypatch, "grabcut", content)
        web.break_after = [100]
        assert main(["download", "grabcut", "--data-root", str(tmp_path)]) == 0
        address, digest = web.at("/GrabCut.zip"), hashlib.sha256(content).hexdigest()
        assert capsys.readouterr().out.splitlines() == [
            f"grabcut: {address} (licence: none stated, for research)",
            f"grabcut: unpacked in {tmp_path / 'GrabCut'}; SHA-256 {digest}",
            "grabcut val: 1 samples (published: 50) of 1 images; all read",
            f"grabcut: {OTHER_PACKAGING}",
        ]
        record = {address: {"size": len(content), "sha256": digest, "unpacked": True}}
        assert json.loads((tmp_path / "downloads" / "record.json").read_text()) == record
        files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert files == {
            "GrabCut/data_GT/a.jpg",
            "GrabCut/boundary_GT/a.bmp",
            "downloads/lock",
            "downloads/record.json",
        }
        assert [entry.get("Range") for entry in web.asked] == [None, "bytes=100-"]
        # Not the published number, so it looks again; but this archive is unpacked.
        assert main(["download", "grabcut", "--data-root", str(tmp_path)]) == 0
        assert len(web.asked) == 2

    def test_what_comes_again_must_be_the_same(
        self, web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(web, monkeypatch, "grabcut", zipped(GRABCUT))
        command = ["download", "grabcut", "--data-root", str(tmp_path)]
        assert main(command) == 0
        for path in (tmp_path / "GrabCut" / "data_GT").iterdir():
            path.unlink()
        (tmp_path / "GrabCut" / "data_GT").rmdir()
        web.files["/GrabCut.zip"] = zipped({**GRABCUT, "GrabCut/data_GT/b.jpg": png()})
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "it was changed on its way, or at its place; remove its entry in" in said
        (tmp_path / "downloads" / "record.json").unlink()
        web.files["/GrabCut.zip"] = zipped(GRABCUT)
        assert main(command) == 0

    def test_two_at_once_fetch_it_once(self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publish(web, monkeypatch, "grabcut", zipped(GRABCUT))
        web.gate = threading.Event()
        codes: list[int] = []
        command = ["download", "grabcut", "--data-root", str(tmp_path)]
        threads = [threading.Thread(target=lambda: codes.append(main(command))) for _ in range(2)]
        for thread in threads:
            thread.start()
        while not web.asked:
            web.gate.wait(0.01)
        web.gate.set()
        for thread in threads:
            thread.join()
        assert codes == [0, 0]
        assert len(web.asked) == 1

    def test_two_archives_from_a_tar_and_only_what_a_split_needs(
        self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        val, train = zipped({"val2017/1.jpg": png()}), zipped({"train2017/2.jpg": png()})
        outline = [[0, 0, 30, 0, 30, 20, 0, 20, 0, 10]]
        annotation = {"id": 5, "image_id": 1, "segmentation": outline, "area": 1200, "iscrowd": 0}
        listed = {"images": [{"id": 1, "file_name": "1.jpg", "height": 20, "width": 30}], "annotations": [annotation]}
        files = {f"annotations/instances_{split}2017.json": json.dumps(listed).encode() for split in ("train", "val")}
        publish(web, monkeypatch, "coco", tarred(**files), val, train)
        assert main(["download", "coco", "--split", "val", "--data-root", str(tmp_path)]) == 0
        assert {entry["path"] for entry in web.asked} == {"/annotations_trainval2017.zip", "/val2017.zip"}
        assert (tmp_path / "COCO" / "val2017" / "1.jpg").exists()

    def test_a_present_dataset_is_left_alone(
        self, web: Web, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(web, monkeypatch, "grabcut", zipped(GRABCUT))
        family = dataclasses.replace(FAMILIES["grabcut"], published={"val": 2})
        monkeypatch.setitem(FAMILIES, "grabcut", family)
        assert main(["download", "grabcut", "--data-root", str(root)]) == 0
        assert capsys.readouterr().out == "grabcut val: present, nothing to download\n"
        assert web.asked == []

    def test_errors_are_one_line(
        self, web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def said(*names: str) -> str:
            assert main(["download", *names, "--data-root", str(tmp_path)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            return line

        publish(web, monkeypatch, "grabcut", zipped({"GrabCut/images/a.jpg": b""}))
        assert "holds no data_GT, boundary_GT; it is another archive" in said("grabcut")
        publish(web, monkeypatch, "berkeley", b"PK no archive")
        assert "Berkeley-Berkeley.zip: is broken or no archive" in said("berkeley")
        publish(web, monkeypatch, "davis", b"", size=7)
        web.content_type = "text/html"
        line = said("davis")
        assert "answered with a web page instead of the file" in line
        assert line.endswith(f"By hand: {ARCHIVES['davis'].page}")
        assert "shapes: nothing to download: drawn on the fly" in said("shapes")
        assert "Did you mean sam_vit_h?" in said("sam-vit-h")
        assert "Did you mean grabcut?" in said("gabcut")

    def test_a_checkpoint(
        self, web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SAMREF_CHECKPOINTS", str(tmp_path / "weights"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        web.files["/sam.pth"] = b"weights"
        source = Source(address=web.at("/sam.pth"), size=7, sha256=hashlib.sha256(b"weights").hexdigest())
        monkeypatch.setitem(OFFICIAL, "sam_vit_b", dataclasses.replace(OFFICIAL["sam_vit_b"], source=source))
        assert main(["download", "sam_vit_b"]) == 0
        file = tmp_path / "weights" / "sam_vit_b_01ec64.pth"
        assert capsys.readouterr().out == f"sam_vit_b: {file}, SHA-256 as published\n"
        assert file.read_bytes() == b"weights"
        assert main(["--data-root", str(tmp_path)]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["sam_vit_b", "7", "bytes", "present"] in rows
        assert ["sam_vit_h", "2.56", "GB", *["not", "here:", "samref-data", "download", "sam_vit_h"]] in rows
        assert main(["show", "sam_vit_b", "sam_vit_h"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"sam_vit_b          present: {file}" in lines
        assert "sam_vit_h          not here: samref-data download sam_vit_h (2.56 GB, Apache-2.0)" in lines
        assert main(["download", "segnext_vit_b_sax1"]) == 2
        assert "get it at https://github.com/uncbiag/SegNext" in capsys.readouterr().err


def test_the_table_of_archives() -> None:
    assert set(ARCHIVES) <= set(names())
    for published in ARCHIVES.values():
        assert published.licence
        assert published.page.startswith(("https://", "http://host.robots.ox.ac.uk/"))
        for archive in published.archives:
            assert archive.places
            for source in archive.sources:
                assert source.address.startswith(
                    ("https://", "http://images.cocodataset.org/", "http://host.robots.ox.ac.uk/")
                )
