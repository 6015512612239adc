"""Fingerprints of what a sweep names (datasets, checkpoints), and the check that all of it can be read.

Reading is dear, so each dataset is opened once, its hashes are kept in the store's `fingerprints` folder, and what
was checked with a fingerprint is not checked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import samref.backbones
import samref.data
from samref.backbones import checkpoints
from samref.config import ModelConfig, Runtime
from samref.data import DataError, Dataset
from samref.progress import ProgressLine, readable_size

Split = Literal["train", "val"]


class Contents:
    """`samref.trial.Fingerprints` of files on this machine."""

    def __init__(self, runtime: Runtime, cache: Path | None) -> None:
        self.missing: dict[str, str] = {}
        """Dataset that cannot be opened → why; it has a placeholder for a fingerprint, good for a plan only."""
        self.said: dict[Path, str] = {}
        """Checkpoint → what is taken off it before its names are its backbone's, in one line."""
        self._runtime = runtime
        self._cache = cache
        self._datasets: dict[str, Dataset] = {}
        self._data: dict[tuple[str, Split, int | None], str] = {}
        self._checkpoints: dict[ModelConfig, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def data(self, name: str, split: Split, samples: int | None) -> str:
        """Fingerprint of a dataset's chosen samples, or `missing:…`, which `missing` explains."""
        key = (name, split, samples)
        if key not in self._data:
            try:
                dataset = samref.data.open_dataset(
                    name, split=split, data_root=self._runtime.data_root, samples=samples, cache=self._cache
                )
                self._data[key] = dataset.fingerprint()
                self._datasets[self._data[key]] = dataset
            except DataError as error:
                self.missing.setdefault(name, str(error))
                self._data[key] = f"missing:{name}:{split}:{samples}"
        return self._data[key]

    def size(self, name: str, split: Split, samples: int | None) -> tuple[int, int] | None:
        """Images and samples of a dataset; None where it cannot be opened."""
        fingerprint = self.data(name, split, samples)
        dataset = self._datasets.get(fingerprint)
        if dataset is None:
            return None
        if fingerprint not in self._sizes:
            self._sizes[fingerprint] = (len({sample.image_key for sample in dataset.samples}), len(dataset.samples))
        return self._sizes[fingerprint]

    def checkpoint(self, model: ModelConfig) -> str:
        """Fingerprint of the backbone's first weights, whose names and shapes are compared with the backbone's.

        Raises:
            CheckpointError: a file that the model names is not there, or not its backbone's.
        """
        if model not in self._checkpoints:
            found = checkpoints.fingerprint(model, self._runtime.checkpoints)
            if path := checkpoints.given(model):
                self._compare(model.backbone, path, found)
            self._checkpoints[model] = found
        return self._checkpoints[model]

    def _compare(self, backbone: str, path: Path, fingerprint: str) -> None:
        key = f"names {backbone} {fingerprint}"
        marker = self._marker(key)
        try:
            said = marker.read_text().partition("\n")[2].strip() if marker else None
        except OSError:
            said = None
        if said is None:
            from samref.backbones import state_dicts  # of torch, which most plans do without

            said = state_dicts.compare(backbone, path)
            self._remember(key, said)
        if said:
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

        Official checkpoints that are not here yet are downloaded, with progress on stderr.

        Raises:
            ValueError: something is missing or broken; one line that names the file.
        """
        for reason in self.missing.values():
            raise DataError(reason)
        for fingerprint, dataset in self._datasets.items():
            if self._first_time(fingerprint):
                samref.data.check(dataset)
                self._remember(fingerprint)
        folder = self._runtime.checkpoints
        # What is here, or cannot be fetched, is looked at before gigabytes are waited for.
        for model in sorted(dict.fromkeys(models), key=lambda model: checkpoints.downloadable(model, folder)):
            with ProgressLine(model.backbone) as progress:
                path = checkpoints.obtain(model, folder, progress)
            key = f"values {model.backbone} {self.checkpoint(model)}"
            if path is not None and self._first_time(key):
                from samref.backbones import state_dicts

                state_dicts.load(samref.backbones.build(model.backbone), path, model.backbone)
                self._remember(key)

    def _marker(self, key: str) -> Path | None:
        name = f"checked-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return self._cache / name if self._cache else None

    def _first_time(self, key: str) -> bool:
        marker = self._marker(key)
        return marker is None or not marker.exists()

    def _remember(self, key: str, said: str = "") -> None:
        if marker := self._marker(key):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(f"{key}\n{said}\n" if said else f"{key}\n")
