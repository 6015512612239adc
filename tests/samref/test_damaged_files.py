"""Hundreds of mutated images, masks and COCO files: each ends in what is right, or in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from samref.data import DataError, Dataset, check, open_dataset

HEIGHT, WIDTH = 24, 32


def inside() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:18, 6:22] = True
    return mask


def outcome(open_it: Callable[[], Dataset]) -> Dataset | str:
    """The dataset, all of it read; or the one line that it ended in."""
    try:
        dataset = open_it()
        fingerprint = dataset.fingerprint()
        check(dataset)
        dataset.notes()
    except DataError as error:
        line = str(error)
        assert line.isprintable(), line
        assert len(line) < 30_000
        return line
    assert len(fingerprint) == 64
    for sample in dataset.samples:
        assert dataset.image(sample.image_key).dtype == np.uint8
        assert set(np.unique(dataset.truth(sample.key))) <= {-1, 0, 1}
    return dataset


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut off, bits flipped, a piece doubled, zeroed or put elsewhere."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        # Headers are small, and most of what can be wrong is in them.
        at = chance.randrange(min(len(data), chance.choice([64, 256, len(data)]))) if data else 0
        length = chance.randint(1, 16)
        match chance.randrange(5):
            case 0:
                del data[at:]
            case 1 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at : at + length] = bytes(len(data[at : at + length]))
            case 4:
                data[at : at + length] = chance.randbytes(length)
    return bytes(data)


def encoded(root: Path) -> dict[str, bytes]:
    """One file of each kind by name, as programs write them."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    colours = np.stack([rows * 10, columns * 7, rows + columns], axis=2).astype(np.uint8)
    label = inside().astype(np.uint8)
    photo, one = PIL.Image.fromarray(colours), PIL.Image.fromarray(label * 255)
    indexed = PIL.Image.fromarray(label).convert("P")
    made: dict[str, Any] = {
        "photo.jpg": photo,
        "photo.webp": photo,
        "photo.bmp": photo,
        "photo.tif": photo,
        "cmyk.jpg": photo.convert("CMYK"),
        "palette.png": indexed,
        "bit.png": one.convert("1"),
        "lzw.tif": one,
        "alpha.png": photo.convert("RGBA"),
        "deep.png": colours.astype(np.uint16) * 16,
        "float.tif": label.astype(np.float32),
        "int.tif": label.astype(np.int32),
    }
    files = {}
    for name, content in made.items():
        path = root / name
        if isinstance(content, PIL.Image.Image):
            content.save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
        else:
            assert cv2.imwrite(str(path), content)
        files[name] = path.read_bytes()
    return files


def own_folder(root: Path) -> tuple[Path, Path]:
    images, masks = root / "own" / "images", root / "own" / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
    return images, masks


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_mutated_images_and_masks(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = encoded(tmp_path)
    ends: dict[bool, int] = {True: 0, False: 0}
    for _ in range(60):
        images, masks = own_folder(tmp_path)
        name = chance.choice(sorted(files))
        suffix = Path(name).suffix
        content = damaged(files[name], chance)
        is_mask = suffix in (".png", ".tif", ".bmp") and chance.random() < 0.6
        (images / ("a.bmp" if is_mask else f"a{suffix}")).write_bytes(files["photo.bmp"] if is_mask else content)
        (masks / (f"a{suffix}" if is_mask else "a.png")).write_bytes(content if is_mask else files["bit.png"])
        options = chance.choice(["", "", "?objects=each", "?objects=union", "?threshold=9", "?ignore=1"])
        dataset_name = f"folder:own{options}"
        found = outcome(lambda name=dataset_name: open_dataset(name, split="val", data_root=tmp_path))  # type: ignore[misc]
        ends[isinstance(found, str)] += 1
        if isinstance(found, str):
            assert "own" in found
    assert min(ends.values()) > 1


STRANGE: list[Any] = [
    None, True, -1, 0, 0.5, 1e12, -1e300, 2**70, float("nan"), float("inf"), "", "1", "0", "x" * 300, "../a.png",
    "\ud800", [], [[]], [[[1, 2]]], {}, {"size": [HEIGHT, WIDTH]}, {"size": [24, 32], "counts": "o"},
    {"size": 3, "counts": [1]}, {"size": [24, 32], "counts": [0, 768]}, {"size": [24, 32], "counts": [1.5]},
    {"size": [10**9, 10**9], "counts": [10**18]}, [[1e12, 0, 0, 1e12, -1e12, 5]], [[0, 0, 20, 0, 20, 20]],
    [0, 0, 20, 0, 20, 20], [["a"] * 6], [1, 2, 3, 4],
]  # fmt: skip
"""Values in the place of others."""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"", "0 bytes that are no complete image"),
    ],
)
def test_files_with_an_image_s_suffix_that_are_none(tmp_path: Path, content: bytes, kind: str) -> None:
    images, masks = own_folder(tmp_path)
    (images / "a.jpg").write_bytes(content)
    (masks / "a.png").write_bytes(encoded(tmp_path)["bit.png"])
    found = outcome(lambda: open_dataset("folder:own", split="val", data_root=tmp_path))
    assert isinstance(found, str)
    assert kind in found


@pytest.mark.parametrize("name", ["a" * 600, "a/" * 3000, "~no-such-user/x", "a\0b", "a\nb", "\ud800", "..", "."])
def test_names_that_no_folder_has(tmp_path: Path, name: str) -> None:
    assert isinstance(outcome(lambda: open_dataset(f"folder:{name}", split="val", data_root=tmp_path / "data")), str)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def mutated(content: Any, chance: random.Random) -> Any:
    content = json.loads(json.dumps(content))
    for _ in range(chance.randint(1, 2)):
        place = chance.choice(places(content)[1:])
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        if chance.random() < 0.25:
            del holder[place[-1]]
        elif chance.random() < 0.2 and isinstance(holder, list):
            holder.append(holder[place[-1]])
        else:
            holder[place[-1]] = chance.choice(STRANGE)
    return content


@pytest.mark.parametrize("seed", range(4))
def test_mutated_coco_files(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    large = [0, 0, 200, 0, 200, 100, 0, 100]
    good = {
        "info": {"year": 2017},
        "images": [{"id": n, "file_name": f"{n}.png", "height": 100, "width": 200} for n in (1, 2)],
        "annotations": [
            {"id": 4, "image_id": 1, "area": 20000, "iscrowd": 0, "bbox": [0, 0, 200, 100], "segmentation": [large]},
            {"id": 5, "image_id": 2, "area": 3000, "iscrowd": 0, "bbox": [0, 0, 30, 100],
             "segmentation": {"size": [100, 200], "counts": [0, 3000, 17000]}},
            {"id": 6, "image_id": 2, "area": 9, "iscrowd": 1, "bbox": [0, 0, 3, 3],
             "segmentation": {"size": [100, 200], "counts": [0, 9, 19991]}},
        ],
        "categories": [],
    }  # fmt: skip
    root = tmp_path / "COCO_tiny"
    for folder in ("annotations", "val2017"):
        (root / folder).mkdir(parents=True)
    for number in (1, 2):
        assert cv2.imwrite(str(root / "val2017" / f"{number}.png"), np.full((100, 200, 3), 99 * number, np.uint8))
    file = root / "annotations" / "instances_val2017.json"
    ends: dict[bool, int] = {True: 0, False: 0}
    for number in range(80):
        text = json.dumps(mutated(good, chance) if number else good).encode()
        file.write_bytes(damaged(text, chance) if number % 5 == 4 else text)
        found = outcome(lambda: open_dataset("coco_tiny", split="val", data_root=tmp_path))
        ends[isinstance(found, str)] += 1
        if isinstance(found, str):
            assert "instances_val2017.json" in found or "coco_tiny" in found or "val2017" in found, found
        else:
            keys = [sample.key for sample in found.samples]
            assert len(set(keys)) == len(keys)
        if number == 0:
            assert not isinstance(found, str)
            assert [(found.truth(key) == 1).sum() for key in keys] == [20000, 3000]
    assert min(ends.values()) > 1
