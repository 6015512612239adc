"""samref.image_files: what becomes of 16 bits, floats, CMYK, pages and EXIF, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from samref.data import DataError, Dataset, open_dataset
from samref.image_files import load_image, read_image

Array = NDArray[Any]


def photograph() -> Array:
    """Smooth, so that lossy formats keep it; from 0 to 255."""
    rows, columns = np.mgrid[0:40, 0:50]
    return np.stack([rows * 255 // 39, columns * 255 // 49, (rows + columns) * 255 // 88], axis=2).astype(np.uint8)


def save(path: Path, pixels: Array) -> Path:
    assert cv2.imwrite(str(path), pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_images_of_16_bits_are_scaled_by_what_they_hold(tmp_path: Path, bits: int, suffix: str) -> None:
    deep = np.rint(photograph() / 255 * (2**bits - 1)).astype(np.uint16)
    image = load_image(save(tmp_path / f"a{suffix}", deep))
    assert np.abs(image.pixels.astype(int) - photograph()).max() <= 1
    assert bool(image.odd) == (bits != 16)
    if bits == 12:
        assert image.odd[0].what == "hold 12-bit values in uint16, of which 4095 is read as white"


@pytest.mark.parametrize(
    "pixels",
    [
        (photograph() / 255).astype(np.float32),
        photograph().astype(np.float32),
        photograph().astype(np.int16),
        photograph().astype(np.int32),
        (photograph()[:, :, 0] / 255).astype(np.float32),
    ],
    ids=["share", "float", "int16", "int32", "grey"],
)
def test_floats_and_signed_numbers(tmp_path: Path, pixels: Array) -> None:
    image = load_image(save(tmp_path / "a.tif", pixels))
    expected = photograph() if pixels.ndim == 3 else np.repeat(photograph()[:, :, :1], 3, axis=2)
    assert np.array_equal(image.pixels, expected)
    assert len(image.odd) == 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (photograph().astype(np.float32) - 1, r"a.tif: holds float32 from -1 to 254, of which .* what is white"),
        (photograph().astype(np.float32) / 7, "holds float32 from 0 to 36.4286"),
        (np.full((4, 5), np.nan, np.float32), "holds float32 from nan to nan"),
        (photograph().astype(np.int32) << 20, "holds int32 from 0 to 2.67387e.08"),
    ],
)
def test_what_has_no_certain_white_is_refused(tmp_path: Path, pixels: Array, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_image(save(tmp_path / "a.tif", pixels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "mode", "options", "said"),
    [
        ("a.jpg", "CMYK", {"quality": 95}, "are CMYK"),
        ("a.tif", "CMYK", {}, "are CMYK"),
        ("a.png", "RGBA", {}, "have an alpha channel"),
        ("a.tif", "RGB", {"pages": 2}, "have several pages"),
        ("a.png", "RGB", {"pages": 2}, "have several pages"),
        ("a.webp", "RGB", {"pages": 3, "lossless": True}, "have several pages"),
        ("a.jpg", "RGB", {"exif": 6, "quality": 95}, "have an EXIF orientation"),
        ("a.png", "P", {}, None),
        ("a.bmp", "RGB", {}, None),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}, None),
    ],
)
def test_what_is_odd_is_read_and_said(
    tmp_path: Path, name: str, mode: str, options: dict[str, Any], said: str | None
) -> None:
    page = PIL.Image.fromarray(photograph())
    first = page.quantize(256) if mode == "P" else page.convert(mode)
    if number := options.pop("pages", 0):
        options |= {"save_all": True, "append_images": [PIL.Image.fromarray(255 - photograph())] * (number - 1)}
    if turned := options.pop("exif", 0):
        exif = PIL.Image.Exif()
        exif[0x0112] = turned
        options["exif"] = exif
    first.save(tmp_path / name, **options)
    image = load_image(tmp_path / name)
    assert np.abs(image.pixels.astype(int) - photograph()).mean() < (8 if mode == "P" else 3)
    assert [odd.what.startswith(said or "") for odd in image.odd] == [True] * (said is not None)


def test_a_smaller_copy_is_no_page(tmp_path: Path) -> None:
    page = PIL.Image.fromarray(photograph())
    small = page.resize((25, 20))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert PIL.Image.open(tmp_path / "a.tif").n_frames == 2  # type: ignore[attr-defined]
    assert load_image(tmp_path / "a.tif").odd == ()


def folder(root: Path, image: Array) -> Dataset:
    for part in ("images", "masks"):
        (root / "own" / part).mkdir(parents=True, exist_ok=True)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[5:20, 5:30] = 255
    save(root / "own" / "images" / "a.png", image)
    save(root / "own" / "masks" / "a.png", mask)
    return open_dataset("folder:own", split="val", data_root=root)


def test_what_is_scaled_otherwise_is_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 bits in 16 were nearly black: results on them are not those of what is read now. All others keep theirs."""
    monkeypatch.setattr("samref.data.files.describe_image", lambda path: ("", ()))
    full, dark = ((photograph().astype(np.uint16) << shift) for shift in (8, 4))
    before = [folder(tmp_path, image).fingerprint() for image in (photograph(), full, dark)]
    monkeypatch.undo()
    now = [folder(tmp_path, image).fingerprint() for image in (photograph(), full, dark)]
    assert [old == new for old, new in zip(before, now, strict=True)] == [True, True, False]
    assert folder(tmp_path, dark).notes() == (
        "1 of 1 images hold 12-bit values in uint16, of which 4095 is read as white (a.png)",
    )


@pytest.mark.parametrize(
    ("name", "split", "fingerprint"),
    [
        ("grabcut", "val", "94b0950bd1b6d517550a0200d580c7787a5ba1a5a1b1dea4f5685c46a65a3793"),
        ("davis", "val", "9bcb048f4fd5b7a308056971c57eddf53cbfc455993335a80173e8c8f0ff521f"),
        ("ecssd", "train", "aee2b7396ea382f4ea1befa4a10cc3cf969788718c5f46b2fdb5ffda89b61b3c"),
        ("coco_tiny", "train", "bb9b19971392e8c6b3aeb65ed3650e41229d7f136ff55b69d70300ebf83435c1"),
    ],
)
def test_published_datasets_stay_what_they_are(real_data: Path, name: str, split: Any, fingerprint: str) -> None:
    dataset = open_dataset(name, split=split, data_root=real_data)
    assert dataset.fingerprint() == fingerprint
    assert not [note for note in dataset.notes() if "left out" not in note]


@pytest.mark.parametrize("damage", [slice(-200, None), slice(600, 601), slice(0, 0)])
def test_a_damaged_png_is_one_line(tmp_path: Path, damage: slice, capfd: pytest.CaptureFixture[str]) -> None:
    """libpng writes what it finds to stderr itself, without the file's name."""
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    content = bytearray(path.read_bytes())
    content[damage] = b"" if damage.stop is None else bytes(byte ^ 1 for byte in content[damage])
    path.write_bytes(content)
    if damage.start:
        with pytest.raises(DataError, match=r"a.png: \d+ bytes that are no complete image"):
            read_image(path)
    else:
        assert np.array_equal(read_image(path), noise[:, :, ::-1])
    assert capfd.readouterr().err == ""
