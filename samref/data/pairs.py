"""Datasets of two folders, one of images and one of masks: grabcut, berkeley, davis, coco_mval, ecssd, `folder:NAME`.

A mask belongs to the image of its stem; `a#001.png`, `a#002.png` are masks of several objects of image `a`.
These sets have one published list each, so both splits are that list: keeping training and evaluation apart
is up to the trial, which names one set for each. `folder:NAME?split=0.8` splits itself, by image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from samref.data.archives import how_to_get
from samref.data.decode import IMAGE_SUFFIXES, MASK_SUFFIXES, ReadMask, read_banded_mask, read_nonzero_mask
from samref.data.files import FileDataset, MaskFile
from samref.data.folder_split import own_name, split_by_image
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, evenly_spaced
from samref.folder_name import FolderName

SHOWN = 3
"""Names that a message lists before it only counts."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a published dataset lies, and how its masks are meant."""

    folder: str
    images: str
    masks: str
    read_mask: ReadMask
    source: str
    """Where to get it."""

    def open(self, request: Request) -> Dataset:
        """The dataset, its files paired; nothing is decoded."""
        folder = request.data_root / self.folder
        return _open(request, folder, self.images, self.masks, self.read_mask, f"get it from {self.source}")


GRABCUT = Layout(
    folder="GrabCut",
    images="data_GT",
    masks="boundary_GT",
    read_mask=read_banded_mask,
    source=how_to_get("grabcut"),
)
BERKELEY = Layout(
    folder="Berkeley",
    images="images",
    masks="masks",
    read_mask=read_banded_mask,
    source=how_to_get("berkeley"),
)
DAVIS = Layout(
    folder="DAVIS",
    images="img",
    masks="gt",
    read_mask=read_nonzero_mask,
    source=how_to_get("davis"),
)
COCO_MVAL = Layout(
    folder="COCO_MVal",
    images="img",
    masks="gt",
    read_mask=read_nonzero_mask,
    source=how_to_get("coco_mval"),
)
ECSSD = Layout(
    folder="ECSSD",
    images="images",
    masks="masks",
    read_mask=read_nonzero_mask,
    source=how_to_get("ecssd"),
)


def open_folder(request: Request) -> Dataset:
    """`folder:NAME`: DATA_ROOT/NAME, or an absolute path, with images/ and masks/; non-zero is object."""
    name = own_name(request.argument)
    if not name.folder:
        raise DataError(f"{request.name!r} names no folder; write folder:NAME for DATA_ROOT/NAME")
    # An absolute argument replaces the data root: pathlib's own rule.
    try:
        folder = request.data_root / Path(name.folder).expanduser()
    except RuntimeError as error:
        raise DataError(f"{request.name}: {str(error).rstrip('.')}; write the folder's whole path") from None
    return _open(request, folder, "images", "masks", read_nonzero_mask, "put your images and masks there", name)


def _open(
    request: Request,
    folder: Path,
    images: str,
    masks: str,
    read_mask: ReadMask,
    remedy: str,
    name: FolderName | None = None,
) -> Dataset:
    for needed in (folder, folder / images, folder / masks):
        if not needed.is_dir():
            raise MissingDataError(
                f"{needed}: no such folder; {request.name} needs {images}/ with images and {masks}/ "
                f"with masks of the same stems in {folder}: {remedy}, or set the data root{hint(folder, request.name)}"
            )
    image_files = _by_stem(folder / images, IMAGE_SUFFIXES, "image")
    mask_files = _by_stem(folder / masks, MASK_SUFFIXES, "mask")
    image_keys = {key: key if key in image_files else key.rpartition("#")[0] for key in mask_files}
    used = set(image_keys.values())
    without_image = [mask_files[key].name for key in image_keys if image_keys[key] not in image_files]
    without_mask = [image_files[key].name for key in image_files if key not in used]
    if without_image or without_mask:
        lost = [
            f"{len(names)} {what} ({_first(names)})"
            for names, what in (
                (without_mask, f"of {len(image_files)} images without a mask"),
                (without_image, f"of {len(mask_files)} masks without an image"),
            )
            if names
        ]
        raise DataError(f"{folder}: {' and '.join(lost)}; {images}/ and {masks}/ must hold the same stems")
    if not mask_files:
        raise DataError(f"{folder}: {images}/ and {masks}/ hold no images; {remedy}")
    every: Sequence[Sample] = [Sample(key, image_keys[key]) for key in sorted(mask_files)]
    if name is not None:
        every = split_by_image(every, name, request.split)
    samples = evenly_spaced(every, request.samples, request.name)
    return FileDataset(
        name=request.name,
        samples=samples,
        image_files={sample.image_key: image_files[sample.image_key] for sample in samples},
        masks={sample.key: MaskFile(mask_files[sample.key], read_mask) for sample in samples},
        cache=request.cache,
    )


def _by_stem(folder: Path, suffixes: Collection[str], what: str) -> dict[str, Path]:
    """Files of a folder by stem; what is no image (.DS_Store, Thumbs.db, readme) is passed over."""
    found: dict[str, Path] = {}
    lossy: list[str] = []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in IMAGE_SUFFIXES:
            continue
        if suffix not in suffixes:
            lossy.append(path.name)
        elif path.stem in found:
            raise DataError(
                f"{folder}: {found[path.stem].name} and {path.name} are both the {what} {path.stem}; keep one"
            )
        else:
            found[path.stem] = path
    if lossy:
        raise DataError(
            f"{folder}: {len(lossy)} masks are of a lossy format ({_first(lossy)}), whose noise "
            "would count as object; save them as .png"
        )
    return found


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
