"""Fingerprints of what a sweep names (datasets, checkpoints), and the check that all of it can be read.

Reading takes long, so each dataset is opened once, its hashes are kept in the store's `fingerprints` folder, and what
was checked with a fingerprint is not checked again.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import samref.backbones
import samref.data
from samref import plugins
from samref.backbones import checkpoints
from samref.config import EvaluateConfig, ModelConfig, Runtime, TrialConfig
from samref.data import DataError, Dataset, MissingDataError
from samref.data.hashes import FileHashes
from samref.progress import ProgressLine, readable_size
from samref.trial import STARTS

Split = Literal["train", "val"]
TRAIN: Split = "train"
VAL: Split = "val"


class Contents:
    """`samref.trial.Fingerprints` of files on this machine."""

    def __init__(self, runtime: Runtime, cache: Path | None) -> None:
        self.missing: dict[str, str] = {}
        """Dataset that is not here → why; it has a placeholder for a fingerprint, good for a plan only."""
        self.notes: dict[str, None] = {}
        """What is odd about the datasets that could be opened (`Dataset.notes`), or has fewer samples than were asked
        for; each line once."""
        self.said: dict[Path, str] = {}
        """Checkpoint → what is taken off it before its names are its backbone's, in one line."""
        self._runtime = runtime
        self._cache = cache
        self._datasets: dict[str, Dataset] = {}
        self._data: dict[tuple[str, Split, int | None], str] = {}
        self._starts: dict[tuple[Any, ...], Mapping[str, str]] = {}
        self._checkpoints: dict[ModelConfig, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def data(self, name: str, split: Split, samples: int | None) -> str:
        """Fingerprint of a dataset's chosen samples, or `missing:…`, which `missing` explains.

        Raises DataError: the dataset is here and cannot be one; its name has no meaning.
        """
        key = (name, split, samples)
        if key not in self._data:
            try:
                dataset = samref.data.open_dataset(
                    name, split=split, data_root=self._runtime.data_root, samples=samples, cache=self._cache
                )
                self._data[key] = dataset.fingerprint()
                self._datasets[self._data[key]] = dataset
                self.notes |= {f"{name}: {note}": None for note in dataset.notes()}
                if samples is not None and (count := len(dataset.samples)) < samples:
                    self.notes[f"{name}: {samples} samples were asked for, and it has {count}: all are used"] = None
            except MissingDataError as error:
                self.missing.setdefault(name, str(error))
                self._data[key] = f"missing:{name}:{split}:{samples}"
        return self._data[key]

    def starts(self, evaluate: EvaluateConfig) -> Mapping[str, str]:
        """Fingerprints of what an evaluation begins with, or `missing:…`, which `missing` explains.

        Raises DataError: what is named is here, and not what it should be.
        """
        from samref.starts import Starts  # of Numba, which most plans do without

        names = {name: value for name in STARTS if (value := getattr(evaluate, name)) is not None}
        fingerprint = self.data(evaluate.data, VAL, evaluate.samples)
        key = (fingerprint, *names.items())
        if names and key not in self._starts:
            try:
                starts = Starts.open(evaluate, self._runtime.data_root, cache=self._cache)
                hashes = FileHashes(self._cache)
                self._starts[key] = starts.contents(self._datasets[fingerprint].samples, hashes)
                hashes.save()
            except MissingDataError as error:
                self.missing.setdefault(evaluate.data, str(error))
                self._starts[key] = {name: f"missing:{value}" for name, value in names.items()}
        return self._starts[key] if names else {}

    def samples(self, name: str, split: Split, samples: int | None) -> tuple[str, ...] | None:
        """Keys of a dataset's samples; None where it cannot be opened."""
        dataset = self._datasets.get(self.data(name, split, samples))
        return tuple(sample.key for sample in dataset.samples) if dataset else None

    def size(self, name: str, split: Split, samples: int | None) -> tuple[int, int] | None:
        """Images and samples of a dataset; None where it cannot be opened."""
        fingerprint = self.data(name, split, samples)
        dataset = self._datasets.get(fingerprint)
        if dataset is None:
            return None
        if fingerprint not in self._sizes:
            self._sizes[fingerprint] = (len({sample.image_key for sample in dataset.samples}), len(dataset.samples))
        return self._sizes[fingerprint]

    def warnings(self, configs: Iterable[TrialConfig]) -> tuple[str, ...]:
        """Say what is odd about datasets and checkpoints, and which images of evaluations are trained on."""
        pairs = dict.fromkeys(
            ((train.data, train.samples), (config.evaluate.data, config.evaluate.samples))
            for config in configs
            for train in config.trainings
        )
        overlaps = (self._overlap(*pair) for pair in pairs)
        return (*self.notes, *self.said.values(), *(text for text in overlaps if text))

    def _overlap(self, trained: tuple[str, int | None], evaluated: tuple[str, int | None]) -> str:
        """Say how many images two datasets, each with its number of samples, have in common; empty for none."""
        train, val = (
            self._datasets.get(self.data(name, split, samples))
            for (name, samples), split in ((trained, TRAIN), (evaluated, VAL))
        )
        if train is None or val is None:
            return ""
        images = val.image_digests()
        shared = len(images & train.image_digests())
        if not shared:
            return ""
        return (
            f"{shared} of the {len(images)} images of evaluate.data {evaluated[0]} are also in train.data "
            f"{trained[0]}: what is evaluated was trained on"
        )

    def checkpoint(self, model: ModelConfig) -> str:
        """Fingerprint of the backbone's first weights, whose names and shapes are compared with the backbone's.

        Raises CheckpointError: a file that the model names is not there, or not its backbone's.
        """
        if model not in self._checkpoints:
            found = checkpoints.fingerprint(model, self._runtime.checkpoints)
            if path := checkpoints.given(model):
                self._compare(model, path, found)
            self._checkpoints[model] = found
        return self._checkpoints[model]

    def _compare(self, model: ModelConfig, path: Path, fingerprint: str) -> None:
        def compare() -> str:
            from samref.backbones import state_dicts  # of torch, which most plans do without

            return state_dicts.compare(model.backbone, path, model.options)

        if said := self._once(f"names {_identity(model)} {fingerprint}", compare):
            self.said[path] = f"{path}: {said}"

    def downloads(self, models: Iterable[ModelConfig]) -> list[str]:
        """What a run needs of the network first, in words: which checkpoints, how much; nothing is downloaded."""
        folder = self._runtime.checkpoints
        lacking = {
            official.file: official for model in models if (official := checkpoints.missing(model, folder)) is not None
        }
        automatic = [official.source for official in lacking.values() if official.source]
        by_hand = [official for official in lacking.values() if not official.source]
        lines = [f"{official.file} is not in {folder}; get it at {official.page}" for official in by_hand]
        if automatic:
            size = readable_size(sum(source.size or 0 for source in automatic))
            names = ", ".join(source.name for source in automatic)
            lines.append(f"a run downloads {size} to {folder} first: {names}")
        return lines

    def check(self, models: Iterable[ModelConfig]) -> None:
        """Read every dataset that was asked for and the checkpoints of `models`, before time is spent on them.

        Official checkpoints that are not here yet are downloaded, with progress on stderr. Raises ValueError: something
        is missing or broken; one line that names the file.
        """
        for reason in self.missing.values():
            raise DataError(reason)
        for fingerprint, dataset in self._datasets.items():
            self._once(fingerprint, partial(samref.data.check, dataset))
        folder = self._runtime.checkpoints
        # What is here, or cannot be fetched, is looked at before gigabytes are waited for.
        for model in sorted(dict.fromkeys(models), key=lambda model: checkpoints.downloadable(model, folder)):
            with ProgressLine(model.backbone) as progress:
                path = checkpoints.obtain(model, folder, progress)
            if plugins.is_plugin(model.backbone):
                self._once(f"builds {_identity(model)} {model.refiner}", partial(_build, model))
            if path is not None:
                self._once(f"values {_identity(model)} {self.checkpoint(model)}", partial(_load, model, path))

    def _once(self, key: str, check: Callable[[], str | None]) -> str:
        """What a check says that raises what is wrong; where it went well before, the cache has it."""
        marker = self._cache / f"checked-{hashlib.sha256(key.encode()).hexdigest()[:16]}" if self._cache else None
        with contextlib.suppress(OSError):
            if marker:
                return marker.read_text().partition("\n")[2].strip()
        said = check() or ""
        if marker:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(f"{key}\n{said}\n" if said else f"{key}\n")
        return said


def _identity(model: ModelConfig) -> str:
    """A backbone's name, and of one of a person's own what else it is."""
    own = plugins.is_plugin(model.backbone)
    return f"{model.backbone} {samref.backbones.revision(model.backbone)} {model.options}" if own else model.backbone


def _build(model: ModelConfig) -> None:
    """Build a backbone of a person's own, and the refiner on it where it is to have one; raises what is wrong."""
    from samref.refiner import SamRef  # of torch, which most plans do without

    try:
        SamRef(samref.backbones.build(model.backbone, model.options), model)
    except ValueError as error:
        raise plugins.PluginError(str(error)) from None


def _load(model: ModelConfig, path: Path) -> None:
    """Load a checkpoint into its backbone; raises what is wrong with it."""
    from samref.backbones import state_dicts  # of torch, which most plans do without

    state_dicts.load(samref.backbones.build(model.backbone, model.options), path, model.backbone)
