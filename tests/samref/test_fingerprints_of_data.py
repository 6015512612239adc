"""Fingerprints of data, and the cache of hashes that makes them quick."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from own_folder import box_mask, fill, mine, photograph, write

from samref.data import open_dataset
from samref.data.hashes import FileHashes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path)


def test_fingerprint_is_of_content_and_nothing_else(root: Path, tmp_path: Path) -> None:
    before = mine(root).fingerprint()
    shutil.copytree(root / "mine", tmp_path / "moved" / "mine")
    assert mine(tmp_path / "moved").fingerprint() == before
    seen = {before, mine(root, samples=2).fingerprint()}
    changes = [
        ("images/a.png", "images/a.png", photograph(seed=9)),
        ("masks/c.png", "masks/c.png", box_mask(value=7)),
    ]
    for _, path, pixels in changes:
        write(root / "mine" / path, pixels)
        seen.add(mine(root).fingerprint())
    for kind in ("images", "masks"):
        (root / "mine" / kind / "c.png").rename(root / "mine" / kind / "d.png")
    seen.add(mine(root).fingerprint())
    assert len(seen) == 5


def test_fingerprint_tells_how_masks_are_read(tmp_path: Path) -> None:
    for family in ("Berkeley", "ECSSD"):
        write(tmp_path / family / "images" / "a.png", photograph())
        write(tmp_path / family / "masks" / "a.png", box_mask())
    banded, nonzero = (
        open_dataset(name, split="val", data_root=tmp_path).fingerprint() for name in ("berkeley", "ecssd")
    )
    assert banded != nonzero


def age(folder: Path, seconds: float = 60) -> None:
    for path in folder.glob("*/*"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_hashes_are_cached_until_a_file_changes(root: Path, tmp_path: Path) -> None:
    age(root / "mine")
    cache = tmp_path / "cache" / "hashes"
    first = mine(root, cache=cache).fingerprint()
    assert first == mine(root).fingerprint()
    stored = json.loads((cache / "file_hashes.json").read_text())
    assert len(stored) == 14  # of each file its hash, and what it is
    assert [path.name for path in cache.iterdir()] == ["file_hashes.json"]
    # What the cache says is believed while size and time are the same …
    forged = {name: [size, mtime, value if "?" in name else "0"] for name, (size, mtime, value) in stored.items()}
    (cache / "file_hashes.json").write_text(json.dumps(forged))
    assert mine(root, cache=cache).fingerprint() != first
    # … and not after the file has changed.
    age(root / "mine", seconds=30)
    assert mine(root, cache=cache).fingerprint() == first


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 3}', "not json"])
def test_a_broken_cache_is_an_empty_one(root: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "file_hashes.json").write_text(content)
    assert mine(root, cache=tmp_path).fingerprint() == mine(root).fingerprint()


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """It may change again within one tick of its time stamp and keep its size."""
    (tmp_path / "file").write_bytes(b"one")
    hashes = FileHashes(tmp_path / "cache")
    hashes.of(tmp_path / "file")
    hashes.save()
    assert not (tmp_path / "cache").exists()


def test_writers_of_one_cache_do_not_break_it(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]))
        os.utime(tmp_path / f"{number}.bin", (0, 0))

    def hash_some(start: int) -> None:
        for number in range(start, 20, 4):
            hashes = FileHashes(tmp_path)
            hashes.of(tmp_path / f"{number}.bin")
            hashes.save()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hash_some, range(4)))
    for start in range(4):
        hash_some(start)  # what was lost in the race is added
    assert len(json.loads((tmp_path / "file_hashes.json").read_text())) == 20
