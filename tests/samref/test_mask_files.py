"""samref.mask_files: what masks of people's own folders mean, and which are refused with the settings that decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from samref.data import DataError, Dataset, open_dataset

Array = NDArray[Any]


def mask(object_value: Any = 255, other: Any = 0) -> Array:
    """1200 px of 120×160 are the object; `other` is one of 300 px beside it."""
    pixels = np.zeros((120, 160), np.int64)
    pixels[30:60, 40:80] = object_value
    pixels[90:100, 100:130] = other
    return pixels


def ring() -> Array:
    inside = mask(1).astype(np.uint8)
    return cv2.dilate(inside, np.ones((9, 9), np.uint8)) != inside


def voc(identity: int = 1, other: int = 0) -> Array:
    return np.where(ring(), 255, mask(identity, other)).astype(np.uint8)


def palette(pixels: Array, colours: list[tuple[int, int, int]]) -> PIL.Image.Image:
    made = PIL.Image.fromarray(pixels.astype(np.uint8))
    made = made.convert("P") if made.mode != "P" else made
    made.putpalette([level for colour in colours for level in colour])
    return made


def channels(colour: Any, alpha: Any) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.dstack([colour, colour, colour, alpha]).astype(np.uint8))


def jpeg(quality: int) -> Array:
    _, encoded = cv2.imencode(".jpg", mask().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def blurred(size: int, value: int = 255) -> Array:
    return cv2.GaussianBlur(mask(value).astype(np.uint8), (size, size), 0)


def dataset(root: Path, pixels: Array | PIL.Image.Image, options: str = "", suffix: str = ".png") -> Dataset:
    for part in ("images", "masks"):
        (root / "own" / part).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(root / "own" / "images" / "a.png"), np.full((120, 160, 3), 90, np.uint8))
    file = root / "own" / "masks" / f"a{suffix}"
    if isinstance(pixels, PIL.Image.Image):
        pixels.save(file)
    else:
        assert cv2.imwrite(str(file), pixels)
    return open_dataset(f"folder:own{options}", split="val", data_root=root)


def sizes(opened: Dataset) -> dict[str, tuple[int, int]]:
    """Sample → pixels of its object, and those that are ignored."""
    truths = {sample.key: opened.truth(sample.key) for sample in opened.samples}
    return {key: (int((truth == 1).sum()), int((truth == -1).sum())) for key, truth in truths.items()}


RED, GREEN, WHITE, GREY, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (128, 128, 128), (0, 0, 0)


@pytest.mark.parametrize(
    ("pixels", "suffix", "expected"),
    [
        (mask(7).astype(np.uint8), ".png", (1200, 0)),
        (mask(1).astype(np.uint16), ".png", (1200, 0)),
        (mask(65535).astype(np.uint16), ".tif", (1200, 0)),
        (mask(1).astype(np.int32), ".tif", (1200, 0)),
        (mask(1).astype(np.float32), ".tif", (1200, 0)),
        (mask(255).astype(np.float32), ".tif", (1200, 0)),
        (PIL.Image.fromarray(mask().astype(bool)), ".png", (1200, 0)),
        (PIL.Image.fromarray(mask().astype(bool)), ".tif", (1200, 0)),
        (palette(mask(1), [WHITE, BLACK]), ".png", (1200, 0)),
        (palette(mask(1), [GREY, RED]), ".png", (1200, 0)),
        (palette(mask(1), [BLACK, BLACK]), ".bmp", (1200, 0)),
        (palette(voc(), [BLACK, RED] + [BLACK] * 253 + [WHITE]), ".png", (1200, 624)),
        (palette(voc(15), [BLACK, RED] + [BLACK] * 253 + [WHITE]), ".png", (1200, 624)),
        (voc(), ".png", (1200, 624)),
        (voc(20), ".tif", (1200, 624)),
        (channels(mask(), 255 + mask(0)), ".png", (1200, 0)),
        (channels(mask(0), mask()), ".png", (1200, 0)),
        (channels(mask(0) + 255, mask()), ".png", (1200, 0)),
        (channels(mask(), mask()), ".png", (1200, 0)),
        (np.dstack([mask(0), mask(), mask(0)]).astype(np.uint8), ".png", (1200, 0)),
    ],
)
def test_plain_masks(tmp_path: Path, pixels: Any, suffix: str, expected: tuple[int, int]) -> None:
    opened = dataset(tmp_path, pixels, suffix=suffix)
    assert sizes(opened) == {"a": expected}
    assert [note for note in opened.notes() if "VOC" in note or expected[1] == 0] == list(opened.notes())
    # A setting that decides nothing here changes nothing.
    assert sizes(dataset(tmp_path, pixels, "?objects=each", suffix)) == {"a": expected}


@pytest.mark.parametrize(
    "pixels",
    [
        blurred(7),
        blurred(3),
        jpeg(60),
        jpeg(90),
        jpeg(30),
        blurred(7).astype(np.uint16) * 257,
        blurred(7) / 255,
        np.dstack([jpeg(60), np.maximum(jpeg(60), 3) - 3, jpeg(60)]),
    ],
    ids=["blurred", "less", "jpeg 60", "jpeg 90", "jpeg 30", "16 bits", "shares", "colours"],
)
def test_grey_edges_are_cut_in_the_middle_and_counted(tmp_path: Path, pixels: Array) -> None:
    suffix = ".tif" if pixels.dtype.kind == "f" else ".png"
    pixels = pixels.astype(np.float32) if suffix == ".tif" else pixels
    opened = dataset(tmp_path, pixels, suffix=suffix)
    (size,) = sizes(opened).values()
    assert 1190 <= size[0] <= 1210
    (note,) = opened.notes()
    assert sizes(dataset(tmp_path, pixels, "?threshold=1", suffix))["a"][0] > 1200
    pixels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    top = 1 if suffix == ".tif" else pixels.max()
    between = int(((pixels > 0) & (pixels < top)).sum())
    assert (
        note
        == f"1 of 1 masks have grey edges, cut at 128 of 255; pixels between black and white: {between} (a{suffix})"
    )


@pytest.mark.parametrize(
    ("pixels", "seen"),
    [
        (mask(1, 2), r"1 \(1200 px\), 2 \(300 px\)"),
        (mask(100, 200), r"100 \(1200 px\), 200 \(300 px\)"),
        (mask(255, 128), r"128 \(300 px\), 255 \(1200 px\)"),
        (np.where(ring(), 128, mask()), r"128 \(624 px\), 255 \(1200 px\)"),  # a trimap, however thin
        (mask(255, 1), r"1 \(300 px\), 255 \(1200 px\)"),
        (voc(1, 2), r"1 \(1200 px\), 2 \(300 px\); say"),
        (palette(mask(1, 2), [BLACK, RED, GREEN]), r"1 \(1200 px\), 2 \(300 px\)"),
        (np.dstack([mask(0, 255), mask(0), mask()]), r"#0000ff \(300 px\), #ff0000 \(1200 px\)"),
    ],
)
def test_several_values_are_asked_about(tmp_path: Path, pixels: Any, seen: str) -> None:
    pixels = pixels if isinstance(pixels, PIL.Image.Image) else pixels.astype(np.uint8)
    settings = r".*\?objects=each .*\?objects=union .*\?threshold=128 .*\?ignore="
    with pytest.raises(
        DataError, match=r"masks/a.png: a mask with several values beside 0: " + seen + settings
    ) as told:
        dataset(tmp_path, pixels).fingerprint()
    assert "\n" not in str(told.value)


def test_each_value_is_an_object_or_all_are_one(tmp_path: Path) -> None:
    pixels = voc(1, 2)
    each = dataset(tmp_path, pixels, "?objects=each")
    assert sizes(each) == {"a#001": (1200, 624), "a#002": (300, 624)}
    assert {sample.image_key for sample in each.samples} == {"a"}
    union = dataset(tmp_path, pixels, "?objects=union")
    assert sizes(union) == {"a": (1500, 624)}
    assert len({opened.fingerprint() for opened in (each, union)}) == 2
    band = mask(255, 128).astype(np.uint8)
    assert sizes(dataset(tmp_path, band, "?ignore=128")) == {"a": (1200, 300)}
    assert sizes(dataset(tmp_path, band, "?threshold=200")) == {"a": (1200, 0)}
    assert sizes(dataset(tmp_path, band, "?objects=union&ignore=77")) == {"a": (1500, 0)}
    with pytest.raises(DataError, match="look like the grey edges of one object"):
        dataset(tmp_path, blurred(7), "?objects=each")


def test_two_files_of_one_object_are_refused(tmp_path: Path) -> None:
    dataset(tmp_path, mask(1, 2).astype(np.uint8), "?objects=each")
    assert cv2.imwrite(str(tmp_path / "own" / "masks" / "a#001.png"), mask().astype(np.uint8))
    with pytest.raises(DataError, match=r"object .* and a.*png are both the sample a#001; rename"):
        open_dataset("folder:own?objects=each", split="val", data_root=tmp_path)


@pytest.mark.parametrize("pixels", [255 - mask(), mask(0) + 255], ids=["inverted", "all"])
def test_inverted_masks_are_named(tmp_path: Path, pixels: Array) -> None:
    (note,) = dataset(tmp_path, pixels.astype(np.uint8)).notes()
    assert note.startswith(
        "1 of 1 masks cover over 95 % of the image or all of its border, as inverted masks do (a.png"
    )


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.where(mask() > 0, 1, np.nan).astype(np.float32), "18000 of 19200 pixels NaN or infinite"),
        (mask(1).astype(np.float32) * 0.5 + mask(0, 1.5), "a mask of float32 from 0 to"),
        (mask(-1).astype(np.int32), "values from -1 on"),
        (np.dstack([mask(0.5), mask(0), mask(0)]).astype(np.float32), "3 channels of float32"),
    ],
)
def test_values_without_a_meaning_are_refused(tmp_path: Path, pixels: Array, message: str) -> None:
    pixels = pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels
    if message == "a mask of float32 from 0 to":
        pixels = np.where(mask() > 0, np.float32(2.5), np.float32(0))
    with pytest.raises(DataError, match="a.tif: .*" + message):
        dataset(tmp_path, pixels, suffix=".tif").truth("a")


def test_masks_of_two_meanings_are_refused(tmp_path: Path) -> None:
    first, second = (PIL.Image.fromarray(mask(*values).astype(np.uint8)) for values in ((255, 0), (0, 255)))
    opened = dataset(tmp_path, first, suffix=".tif")
    first.save(tmp_path / "own" / "masks" / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=r"a\.tif: a mask of 2 pages"):
        opened.truth("a")
    (tmp_path / "own" / "masks" / "a.tif").unlink()
    with pytest.raises(DataError, match="whose colours and whose alpha channel mark different pixels"):
        dataset(tmp_path, channels(mask(), mask(0, 255))).truth("a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?objects=all", "objects=all is neither each nor union"),
        ("?treshold=3", "no rule for masks"),
        ("?threshold=0", "threshold=0 is not 1..255"),
        ("?threshold=128&objects=each", "give one of them"),
        ("?ignore=a", "ignore=a is no list of values above 0"),
        ("?objects=each&objects=union", "given twice"),
    ],
)
def test_rules_that_are_none(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, mask().astype(np.uint8), options)


def test_only_what_is_read_otherwise_is_other_data(tmp_path: Path) -> None:
    """Fingerprints of plain masks are those of before: what was computed on them stays."""
    plain = dataset(tmp_path, mask().astype(np.uint8))
    before = plain.fingerprint()
    assert dataset(tmp_path, mask().astype(np.uint8), "?objects=union").fingerprint() == before
    masks = plain.masks["a"].content(plain._file_hashes())  # type: ignore[attr-defined]
    assert masks.startswith("read_nonzero_mask:")
    other = dataset(tmp_path, blurred(7))
    assert other.masks["a"].content(other._file_hashes()).startswith("folder mask 1:")  # type: ignore[attr-defined]
