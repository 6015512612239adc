"""The library: evaluate a network, load one that a sweep trained, and click with it.

    import samref
    found = samref.evaluate("tiny", "davis", data_root="data")
    found.metrics["noc_at_90"], found.clicks["iou"]
    session = samref.load("runs", "trial-3f2a").session(image)
    mask = session.click(120, 80)

The same code as a sweep's stages, so the same numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samref import plugins, waves, weights
from samref.backbones.backbone import Backbone, Resize
from samref.clickloop import ClickLoop, Trajectory
from samref.clicks import Click
from samref.config import BOX, EvaluateConfig, ModelConfig, Runtime
from samref.data import Dataset, Sample, open_dataset
from samref.data.own import OwnDataset
from samref.embeddings import TORCH, Embeddings
from samref.errors import UserError
from samref.evaluation import before, columns, headline
from samref.image_files import is_rgb
from samref.judging import above
from samref.precision import autocast, products
from samref.progress import ProgressLine
from samref.refiner import SamRef
from samref.refiner.selector import error_ratio, paste_on_global
from samref.stage import Stage
from samref.starts import Starts
from samref.thetas import Thetas, at
from samref.trial import check_code

Pairs = tuple[Sequence[NDArray[np.uint8]], Sequence[NDArray[Any]]]
"""Images, H×W×3 RGB, and as many truths, H×W: bools, or int8 with 1 object, 0 background, -1 ignored."""


_WAVE = 16
"""Samples that a GPU plays at once."""


class LoadError(UserError, ValueError):
    """A trial's network cannot be loaded; one line that says what to do."""


@dataclass(frozen=True)
class Model:
    """A network with its weights, ready to be evaluated or clicked with."""

    network: SamRef
    config: ModelConfig
    runtime: Runtime

    def session(self, image: NDArray[np.uint8], *, theta: float = 1.1) -> Session:
        """Click on an image, H×W×3 uint8, RGB; θ is the threshold of the dynamic selector."""
        return Session(self, image, theta)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: Mapping[str, float | int]
    """Name → value, as docs/results.md explains the names."""
    clicks: Mapping[str, NDArray[Any]]
    """Column → one entry a click, as clicks.npz has them: sample (index), click (from 1), x, y, positive, iou,
    boundary_iou, pasted_on, error_ratio."""
    samples: tuple[str, ...]
    """The samples' keys, by index."""


def model(
    backbone: str = "sam_vit_h", *, device: str = "auto", weights_from: Path | None = None, **settings: Any
) -> Model:
    """A network by its settings.

    Args:
        backbone: one of `samref.backbones.names()`, or one's own (docs/extending.md).
        device: cpu, cuda, cuda:1, or auto.
        weights_from: output folder of a training, whose weights replace the checkpoint's.
        settings: others of `samref.config.ModelConfig`: `refiner="none"`, `checkpoint="none"`, `options={…}`.

    Raises:
        ValueError: a setting or checkpoint is wrong; one line that says what to do.
    """
    name = plugins.beside(backbone, Path.cwd())
    config, runtime = ModelConfig.of(backbone=name, **settings), Runtime(device=device)
    return Model(weights.build_model(config, runtime, weights=weights_from), config, runtime)


def load(store: str | Path, trial: str, *, device: str = "auto") -> Model:
    """The network that a trial of a sweep evaluated.

    Args:
        store: the folder of finished stages, as a sweep's `--store`.
        trial: the trial's id or its beginning (`trial-3f2a`), or the id of a stage that trained or evaluated.
        device: cpu, cuda, cuda:1, or auto.

    Raises:
        LoadError: there is no such trial, or more than one; or its stages are not done.
    """
    root = Path(store)
    name = _evaluation_of(root, trial) if trial.startswith("trial") else trial
    folder = root / "stages" / name
    try:
        stage = Stage.from_json(json.loads((folder / "summary.json").read_text())["stage"])
    except (OSError, ValueError, KeyError):
        raise LoadError(f"{folder}: no finished stage is there; run its sweep to the end") from None
    trained = folder if stage.kind == "train" else None
    if stage.kind != "train" and "weights" in stage.needs:
        trained = root / "stages" / stage.needs["weights"]
    check_code(stage)
    config, runtime = stage.model, Runtime(device=device)
    return Model(weights.build_model(config, runtime, weights=trained), config, runtime)


def _evaluation_of(root: Path, trial: str) -> str:
    found: dict[str, str] = {}
    for file in sorted((root / "trials").glob("*.json")):
        found |= {name: stage for name, stage in json.loads(file.read_text()).items() if name.startswith(trial)}
    if len(found) != 1:
        known = ", ".join(sorted(found)[:4]) or "none"
        raise LoadError(
            f"{root}: {len(found)} trials begin with {trial} ({known}); give one trial's id, as tables have it"
        )
    return found.popitem()[1]


def evaluate(
    model_or_name: Model | str,
    data: str | Dataset | Pairs,
    *,
    clicks: int = 20,
    theta: float = 1.1,
    data_root: str | Path = "data",
    progress: bool = False,
    **settings: Any,
) -> Evaluation:
    """Evaluate a network click by click, as a sweep does.

    Args:
        model_or_name: of `model` or `load`; the name of a backbone is that backbone without a refiner.
        data: a dataset's name, a dataset, or (images, truths).
        clicks: on each sample.
        theta: threshold θ of the dynamic selector.
        data_root: the folder of datasets, for a name.
        progress: whether stderr says how far it is.
        settings: others of `samref.config.EvaluateConfig`: `clicker`, `start`, `stop_at`, `seed`.

    Raises:
        ValueError: something that is given is wrong; one line that says what to do.
    """
    own = model(model_or_name, refiner="none") if isinstance(model_or_name, str) else model_or_name
    if isinstance(data, str):
        data = plugins.beside(data, Path.cwd())
    named: dict[str, Any] = {"data": data} if isinstance(data, str) else {}
    if isinstance(clicker := settings.get("clicker"), str):
        settings["clicker"] = plugins.beside(clicker, Path.cwd())
    if twice := settings.keys() & {"max_clicks", "data"}:
        raise ValueError(f"{' and '.join(sorted(twice))}: say it with clicks, or as the second argument")
    config = EvaluateConfig.of(theta=theta, max_clicks=clicks, **named, **settings)
    if isinstance(data, str):
        dataset = open_dataset(data, split="val", data_root=Path(data_root), samples=config.samples)
    else:
        inner: Any = _Pairs(*data) if isinstance(data, tuple) else data
        dataset = OwnDataset("the data that was given", inner, samples=config.samples)
    starts = _starts(config, Path(data_root), named=isinstance(data, str))
    device = own.runtime.resolve_device()
    at_once, threads = (1, os.cpu_count() or 1) if device == "cpu" else (_WAVE, 1)
    loop = ClickLoop(own.network, config, Thetas.of([config]), batch=at_once, together=at_once > 1)
    features = _Encoded(own, dataset, config.resize)

    def play(first: int) -> list[Trajectory]:
        positions = range(first, min(first + at_once, len(dataset.samples)))
        reads = [waves.read(dataset, at, own.network, features, config.resize, starts) for at in positions]
        with autocast(device, config.precision):
            wave = waves.assemble(first, waves.stack(reads, together=at_once > 1), own.network, device)
            return [at(pieces, config.theta) for pieces in loop.run(wave)[0]]

    paths: list[Trajectory] = []
    # One thread of torch for each of ours, as in a sweep, whose clicks these are.
    with (
        _threshold(own.network.backbone, config.threshold),
        products(config.precision),
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ProgressLine("evaluate", "samples") as line,
    ):
        for found in pool.map(play, range(0, len(dataset.samples), at_once)):
            paths += found
            if progress:
                line(len(paths), len(dataset.samples))
    records, keys = [path.records for path in paths], tuple(sample.key for sample in dataset.samples)
    return Evaluation({**headline(records, config), **before(paths)}, columns(records), keys)


def _starts(config: EvaluateConfig, data_root: Path, *, named: bool) -> Starts:
    """What an evaluation begins with; only data that has a name has files for it."""
    given = config.first_clicks or (config.start if config.start != BOX else None)
    if given and not named:
        raise ValueError(f"clicks begin with {given}, a file for data that has a name; give the data's name")
    return Starts.open(config, data_root)


@contextmanager
def _threshold(backbone: Backbone, probability: float | None) -> Iterator[None]:
    """Take a protocol's own threshold of masks for the block; None: the backbone's."""
    before = backbone.threshold
    if probability is not None:
        backbone.threshold = math.log(probability / (1 - probability))
    try:
        yield
    finally:
        backbone.threshold = before


class _Encoded(Embeddings):
    """Features of images that are encoded when they are asked for, rounded as a sweep's cache rounds them."""

    def __init__(self, model: Model, dataset: Dataset, resize: Resize) -> None:
        self._resize = resize
        self._backbone, self._config = model.network.backbone, model.config
        self._precision, self._device = model.config.precision, model.runtime.resolve_device()
        self._dataset = dataset
        self._encoded = lru_cache(2 * (os.cpu_count() or 1))(self._encode)  # several objects have one image

    def stored(self, image_keys: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode one image, or take it from what was encoded last."""
        (key,) = image_keys
        return {name: feature.cpu() for name, feature in self._encoded(key).items()}

    @torch.inference_mode()
    def _encode(self, key: str) -> dict[str, torch.Tensor]:
        image = torch.from_numpy(np.ascontiguousarray(self._dataset.image(key).transpose(2, 0, 1)))
        input_13SS = self._backbone.resize(image, self._resize)[None].to(self._device)
        with products(self._precision), autocast(self._device, self._precision):
            return _rounded(self._backbone, input_13SS, self._config)


def _rounded(backbone: Backbone, input_13SS: torch.Tensor, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The features of an image, as a sweep's embeddings keep them, in float32."""
    features = backbone.encode(input_13SS.float())
    if backbone.features_are_images:
        return features
    return {name: feature.to(TORCH[config.embedding_precision]).float() for name, feature in features.items()}


class _Pairs:
    def __init__(self, images: Sequence[NDArray[np.uint8]], truths: Sequence[NDArray[Any]]) -> None:
        if len(images) != len(truths):
            raise ValueError(f"there are {len(images)} images and {len(truths)} truths; give as many of each")
        self._images, self._truths = images, truths
        self.samples = [Sample(str(number), str(number)) for number in range(len(images))]

    def image(self, image_key: str) -> NDArray[np.uint8]:
        return self._images[int(image_key)]

    def truth(self, key: str) -> NDArray[np.int8]:
        truth = self._truths[int(key)]
        return truth.astype(np.int8) if truth.dtype == np.bool_ else truth


class Session:
    """Single clicks on one image: each gives a mask."""

    def __init__(self, model: Model, image: NDArray[np.uint8], theta: float) -> None:
        """Encode the image, H×W×3 uint8, RGB."""
        if not is_rgb(image):
            seen = f"{image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image)
            raise ValueError(f"the image is {seen}; give H×W×3 uint8, RGB")
        self._network, self._theta = model.network, theta
        device = model.runtime.resolve_device()
        image_3HW = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        input_13SS = self._network.backbone.resize(image_3HW, "stretch")[None].to(device)
        self._frame = image.shape[:2]
        with torch.inference_mode(), products("fp32"):
            features = _rounded(self._network.backbone, input_13SS, model.config)
            self._context = self._network.prepare(features, input_13SS, [image_3HW.to(device)])
        self.reset()

    def reset(self) -> None:
        """Begin anew on the same image."""
        self.clicks: list[Click] = []
        self.mask: NDArray[np.bool_] = np.zeros(self._frame, bool)
        self._coarse: torch.Tensor | None = None
        self._result: torch.Tensor | None = None
        self._area = torch.full((1,), -1)

    @torch.inference_mode()
    def click(self, x: int, y: int, positive: bool = True) -> NDArray[np.bool_]:
        """The mask, H×W, after one more click on the pixel in column x and row y.

        Raises ValueError: the click lies outside the image.
        """
        height, width = self._frame
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"({x}, {y}) lies outside the image of {width}×{height} px")
        self.clicks.append(Click(x, y, positive))
        network, previous = self._network, self._result
        with products("fp32"):
            made = network(
                self._context, [self.clicks], self._coarse, None if previous is None else [previous], [self._frame]
            )
        on_global = True
        if made.error_area_B is not None:
            on_global = paste_on_global(float(error_ratio(made.error_area_B, self._area)[0]), self._theta)
            self._area = made.error_area_B
        self._coarse, logits = made.coarse_B1MM, made.result_B1MM[0, 0]
        if made.patch is not None:
            logits = self._result = network.paste(made, 0, None if on_global else previous, self._frame)
        self.mask = above(logits.float().cpu().numpy(), self._frame, network.backbone.threshold)
        return self.mask
