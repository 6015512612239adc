"""Datasets of two folders, one of images and one of masks: grabcut, berkeley, davis, coco_mval, ecssd, `folder:NAME`.

A mask belongs to the image of its stem; `a#001.png`, `a#002.png` are masks of several objects of image `a`. How a
folder's masks are meant, where that is not plain, its name says: `folder:NAME?objects=each` (samref/mask_files.py).
These sets have one published list each, so both splits are that list: keeping training and evaluation apart
is up to the trial, which names one set for each. `folder:NAME?split=0.8` splits itself, by image.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from samref.data.archives import how_to_get
from samref.data.files import FileDataset, FolderMaskFile, Mask, MaskFile, describe_mask, first
from samref.data.folder_split import own_name, split_by_image
from samref.data.hashes import FileHashes
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample
from samref.folder_name import FolderName
from samref.image_files import IMAGE_SUFFIXES
from samref.mask_files import MASK_SUFFIXES, MaskRule, ReadMask, parse_folder, read_banded_mask, read_nonzero_mask

_OF_SYSTEMS = {"thumbs.db", "desktop.ini"}
"""Files that nobody put there."""


@dataclass(frozen=True)
class Layout:
    """Where a published dataset lies, and how its masks are meant."""

    folder: str
    images: str
    masks: str
    read_mask: ReadMask
    source: str

    def open(self, request: Request) -> Dataset:
        """The dataset, its files paired; nothing is decoded."""
        folder = request.data_root / self.folder
        return _open(request, folder, self.images, self.masks, self.read_mask, f"get it from {self.source}")


GRABCUT = Layout("GrabCut", "data_GT", "boundary_GT", read_banded_mask, how_to_get("grabcut"))
BERKELEY = Layout("Berkeley", "images", "masks", read_banded_mask, how_to_get("berkeley"))
DAVIS = Layout("DAVIS", "img", "gt", read_nonzero_mask, how_to_get("davis"))
COCO_MVAL = Layout("COCO_MVal", "img", "gt", read_nonzero_mask, how_to_get("coco_mval"))
ECSSD = Layout("ECSSD", "images", "masks", read_nonzero_mask, how_to_get("ecssd"))


def open_folder(request: Request) -> Dataset:
    """`folder:NAME`: DATA_ROOT/NAME, or an absolute path, with images/ and masks/; how masks are meant may follow."""
    (_, rule), name = parse_folder(request.argument), own_name(request.argument)
    if not name.folder:
        raise DataError(f"{request.name!r} names no folder; write folder:NAME for DATA_ROOT/NAME")
    try:
        # An absolute argument replaces the data root: pathlib's own rule.
        folder = request.data_root / Path(name.folder).expanduser()
    except RuntimeError:
        raise DataError(f"{request.name}: there is no home folder of this user; write the whole path") from None
    return _open(request, folder, "images", "masks", rule, "put your images and masks there", name)


def _open(
    request: Request,
    folder: Path,
    images: str,
    masks: str,
    rule: ReadMask | MaskRule,
    remedy: str,
    name: FolderName | None = None,
) -> FileDataset:
    for needed in (folder, folder / images, folder / masks):
        if not needed.is_dir():
            raise MissingDataError(
                f"{needed}: no such folder; {request.name} needs {images}/ with images and {masks}/ "
                f"with masks of the same stems in {folder}: {remedy}, or set the data root{hint(folder, request.name)}"
            )
    image_files, other_images = _by_stem(folder / images, IMAGE_SUFFIXES, "image")
    mask_files, other_masks = _by_stem(folder / masks, MASK_SUFFIXES, "mask")
    image_keys = _image_keys(mask_files, image_files)
    others = [*(f"{images}/{name}" for name in other_images), *(f"{masks}/{name}" for name in other_masks)]
    left_out = f"{len(others)} files or folders of other kinds are left out ({first(others)})" if others else ""
    used = set(image_keys.values())
    without_image = [mask_files[key].name for key in mask_files if key not in image_keys]
    without_mask = [image_files[key].name for key in image_files if key not in used]
    if without_image or without_mask:
        lost = [
            f"{len(names)} {what} ({first(names)})"
            for names, what in (
                (without_mask, f"of {len(image_files)} images without a mask"),
                (without_image, f"of {len(mask_files)} masks without an image"),
            )
            if names
        ]
        raise DataError(
            f"{folder}: {' and '.join(lost)}; {images}/ and {masks}/ must hold the same stems"
            + (f", and {left_out}" if left_out else "")
        )
    if not mask_files:
        raise DataError(
            f"{folder}: {images}/ and {masks}/ hold no images; {remedy}" + (f" ({left_out})" if left_out else "")
        )
    found = _objects(mask_files, rule, request.cache)
    samples: Sequence[Sample] = [Sample(key, image_keys[mask_key]) for key, (mask_key, _) in sorted(found.items())]
    if name is not None:
        samples = split_by_image(samples, name, request.split)
    every = [(sample, image_files[sample.image_key], found[sample.key][1]) for sample in samples]
    return FileDataset.of(request, every, (left_out,) if left_out else ())


def _objects(files: dict[str, Path], rule: ReadMask | MaskRule, cache: Path | None) -> dict[str, tuple[str, Mask]]:
    """Sample key → stem of its mask, and the mask; with `objects=each` every mask is read, for only it tells them."""
    if not isinstance(rule, MaskRule):
        return {key: (key, MaskFile(path, rule)) for key, path in files.items()}
    if rule.objects != "each":
        return {key: (key, FolderMaskFile(path, rule)) for key, path in files.items()}
    found: dict[str, tuple[str, Mask]] = {}
    hashes = FileHashes(cache)
    for stem, path in files.items():
        ids = describe_mask(path, rule, hashes).ids
        masks = {f"{stem}#{identity:03d}": identity for identity in ids} if len(ids) > 1 else {stem: None}
        for key, identity in masks.items():
            if key in found:
                raise DataError(
                    f"{path}: its object {identity} and {files[found[key][0]].name} are both the sample {key}; rename "
                    "one"
                )
            found[key] = stem, FolderMaskFile(path, rule, identity)
    hashes.save()
    return found


def _image_keys(mask_files: Collection[str], image_files: Collection[str]) -> dict[str, str]:
    """Stem of each mask that has an image → the image's stem."""
    # macOS writes an accent as a character of its own where other systems have one letter; both look alike.
    composed = {normalize("NFC", stem): stem for stem in image_files}
    found = {}
    for stem in mask_files:
        for wanted in (stem, stem.rpartition("#")[0]):
            image = wanted if wanted in image_files else composed.get(normalize("NFC", wanted))
            if image is not None:
                found[stem] = image
                break
    return found


def _by_stem(folder: Path, suffixes: Collection[str], what: str) -> tuple[dict[str, Path], list[str]]:
    """Files of a folder by stem; and the names of those that are no image, but of what systems put everywhere."""
    found: dict[str, Path] = {}
    alike: dict[str, str] = {}
    lossy: list[str] = []
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        suffix, name = path.suffix.lower(), normalize("NFC", path.stem)
        if path.name.startswith(".") or path.name.lower() in _OF_SYSTEMS:
            continue
        if suffix not in IMAGE_SUFFIXES or (path.exists() and not path.is_file()):  # a folder; a pipe would never end
            others.append(path.name + "/" * path.is_dir())
        elif suffix not in suffixes:
            lossy.append(path.name)
        elif name in alike:
            other = found[alike[name]]
            seen = f"{other.name} and {path.name}"
            if path.stem != other.stem:
                seen += f" (which look alike: {other.name!a}, {path.name!a})"
            raise DataError(f"{folder}: {seen} are both the {what} {path.stem}; keep one")
        else:
            found[path.stem] = path
            alike[name] = path.stem
    if lossy:
        raise DataError(
            f"{folder}: {len(lossy)} masks are of a lossy format ({first(lossy)}), whose noise "
            "would count as object; save them as .png"
        )
    return found, others
