"""Where the datasets are published: addresses, licences, and what of each archive goes where below the data root.

Addresses are those that the datasets' own pages, or the evaluators of RITM's line, give. What is not here has no
address that a program may fetch it from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from samref.data.sample import Split
from samref.download import Source
from samref.drive import drive_address

BOTH: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class ArchiveSource(Source):
    """One public address of an archive."""

    inside: str = ""
    """The folder of the archive, at whatever depth, below which the places are meant; empty: anywhere in it."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A .zip, .tgz or .tar.gz, of which only what the dataset's family reads is unpacked."""

    sources: tuple[ArchiveSource, ...]
    """Where it is published, tried in this order until one gives it."""
    places: Mapping[str, str]
    """File or folder in the archive, at whatever depth → its place in the dataset's folder."""
    splits: tuple[Split, ...] = BOTH


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A dataset with public archives."""

    folder: str
    """Below the data root."""
    page: str
    """Where a person finds it, and its terms."""
    licence: str
    archives: tuple[Archive, ...]


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _archive(places: Mapping[str, str], *sources: ArchiveSource | str, splits: tuple[Split, ...] = BOTH) -> Archive:
    """An archive by its addresses, of which nothing else is known where they are texts."""
    every = (ArchiveSource(address=each) if isinstance(each, str) else each for each in sources)
    return Archive(sources=tuple(every), places=places, splits=splits)


RITM = "https://github.com/SamsungLabs/ritm_interactive_segmentation"
RITM_DATASETS = f"{RITM}/archive/792c183a884f7da658193975ddac214e325eb330.zip"
"""The commit of pull request 9 that holds GrabCut, DAVIS and COCO_MVal below datasets/, in RITM's packaging."""
RELEASES = "https://github.com/saic-vul/{}_interactive_segmentation/releases/download/v1.0/{}"


def _ritm(folder: str, identity: str, images: str, masks: str, *, in_pull_request: bool = True) -> PublishedDataset:
    """A test set in the packaging of RITM's line: its copy on Google Drive, in RITM's pull request, and at last the
    release that all READMEs name, which was reported gone in October 2025."""
    pull_request = [ArchiveSource(address=RITM_DATASETS, inside=folder)] if in_pull_request else []
    release = RELEASES.format("fbrs", f"{folder}.zip")
    archive = _archive(_same(images, masks), drive_address(identity), *pull_request, release)
    page = f"https://drive.google.com/file/d/{identity}"
    return PublishedDataset(folder=folder, page=page, licence="none stated, for research", archives=(archive,))


SBD_ADDRESS = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
SBD_HASH = "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53"
VOC_FILE = "VOCtrainval_11-May-2012.tar"
COCO = "http://images.cocodataset.org"
COCO_PAGE = "https://cocodataset.org/#download"
COCO_LICENCE = "annotations CC BY 4.0, images under Flickr's terms, each its own"


def _coco_images(split: Split, size: int, *splits: Split) -> Archive:
    source = ArchiveSource(address=f"{COCO}/zips/{split}2017.zip", size=size)
    return _archive(_same(f"{split}2017"), source, splits=splits)


def _lvis(split: Split) -> Archive:
    file = f"lvis_v1_{split}.json"
    return _archive({file: f"annotations/{file}"}, f"https://dl.fbaipublicfiles.com/LVIS/{file}.zip", splits=(split,))


_COCO_ANNOTATIONS = _archive(
    {file: f"annotations/{file}" for file in ("instances_train2017.json", "instances_val2017.json")},
    ArchiveSource(address=f"{COCO}/annotations/annotations_trainval2017.zip", size=252_907_541),
)
_TRAIN_BYTES, _VAL_BYTES = 19_336_861_798, 815_585_330
"""Bytes of COCO's images."""


def _hqseg(folder: str, *names: str, splits: tuple[Split, ...] = BOTH) -> Archive:
    address = f"https://huggingface.co/sam-hq-team/sam-hq-training/resolve/main/data/{folder}.zip"
    return _archive({name: f"{folder}/{name}" for name in names}, address, splits=splits)


def _ecssd(name: str, place: str) -> Archive:
    return _archive({name: place}, f"https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD/{name}.zip")


ARCHIVES: dict[str, PublishedDataset] = {
    "grabcut": _ritm("GrabCut", "1tU17eJaevYd5PQAwzEK6oG1N9eBJORC4", "data_GT", "boundary_GT"),
    # The pull request has Berkeley's masks alone.
    "berkeley": _ritm("Berkeley", "1yStolKW8AnS5rYm3VhgnID_XReNCXbEJ", "images", "masks", in_pull_request=False),
    "davis": _ritm("DAVIS", "1kyjN6EJSjwGnzSJxVjm3Pl2-XAjV7tac", "img", "gt"),
    "coco_mval": _ritm("COCO_MVal", "1oz1VT8YqykQFfx_Vtp_wtYFGz5mYBOnp", "img", "gt"),
    "coco_lvis_ritm": PublishedDataset(
        folder="COCO_LVIS",
        page=RITM,
        licence=f"none stated for the masks; COCO's {COCO_LICENCE}",
        archives=(
            _archive(
                _same("train/hannotation.pickle", "train/masks"),
                drive_address("15S5lseLQBPSDu3SkNYNKPDBwZiqQpl_-"),
                drive_address("17z9aZPlRv8vpU1AEz_M0WuZC6uBkqEWE"),
                RELEASES.format("ritm", "cocolvis_annotation.tar.gz"),
            ),
        ),
    ),
    "pascal_voc": PublishedDataset(
        folder="PascalVOC",
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        licence="images under Flickr's terms",
        archives=(
            _archive(
                _same("JPEGImages", "SegmentationObject", "ImageSets/Segmentation"),
                f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{VOC_FILE}",
                f"https://pjreddie.com/media/files/{VOC_FILE}",
            ),
        ),
    ),
    "ecssd": PublishedDataset(
        folder="ECSSD",
        page="https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
        licence="none stated, for research",
        archives=(_ecssd("images", "images"), _ecssd("ground_truth_mask", "masks")),
    ),
    "sbd": PublishedDataset(
        folder="SBD",
        page=SBD_ADDRESS,
        licence="none stated; images of PASCAL VOC, under Flickr's terms",
        archives=(
            _archive(
                _same("img", "inst", "train.txt", "val.txt"),
                ArchiveSource(address=SBD_ADDRESS, sha256=SBD_HASH),
                drive_address("13LOm0eorDCWO19PzgEI2NeDpWGiZanAf"),
            ),
        ),
    ),
    "hqseg44k": PublishedDataset(
        folder="HQSeg44K",
        page="https://huggingface.co/sam-hq-team/sam-hq-training/tree/main/data",
        licence="Apache-2.0 by its page; its seven sets have terms of their own",
        archives=(
            _hqseg("DIS5K", "DIS-TR", "DIS-VD"),
            _hqseg("thin_object_detection", "COIFT", "HRSOD", "ThinObject5K"),
            _hqseg("cascade_psp", "DUTS-TE", "DUTS-TR", "ecssd", "fss_all", "MSRA_10K", splits=("train",)),
        ),
    ),
    "coco": PublishedDataset(
        folder="COCO",
        page=COCO_PAGE,
        licence=COCO_LICENCE,
        archives=(
            _COCO_ANNOTATIONS,
            _coco_images("val", _VAL_BYTES, "val"),
            _coco_images("train", _TRAIN_BYTES, "train"),
        ),
    ),
    "coco_lvis": PublishedDataset(
        folder="COCO",
        page="https://www.lvisdataset.org/dataset",
        licence=f"LVIS's own terms (see its page); COCO's {COCO_LICENCE}",
        archives=(
            _lvis("train"),
            _lvis("val"),
            # LVIS's val has images of both folders.
            _coco_images("val", _VAL_BYTES, "val"),
            _coco_images("train", _TRAIN_BYTES, *BOTH),
        ),
    ),
}


def how_to_get(name: str) -> str:
    """Where a dataset is, and the command that fetches it, for messages: `get it from …`."""
    return f"{ARCHIVES[name].page} (or: samref-data download {name})"
