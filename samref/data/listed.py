"""Datasets of a list of images and one file an image that holds all of its objects: sbd and pascal_voc."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from samref.data.files import FileDataset, Mask
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Where a dataset of a list of images lies, and how the objects of a file are told and read."""

    root: str
    """The dataset's folder below the data root."""
    places: Sequence[str]
    """Where the dataset's folders lie below `root`, the likeliest first; the last is where the archive puts them."""
    images: str
    objects: str
    """The folder of the files with the objects; `images` is that of the .jpg files."""
    suffix: str
    """Suffix of the files with the objects."""
    list_file: str
    """The list of a split's images below the place, one a line, `{split}` in its name."""
    needs: str
    """What the error says of the folders that are needed, `{list}` for the list's name."""
    elsewhere: str
    """Where else they may lie, for the error."""
    source: str
    numbers: Callable[[Path], list[int]]
    """The numbers of the objects in a file."""
    mask: Callable[[Path, int], Mask]
    """The mask of one of them."""

    def open(self, request: Request) -> Dataset:
        """Open the dataset; every file with objects is read, for only they tell which there are."""
        root = request.data_root / self.root
        folder = next((root / place for place in self.places if (root / place / self.objects).is_dir()), root)
        listed = folder / self.list_file.format(split=request.split)
        for needed in (folder / self.images, folder / self.objects, listed):
            if not needed.exists():
                raise MissingDataError(
                    f"{needed}: does not exist; {request.name} ({request.split}) needs "
                    f"{self.needs.format(list=listed.name)} in {root} (or its {self.elsewhere}): get it from "
                    f"{self.source}, or set the data root{hint(root, request.name)}"
                )
        stems = sorted(set(listed.read_text(encoding="utf-8", errors="replace").split()))
        if not stems:
            raise DataError(f"{listed}: names no images; get it from {self.source}")
        files = {
            stem: (folder / self.images / f"{stem}.jpg", folder / self.objects / f"{stem}{self.suffix}")
            for stem in stems
        }
        present = {path for kind in (self.images, self.objects) for path in (folder / kind).iterdir()}
        lost = [path for pair in files.values() for path in pair if path not in present]
        if lost:
            raise MissingDataError(
                f"{lost[0]}: this and {len(lost) - 1} more files that {listed.name} names are not there; {self.source}"
            )
        with ThreadPoolExecutor(2, thread_name_prefix=request.name) as pool:
            objects = dict(zip(stems, pool.map(lambda stem: self.numbers(files[stem][1]), stems), strict=True))
        every = [
            (Sample(f"{stem}#{number:03d}", stem), image, self.mask(held, number))
            for stem, (image, held) in files.items()
            for number in objects[stem]
        ]
        return FileDataset.of(request, every)
