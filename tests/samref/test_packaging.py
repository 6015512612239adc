"""Which packaging of a dataset a folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from samref.data.packaging import DIGITS, Manifest, compared, digest_of, manifest, packaging


def made(packaging: str, hashes: dict[str, str]) -> Manifest:
    """A manifest of files and their whole SHA-256."""
    return Manifest(packaging, digest_of(hashes), {name: digest[:DIGITS] for name, digest in hashes.items()})


HASHES = {f"img/{number}.jpg": f"{number:064x}" for number in range(4, 8)}
KNOWN = made("X, Y's packaging", HASHES)


def test_the_same_files_are_named_with_their_packaging() -> None:
    assert compared(KNOWN, dict(reversed(HASHES.items()))) == "X, Y's packaging: its 4 files, unchanged"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({**HASHES, "img/4.jpg": "f" * 64}, "but 1 of its 4 files were changed (img/4.jpg)"),
        ({name: HASHES[name] for name in list(HASHES)[1:]}, "but 1 of its 4 files are not here (img/4.jpg)"),
        ({**HASHES, "img/z.jpg": "f" * 64}, "but 1 files more than it has (img/z.jpg)"),
        (
            dict.fromkeys(HASHES, "f" * 64),
            "another packaging than X, Y's packaging (0 of its 4 files are the same)",
        ),
        ({}, "another packaging than X, Y's packaging (0 of"),
    ],
    ids=["changed", "lacking", "more", "another", "nothing"],
)
def test_other_files_are_not_comparable(found: dict[str, str], text: str) -> None:
    said = compared(KNOWN, found)
    assert text in said
    assert said.endswith("numbers are not comparable with those on it")
    assert "wrong" not in said


def test_a_hash_that_differs_behind_the_kept_digits_is_noticed() -> None:
    found = {**HASHES, "img/4.jpg": HASHES["img/4.jpg"][:-1] + "f"}
    assert compared(made("X", {**HASHES, "img/4.jpg": "a" * 64}), {**HASHES, "img/4.jpg": "a" * 63 + "b"}) != (
        "X: its 4 files, unchanged"
    )
    assert digest_of(found) != KNOWN.digest


@pytest.mark.parametrize(("name", "count"), [("grabcut", 100), ("davis", 690)])
def test_manifests_are_whole(name: str, count: int) -> None:
    known = manifest(name)
    assert known is not None
    assert len(known.digests) == count
    assert known.packaging.endswith(", RITM's packaging")
    assert manifest("ecssd") is None


def test_real_folders(real_data: Path, tmp_path: Path) -> None:
    assert packaging("davis", real_data) == "DAVIS, RITM's packaging: its 690 files, unchanged"
    for kind in ("data_GT", "boundary_GT"):
        (tmp_path / "GrabCut" / kind).mkdir(parents=True)
        for file in (real_data / "GrabCut" / kind).iterdir():
            shutil.copyfile(file, tmp_path / "GrabCut" / kind / file.name)  # no modes: ours may be read-only
    (tmp_path / "GrabCut" / "data_GT" / ".DS_Store").write_bytes(b"x")
    assert packaging("grabcut", tmp_path) == "GrabCut, RITM's packaging: its 100 files, unchanged"
    mask = next((tmp_path / "GrabCut" / "boundary_GT").iterdir())
    mask.write_bytes(mask.read_bytes()[:-1] + b"\0\0")
    assert f"1 of its 100 files were changed (boundary_GT/{mask.name})" in packaging("grabcut", tmp_path)
    assert packaging("ecssd", real_data) == ""
