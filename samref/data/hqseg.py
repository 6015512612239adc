"""`hqseg44k`: HQSeg-44K of HQ-SAM (https://github.com/SysCV/sam-hq), seven and four sets under one name.

Expects the released folders in DATA_ROOT/HQSeg44K. Every .jpg is a sample and needs the .png of its stem; in
cascade_psp/ both lie side by side. A .png without a .jpg is passed over, as HQ-SAM does: the released fss_all has six
files more than its 10 000 pairs. Any value above zero is object, as in SegNext.

ECSSD shares some photographs with Berkeley and GrabCut. The published results train on them all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from samref.data.archives import how_to_get
from samref.data.files import FileDataset, Mask, MaskFile, first
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, Split
from samref.mask_files import read_nonzero_mask

SOURCE = how_to_get("hqseg44k")


@dataclass(frozen=True)
class Subset:
    """One of the sets."""

    name: str
    images: str
    masks: str
    published: int
    """How many images the set has; all sets together have the 44 320 and 1537 of the papers."""


THIN = "thin_object_detection"
SUBSETS: dict[Split, tuple[Subset, ...]] = {
    "train": (
        Subset("DIS5K-TR", "DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt", 3000),
        Subset("ThinObject5K-TR", f"{THIN}/ThinObject5K/images_train", f"{THIN}/ThinObject5K/masks_train", 4748),
        Subset("FSS", "cascade_psp/fss_all", "cascade_psp/fss_all", 10000),
        Subset("DUTS-TR", "cascade_psp/DUTS-TR", "cascade_psp/DUTS-TR", 10553),
        Subset("DUTS-TE", "cascade_psp/DUTS-TE", "cascade_psp/DUTS-TE", 5019),
        Subset("ECSSD", "cascade_psp/ecssd", "cascade_psp/ecssd", 1000),
        Subset("MSRA10K", "cascade_psp/MSRA_10K", "cascade_psp/MSRA_10K", 10000),
    ),
    "val": (
        Subset("DIS5K-VD", "DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt", 470),
        Subset("ThinObject5K-TE", f"{THIN}/ThinObject5K/images_test", f"{THIN}/ThinObject5K/masks_test", 500),
        Subset("COIFT", f"{THIN}/COIFT/images", f"{THIN}/COIFT/masks", 280),
        Subset("HRSOD", f"{THIN}/HRSOD/images", f"{THIN}/HRSOD/masks_max255", 287),
    ),
}
PUBLISHED: dict[Split, int | None] = {split: sum(subset.published for subset in SUBSETS[split]) for split in SUBSETS}


def open_hqseg44k(request: Request) -> Dataset:
    """The dataset; all its subsets must be there, nothing is decoded. A sample's key is SUBSET/STEM."""
    root = request.data_root / "HQSeg44K"
    left_out: list[str] = []
    every = [pair for subset in SUBSETS[request.split] for pair in _pairs(request, root, subset, left_out)]
    return FileDataset.of(request, every, tuple(left_out))


def _pairs(request: Request, root: Path, subset: Subset, left_out: list[str]) -> Iterator[tuple[Sample, Path, Mask]]:
    """The subset's samples with images and masks, sorted by stem; and what to say of other masks."""
    images, masks = root / subset.images, root / subset.masks
    for needed in (images, masks):
        if not needed.is_dir():
            names = ", ".join(subset.name for subset in SUBSETS[request.split])
            raise MissingDataError(
                f"{needed}: no such folder; {request.name} ({request.split}) needs all of {names} in {root}, here "
                f"{subset.name}: get it from {SOURCE}, or set the data root{hint(root, request.name)}"
            )
    stems = sorted(path.stem for path in images.iterdir() if path.suffix == ".jpg" and not path.name.startswith("."))
    present = {path.name for path in masks.iterdir()}
    lost = [stem for stem in stems if f"{stem}.png" not in present]
    if lost:
        raise DataError(
            f"{masks}: {len(lost)} of {len(stems)} images without a mask (first: {lost[0]}.png); {subset.name} needs a "
            f".png for every .jpg: get it from {SOURCE}"
        )
    if not stems:
        raise DataError(f"{images}: holds no .jpg; get {subset.name} from {SOURCE}")
    alone = sorted(present - {f"{stem}{suffix}" for stem in stems for suffix in (".png", ".jpg")})
    if alone := [name for name in alone if not name.startswith(".")]:
        left_out.append(f"{len(alone)} files of {subset.name} without a photograph are left out ({first(alone)})")
    for stem in stems:
        key, mask = f"{subset.name}/{stem}", MaskFile(masks / f"{stem}.png", read_nonzero_mask)
        yield Sample(key, key), images / f"{stem}.jpg", mask
