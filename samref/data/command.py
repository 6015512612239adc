"""`samref-data`: which datasets and checkpoints are there, whether all of it can be read, and the download of both."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from samref.backbones.checkpoints import CheckpointError, missing, obtain
from samref.backbones.official import OFFICIAL
from samref.command_line import BAD_INPUT, Parser, command
from samref.config import ModelConfig, Runtime
from samref.data.archives import ARCHIVES
from samref.data.fetch import fetch
from samref.data.packaging import packaging
from samref.data.registry import BOTH, FAMILIES, check, family_of, open_dataset
from samref.data.sample import DataError, Dataset, MissingDataError, Split
from samref.progress import ProgressLine, readable_size
from samref.user_paths import expanded


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 what cannot be read or had."""
    options = parser().parse_args(arguments)
    root: Path = getattr(options, "data_root", Path("data"))
    splits: list[Split] | None = [options.split] if getattr(options, "split", None) else None
    try:
        for name in getattr(options, "names", ()):
            options.carry_out(name, splits, root)
        if options.command is None:
            table(root)
    except (DataError, CheckpointError) as error:
        print(f"samref-data: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the parser of `samref-data`'s options; the documentation is tested against it."""
    # On the command and on its subcommands; SUPPRESS: a default of these would overwrite what was given to the first.
    common = Parser(add_help=False)
    folder = "folder of the datasets (default: data)"
    common.add_argument("--data-root", type=expanded, metavar="DIR", default=argparse.SUPPRESS, help=folder)
    made = Parser(
        prog="samref-data",
        description="List every dataset and checkpoint: what is there, and what gets or explains the rest.",
        parents=[common],
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {version('samref-sweep')}")
    commands = made.add_subparsers(dest="command", metavar="show|verify|download")
    for carry_out, names, what, split in (
        (show, (*FAMILIES, *OFFICIAL), "say all about datasets and checkpoints", ""),
        (verify, FAMILIES, "read every image and mask of datasets", "only this split (default: all it has)"),
        (
            download,
            (*ARCHIVES, *(name for name, official in OFFICIAL.items() if official.source)),
            "fetch and unpack datasets, fetch checkpoints",
            "only what this split needs (default: all)",
        ),
    ):
        own = commands.add_parser(carry_out.__name__, help=what, description=carry_out.__doc__, parents=[common])
        own.set_defaults(carry_out=carry_out)
        own.add_argument("names", metavar="NAME", nargs="+", help=f"one of {', '.join(names)}")
        if split:
            own.add_argument("--split", choices=("train", "val"), help=split)
    return made


def table(root: Path) -> None:
    """Print a line for each dataset, split and checkpoint as soon as it is known: large sets take seconds to open."""
    print(f"{'dataset':<19}{'split':<6}{'objects':>7}  state")
    for name, family in FAMILIES.items():
        if name.endswith(":NAME"):
            print(f"{name:<19}{'':<15}{family.source}")
        for split, published in family.published.items():
            size = ""
            try:
                samples = len(open_dataset(name, split=split, data_root=root).samples)
            except MissingDataError:
                state = f"not here: samref-data {'download' if name in ARCHIVES else 'show'} {name}"
            except DataError:
                state = f"not usable: samref-data show {name}"
            else:
                size, state = str(samples), "present"
                if published is not None:
                    state += ", as published" if samples == published else f" (published: {published})"
            print(f"{name:<19}{split:<6}{size:>7}  {state}", flush=True)
    print(f"\n{'checkpoint':<19}{'size':>13}  state")
    for name, official in OFFICIAL.items():
        state, size = "present", readable_size(official.source.size) if official.source and official.source.size else ""
        if missing(ModelConfig(backbone=name), Runtime().checkpoints) is not None:
            state = f"not here: samref-data {'download' if official.source else 'show'} {name}"
        print(f"{name:<19}{size:>13}  {state}", flush=True)


def show(name: str, _: object, root: Path) -> None:
    """Print all there is to say of a dataset or a checkpoint: what is there or missing, where it lies or comes from."""
    if official := OFFICIAL.get(name):
        folder = Runtime().checkpoints
        size = f"{readable_size(official.source.size)}, " if official.source and official.source.size else ""
        if missing(ModelConfig(backbone=name), folder) is None:
            state = f"present: {folder / official.file}"
        elif official.source is None:
            state = f"not here: put {official.file} into {folder}; it is at {official.page} ({official.licence})"
        else:
            state = f"not here: samref-data download {name} ({size}{official.licence})"
        print(f"{name:<18} {state}")
        return
    family = family_of(name)
    alone: dict[Split, int | None] = {"val": None}
    for split, published in (family.published or alone).items():
        label = f"{name:<14} {split:<5}"
        try:
            dataset = open_dataset(name, split=split, data_root=root)
        except DataError as error:
            # The error tells what is missing and where to get it.
            print(f"{label} not usable: {error}", flush=True)
        else:
            print(f"{label} present: {_size(dataset, published)}", flush=True)
            for note in dataset.notes():
                print(f"  note: {note}", flush=True)


def verify(name: str, splits: Sequence[Split] | None, root: Path) -> None:
    """Read every image and mask of a dataset; one line for each split and for what is odd, or the first wrong thing.

    Where the packaging of a published dataset is known, another line says whether the files are those.
    """
    family = family_of(name)
    # A folder of the user's own has one list, or two that it splits into, and no published number.
    for split in splits or tuple(family.published) or (BOTH if "?split=" in name or "&split=" in name else ("val",)):
        dataset = open_dataset(name, split=split, data_root=root)
        with ProgressLine(f"{name} {split}", "images") as progress:
            check(dataset, progress)
        print(f"{name} {split}: {_size(dataset, family.published.get(split))}; all read", flush=True)
        for note in dataset.notes():
            print(f"  note: {note}", flush=True)
    if said := packaging(name, root):
        print(f"{name}: {said}", flush=True)


def download(name: str, splits: Sequence[Split] | None, root: Path) -> None:
    """Fetch a dataset into the data root, unpack and verify it; or a checkpoint into SAMREF_CHECKPOINTS.

    What is cut off goes on where it was; what is there already is left alone.
    """
    if name in OFFICIAL:
        with ProgressLine(name) as progress:
            path = obtain(ModelConfig(backbone=name), Runtime().checkpoints, progress)
        print(f"{name}: {path}, SHA-256 as published" if OFFICIAL[name].source else f"{name}: {path}", flush=True)
        return
    near = difflib.get_close_matches(name, OFFICIAL, n=1)
    if near and not difflib.get_close_matches(name, FAMILIES, n=1):
        raise CheckpointError(f"{name} is not a checkpoint. Did you mean {near[0]}? There are: {', '.join(OFFICIAL)}.")
    family = family_of(name)
    if name not in ARCHIVES:
        raise DataError(f"{name}: nothing to download: {family.source}")
    wanted = splits or tuple(family.published)
    lacking = [split for split in wanted if not _complete(name, split, root, family.published.get(split))]
    for split in set(wanted) - set(lacking):
        print(f"{name} {split}: present, nothing to download", flush=True)
    if lacking:
        fetch(name, lacking, root, lambda text: print(text, flush=True))
        verify(name, lacking, root)


def _complete(name: str, split: Split, root: Path, published: int | None) -> bool:
    """Whether a dataset opens with the published number of samples."""
    try:
        samples = open_dataset(name, split=split, data_root=root).samples
    except DataError:
        return False
    return published is None or len(samples) == published


def _size(dataset: Dataset, published: int | None) -> str:
    samples = len(dataset.samples)
    images = len({sample.image_key for sample in dataset.samples})
    note = "" if published is None else " (as published)" if samples == published else f" (published: {published})"
    return f"{samples} samples{note} of {images} images"


if __name__ == "__main__":
    sys.exit(main())
