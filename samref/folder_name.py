"""The name of a person's own dataset, `folder:NAME?split=0.8&seed=1`: its folder, and how it is split.

Reads no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from samref.errors import UserError

FAMILY = "folder:"
UNSPLIT = "none"
"""The value of `split` by which training and evaluation take the same images, on purpose."""


class FolderNameError(UserError, ValueError):
    """A `folder:` name has an option that does not exist, or a value that it cannot have; one line."""


@dataclass(frozen=True)
class FolderName:
    """What a `folder:` name says."""

    folder: str
    """Below the data root, or absolute."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What stands behind the question mark."""

    @property
    def train_share(self) -> float | None:
        """The share of the images that is for training; None: every split is all of them.

        Raises FolderNameError: it is no number between 0 and 1, nor `none`.
        """
        text = self.options.get("split", UNSPLIT)
        if text == UNSPLIT:
            return None
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 < share < 1:
            raise FolderNameError(
                f"{FAMILY}{self.folder}: split is {text!r}; write the training's share, split=0.8, or split={UNSPLIT} "
                "for all images in both"
            )
        return share

    @property
    def seed(self) -> int:
        """The seed of the split. Raises FolderNameError: it is no whole number of 0 or more."""
        text = self.options.get("seed", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise FolderNameError(f"{FAMILY}{self.folder}: seed is {text!r}; write a whole number, seed=1")
        return int(text)


def parse(argument: str) -> FolderName:
    """Read what stands behind `folder:`. Raises FolderNameError: an option stands there twice, or without a value."""
    folder, mark, text = argument.rpartition("?")
    if not mark or "=" not in text:  # a folder may have a question mark in its name
        return FolderName(argument)
    options: dict[str, str] = {}
    for option in text.split("&"):
        name, equals, value = option.partition("=")
        if not equals or not value or name in options:
            raise FolderNameError(f"{FAMILY}{argument}: {option!r} is no option; write {folder}?split=0.8&seed=1")
        options[name] = value
    return FolderName(folder, options)


def leak(trained: str, evaluated: str) -> bool:
    """Whether two names are of one folder whose evaluated images are trained on, with no word that this is wanted."""
    if not (trained.startswith(FAMILY) and evaluated.startswith(FAMILY)):
        return False
    one, other = parse(trained.removeprefix(FAMILY)), parse(evaluated.removeprefix(FAMILY))
    if one.folder.rstrip("/") != other.folder.rstrip("/"):
        return False
    if UNSPLIT in (one.options.get("split"), other.options.get("split")):
        return False
    return one.train_share is None or (one.train_share, one.seed) != (other.train_share, other.seed)
