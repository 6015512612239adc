"""What an evaluation begins with: people's first clicks, masks to be corrected, or boxes.

People's clicks are a CSV file with the columns of RClicks' published one (Antonov et al., NeurIPS 2024), of which
`full_stem` (a sample's key), `x` and `y` are needed. Where they are there, `dataset` and `click_type` choose the rows
that count, and `w` and `h` say on which size of the image, in px, people clicked.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samref.clicks import Click, Truth
from samref.config import BOX, EvaluateConfig
from samref.data import DataError, MissingDataError, Sample, open_dataset
from samref.data.davis585 import KINDS, Davis585
from samref.data.files import FolderMaskFile, Mask, first
from samref.data.hashes import FileHashes, digest
from samref.mask_files import MASK_SUFFIXES, parse_folder

PUBLISHED = {"davis": "DAVIS", "grabcut": "GrabCut", "berkeley": "Berkeley", "coco_mval": "COCO"}
"""Our name of a dataset → RClicks'."""
_NEEDED = ("full_stem", "x", "y")


class Start(NamedTuple):
    """What one sample begins with."""

    clicks: Mapping[int, Click] = MappingProxyType({})
    """Seed → the first click under it; empty where the clicker makes that, too."""
    mask_HW: NDArray[np.bool_] | None = None
    """The mask before the first click; None: an empty one."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom pixel of the object, both included, in px of the image."""


@dataclass(frozen=True)
class _Place:
    """Where somebody clicked first, and where that is written."""

    row: str
    x: float
    y: float
    size: tuple[float, float] | None
    """Width and height of the image that was clicked on; None: those of the image itself."""

    def on(self, height: int, width: int) -> Click:
        """The click on an image of this size, px."""
        shown = self.size or (width, height)
        if not (0 <= self.x < shown[0] and 0 <= self.y < shown[1]):
            raise DataError(
                f"{self.row}: ({self.x:g}, {self.y:g}) lies outside the image of {shown[0]:g}×{shown[1]:g} px; correct "
                "or remove the row"
            )
        return Click(int(self.x * width / shown[0]), int(self.y * height / shown[1]), True)


@dataclass(frozen=True)
class Starts:
    """What every sample of an evaluation begins with."""

    seeds: tuple[int, ...] = ()
    """Seeds of the evaluations that run in one go, where first clicks depend on them."""
    box: bool = False
    places: Mapping[str, Sequence[_Place]] = field(default_factory=dict)
    """Sample's key → everybody's first click on it, in the file's order."""
    masks: Mapping[str, Mask] = field(default_factory=dict)
    """Sample's key → the mask to be corrected."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Setting → the file that it names, where it is one."""

    @classmethod
    def open(
        cls, config: EvaluateConfig, data_root: Path, *, seeds: Sequence[int] = (), cache: Path | None = None
    ) -> Starts:
        """Find what the evaluation's `start` and `first_clicks` name, for its samples; masks are not read.

        Raises:
            MissingDataError: it is not here, or the dataset is not.
            DataError: it is not what it should be; says where.
        """
        if config.start is None and config.first_clicks is None:
            return cls()
        if config.start == BOX:
            return cls(box=True)
        chosen = open_dataset(config.data, split="val", data_root=data_root, samples=config.samples, cache=cache)
        if config.first_clicks is None:
            assert config.start is not None
            if config.start not in KINDS:
                return cls(masks=_masks(config.start, data_root, chosen.samples))
            if not isinstance(chosen, Davis585):
                raise DataError(f"evaluate.start is {config.start}, which davis585 alone has, not {config.data}")
            return cls(masks={sample.key: chosen.start(sample.key, config.start) for sample in chosen.samples})
        file = data_root / Path(config.first_clicks).expanduser()
        # Samples that are not chosen may have clicks; names that no sample has may not.
        every = open_dataset(config.data, split="val", data_root=data_root, cache=cache)
        places = dict[str, list[_Place]]()
        for key, place in _places(file, config.data, (*every.samples, *chosen.samples)):
            places.setdefault(key, []).append(place)
        if lacking := [sample.key for sample in chosen.samples if sample.key not in places]:
            raise DataError(
                f"{file}: has no first click for {len(lacking)} of {len(chosen.samples)} objects of {config.data} "
                f"({first(lacking)}); add their rows"
            )
        return cls(tuple(sorted({*seeds, config.seed})), places=places, files={"first_clicks": file})

    def of(self, key: str, truth_HW: Truth) -> Start:
        """What a sample begins with; its mask is read.

        Raises DataError: a mask is not of the truth's size, or a click lies outside.
        """
        height, width = truth_HW.shape
        if self.box:
            y, x = np.nonzero(truth_HW == 1)
            return Start(box=(int(x.min()), int(y.min()), int(x.max()), int(y.max())))
        if own := self.masks.get(key):
            mask_HW = own.read() == 1
            if mask_HW.shape != truth_HW.shape:
                size = f"{mask_HW.shape[1]}×{mask_HW.shape[0]}"
                raise DataError(f"{own.place}: is {size} px, its object's mask {width}×{height}")
            return Start(mask_HW=mask_HW)
        if places := self.places.get(key):
            return Start({seed: places[seed % len(places)].on(height, width) for seed in self.seeds})
        return Start()

    def contents(self, samples: Sequence[Sample], hashes: FileHashes) -> dict[str, str]:
        """Setting → the hash of what it names, of those that are set."""
        found = {name: hashes.of(file) for name, file in self.files.items()}
        if self.masks:
            found["start"] = digest([[sample.key, self.masks[sample.key].content(hashes)] for sample in samples])
        return {**found, "start": BOX} if self.box else found


NOTHING = Starts()
"""Every sample begins with an empty mask."""


def _masks(name: str, data_root: Path, samples: Sequence[Sample]) -> dict[str, Mask]:
    """The masks KEY.png in DATA_ROOT/NAME."""
    folder_name, rule = parse_folder(name)
    folder = data_root / Path(folder_name).expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such folder, which evaluate.start names; put the masks there, KEY.png")
    found: dict[str, Mask] = {}
    for sample in samples:
        files = (folder / f"{sample.key}{suffix}" for suffix in sorted(MASK_SUFFIXES))
        if file := next((file for file in files if file.is_file()), None):
            found[sample.key] = FolderMaskFile(file, rule)
    if lacking := [sample.key for sample in samples if sample.key not in found]:
        raise DataError(
            f"{folder}: has no mask to start from for {len(lacking)} of {len(samples)} objects ({first(lacking)}); put "
            "one there for each, KEY.png"
        )
    return found


def _places(file: Path, data: str, samples: Sequence[Sample]) -> Iterator[tuple[str, _Place]]:
    """The rows of a file that are first clicks on a dataset, each with its sample's key."""
    keys = {sample.key for sample in samples}
    names = {data, PUBLISHED.get(data, data), data.partition(":")[2].partition("?")[0]}
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file, which evaluate.first_clicks names; put it there")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if lacking := [name for name in _NEEDED if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{file}: has no column {', '.join(lacking)}; it has {', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                if (row.get("dataset") or data) not in names or (row.get("click_type") or "first") != "first":
                    continue
                place = _place(f"{file}, row {reader.line_num}", row)
                if row["full_stem"] not in keys:
                    raise DataError(
                        f"{place.row}: full_stem is {row['full_stem']!r}, which is no object of {data} "
                        f"({first(sorted(keys))})"
                    )
                yield row["full_stem"], place
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: is no CSV file in UTF-8 ({error})") from None


def _place(where: str, row: Mapping[str, str | None]) -> _Place:
    names = [name for name in ("x", "y", "w", "h") if name in row]
    values = {}
    for name in names:
        try:
            values[name] = float(row[name] or "")
        except ValueError:
            raise DataError(f"{where}: {name} is {row[name]!r}; it should be a number of px") from None
    size = (values["w"], values["h"]) if {"w", "h"} <= values.keys() else None
    place = _Place(where, values["x"], values["y"], size)
    if size is not None:
        place.on(1, 1)  # lies within the image that was clicked on
    return place
