"""The split of a person's own folder into training and evaluation, by image, drawn from a seed."""

import hashlib
from collections.abc import Sequence

from samref.data.sample import DataError, Sample, Split
from samref.folder_name import FolderName, FolderNameError, parse


def own_name(argument: str) -> FolderName:
    """Read what stands behind `folder:`; what it says of masks is `samref.mask_files.parse_folder`'s.

    Raises DataError: its split or seed cannot be.
    """
    try:
        name = parse(argument)
        _ = name.train_share, name.seed
    except FolderNameError as error:
        raise DataError(str(error)) from None
    return name


def split_by_image(samples: Sequence[Sample], name: FolderName, split: Split) -> Sequence[Sample]:
    """Keep the samples of one side of the split, in their order; all where the name has none.

    Images are ordered by the SHA-256 of seed and name, and the first share of them is for training, at least one on
    either side: all objects of an image are on one side, and another image more moves hardly any from its side. Raises
    DataError: there is only one image.
    """
    share = name.train_share
    if share is None:
        return samples
    images = sorted(
        {sample.image_key for sample in samples},
        key=lambda image: hashlib.sha256(f"{name.seed}:{image}".encode("utf-8", "surrogateescape")).digest(),
    )
    if len(images) < 2:
        raise DataError(f"folder:{name.folder}: has {len(images)} image, which cannot be split; add images")
    count = min(max(round(share * len(images)), 1), len(images) - 1)
    kept = set(images[:count] if split == "train" else images[count:])
    return [sample for sample in samples if sample.image_key in kept]
