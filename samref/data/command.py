"""`samref-data`: which datasets are there, and whether all of their files can be read. It downloads nothing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from samref.data.registry import FAMILIES, check, family_of, open_dataset
from samref.data.sample import DataError, Dataset, Split

PROGRESS_SECONDS = 1.0
"""Between two lines of progress on a terminal; elsewhere there are none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 what cannot be read."""
    # On the command and on `verify`; SUPPRESS: a default of the second would overwrite what was given to the first.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder of the datasets (default: data)",
    )
    parser = argparse.ArgumentParser(
        prog="samref-data",
        description="List every dataset: what is there, what is missing, where to get it. Downloads nothing.",
        parents=[common],
    )
    commands = parser.add_subparsers(dest="command", metavar="verify")
    verifying = commands.add_parser(
        "verify", help="read every image and mask of a dataset", description=verify.__doc__, parents=[common]
    )
    verifying.add_argument("name", help=f"one of {', '.join(FAMILIES)}")
    verifying.add_argument("--split", choices=("train", "val"), help="only this split (default: all it has)")
    options = parser.parse_args(arguments)
    root: Path = getattr(options, "data_root", Path("data"))
    try:
        if options.command == "verify":
            verify(options.name, [options.split] if options.split else None, root)
        else:
            show(root)
    except DataError as error:
        print(f"samref-data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def show(root: Path) -> None:
    """Print a line for each dataset and split, as soon as it is known: large ones take seconds to open."""
    for name, family in FAMILIES.items():
        if name.endswith(":NAME"):
            print(f"{name:<12} {family.source}")
        for split, published in family.published.items():
            label = f"{name:<12} {split:<5}"
            try:
                dataset = open_dataset(name, split=split, data_root=root)
            except DataError as error:
                # The error tells what is missing and where to get it.
                print(f"{label} not usable: {error}", flush=True)
            else:
                print(f"{label} present: {_size(dataset, published)}; {family.source}", flush=True)


def verify(name: str, splits: Sequence[Split] | None, root: Path) -> None:
    """Read every image and mask of a dataset; one line for each split, or the first thing that is wrong."""
    family = family_of(name)
    # A folder of the user's own has one list and no published number.
    for split in splits or tuple(family.published) or ("val",):
        dataset = open_dataset(name, split=split, data_root=root)
        progress = _Progress(f"{name} {split}")
        try:
            check(dataset, progress)
        finally:
            progress.clear()
        print(f"{name} {split}: {_size(dataset, family.published.get(split))}; all read", flush=True)


def _size(dataset: Dataset, published: int | None) -> str:
    samples = len(dataset.samples)
    images = len({sample.image_key for sample in dataset.samples})
    note = "" if published is None else " (as published)" if samples == published else f" (published: {published})"
    return f"{samples} samples{note} of {images} images"


class _Progress:
    """One line on stderr that overwrites itself, on a terminal."""

    def __init__(self, label: str) -> None:
        self._label, self._last, self._width = label, time.monotonic(), 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS or not sys.stderr.isatty():
            return
        self._last = now
        text = f"{self._label}: {done}/{total} images"
        self._width = len(text)
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
