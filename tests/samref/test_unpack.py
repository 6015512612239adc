"""Archives into folders: nothing leaves them, and what is broken is told."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from web import tarred, zipped

from samref.data import DataError
from samref.data.unpack import unpack


def refused(content: bytes, tmp_path: Path) -> str:
    archive, folder = tmp_path / "archive", tmp_path / "inside" / "folder"
    archive.write_bytes(content)
    with pytest.raises(DataError) as caught:
        unpack(archive, folder, {"img": "img"})
    assert not list(tmp_path.rglob("evil*"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["img/../../evil", "../img/evil", "/img/evil", "img\\..\\..\\evil", "C:/img/evil"])
def test_no_file_leaves_the_folder(tmp_path: Path, name: str) -> None:
    assert "leads out of its folder" in refused(zipped({name: b"x"}), tmp_path)
    assert "leads out of its folder" in refused(tarred(**{name: b"x"}), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("img/evil")
    link.type, link.linkname = kind, "/etc/passwd"
    assert "leads out of its folder" in refused(tarred(link), tmp_path)
    info = zipfile.ZipInfo("img/evil")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "leads out of its folder" in refused(content.getvalue(), tmp_path)


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(50_000)
    broken = bytearray(zipped({"img/a": body}))
    broken[len(broken) // 2] ^= 255
    # In a .tgz a changed byte is left to the archive's hash.
    for content in (bytes(broken), broken[: len(broken) // 2], tarred(**{"img/a": body})[:30_000], b""):
        assert "is broken or no archive" in refused(content, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("a file")
    assert "cannot be unpacked from archive (" in refused(zipped({"img/a": b"x"}), tmp_path)
