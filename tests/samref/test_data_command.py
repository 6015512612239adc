"""samref-data: the list of datasets, and the reading of one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from samref.data import names
from samref.data.command import main


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
    assert {line.split()[0] for line in lines} == set(names())
    (grabcut,) = (line for line in lines if line.startswith("grabcut"))
    assert "present: 2 samples (published: 50) of 2 images; https://" in grabcut
    sbd = [line for line in lines if line.startswith("sbd")]
    assert [line.split()[1] for line in sbd] == ["train", "val"]
    assert all("not usable: " in line and str(root / "SBD" / "img") in line and "https://" in line for line in sbd)


def test_verify_reads_everything(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    assert capsys.readouterr().out == "grabcut val: 2 samples (published: 50) of 2 images; all read\n"
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
    assert main(["verify", "gabcut", "--data-root", str(root)]) == 2
    assert "gabcut is not a dataset. Did you mean grabcut?" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_only(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samref.data.command.PROGRESS_SECONDS", 0.0)
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["verify", "grabcut", "--data-root", str(root)]) == 0
    told = capsys.readouterr().err
    assert "\rgrabcut val: 1/2 images\rgrabcut val: 2/2 images" in told
    assert told.endswith("\r")


def test_real_grabcut(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "grabcut", "--data-root", str(real_data)]) == 0
    assert capsys.readouterr().out == "grabcut val: 50 samples (as published) of 50 images; all read\n"
