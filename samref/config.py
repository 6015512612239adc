"""The settings of one trial, and where it runs.

A trial has the parts `model`, `train`, `evaluate` and `profile`; whatever stands in them may change a number and
is hashed into the ids of the stages that it touches. `Runtime` holds what must not change a number (device,
folders, threads) and is in no id. Knows nothing of YAML, stages or sweeps.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from samref import plugins
from samref.errors import UserError
from samref.folder_name import leak
from samref.part import Added, Number, Options, Part, Theta, Whole
from samref.user_paths import absolute, home

Module = Literal["encoder", "decoder", "refiner"]
Precision = Literal["fp32", "tf32", "bf16"]


class ModelConfig(Part):
    """Which network: the backbone, its weights, and SAM-REF's refiner on top."""

    backbone: str = "sam_vit_h"
    """Name of the backbone; `samref.backbones.names()` lists them. One of your own: `mylab.nets:build`, or
    `./nets.py:build` beside the sweep file; one of Hugging Face's: `hf:NAME`, or a folder, `hf:./weights/mine`
    (docs/extending.md)."""
    options: Annotated[dict[str, JsonValue], AfterValidator(Options), Added(as_before={})] = Field(
        default_factory=dict, validate_default=True
    )
    """Keyword arguments of a backbone of your own, of which each is a setting: `model.options.width: [32, 64]`."""
    checkpoint: str = "auto"
    """`auto`: the official weights, downloaded where they are not there, or those with which a backbone of your own is
    built; `none`: random weights (marked in every table); else the path of a file with a state dict. Entries that wrap
    it (`model`, `state_dict`) and prefixes of all its names (`module.`) are taken off, and said."""
    freeze_backbone: bool = True
    """Keep the image encoder as it is and train from cached embeddings; false also trains the encoder."""
    refiner: Literal["none", "gfr", "gfr+lfr"] = "gfr+lfr"
    """The refiner on top of the backbone: none, the global stage alone, or global and local (SAM-REF)."""
    refiner_blocks: int = Field(3, ge=1, le=32)
    """Residual fusion blocks in each refiner; the paper ablates 1, 3, 5 and 8."""
    refiner_width: int = Field(64, ge=16, le=512, multiple_of=16)
    """Channels of the refiner's working grid."""
    patch_size_px: int = Field(256, ge=32, le=1024, multiple_of=32)
    """Side of the patch that the local stage refines."""
    click_radius_px: int = Field(5, ge=1, le=64)
    """Radius of the click disks that the refiner sees, in pixels of the network's input."""
    error_threshold: Number = Field(0.5, gt=0, lt=1)
    """Probability above which a pixel counts as predicted error in R_e."""
    multimask: Literal["never", "first", "always"] = "never"
    """At which clicks the decoder offers three masks and the one of best predicted IoU is taken."""
    precision: Precision = "fp32"
    """Arithmetic of the image encoder; of everything in the profile."""
    embedding_precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    """Storage of cached embeddings."""
    seed: Whole = Field(0, ge=0)
    """Seed of random backbone weights, where no checkpoint is loaded."""


class TrainConfig(Part):
    """One training; defaults are the paper's for COCO+LVIS (supplement, training details)."""

    data: str = "coco_lvis"
    """Dataset to train on; `folder:NAME` takes any pair of folders NAME/images, NAME/masks below the data root, and
    `folder:NAME?split=0.8` four fifths of it (docs/data.md); `mylab.data:open` is one of your own
    (docs/extending.md)."""
    samples: Whole | None = Field(None, ge=1)
    """Use at most this many samples, evenly spaced over the dataset; null: all."""
    resize: Literal["pad", "stretch"] = "pad"
    """How a training image becomes the network's square input; evaluation always stretches (paper, supplement)."""
    modules: tuple[Module, ...] = Field(("decoder", "refiner"), strict=False)
    """What is trained. `model.freeze_backbone: false` adds the encoder."""
    init: TrainConfig | None = None
    """An earlier training whose weights this one starts from; it is a stage of its own, shared by equal `init`s."""
    steps: int = Field(80_000, ge=0, le=2**31 - 1)
    """Optimiser steps; 0 trains nothing."""
    batch_size: Whole = Field(16, ge=1)
    """Samples of one step, over all devices and accumulations."""
    accumulation: Whole = Field(1, ge=1)
    """Equal parts in which each process works its samples of a step, one after the other, to save memory."""
    gamma: Number = Field(0.6, ge=0, le=1)
    """Click simulation: n extra rounds are drawn with probability proportional to gamma^n (paper, γ)."""
    max_clicks: int = Field(20, ge=0, le=100)
    """Largest number n of extra click rounds."""
    theta: Theta = 1.1
    """θ of the selector inside the simulated rounds, whatever θ is evaluated later; `.inf` as in the evaluation."""
    learning_rate: Number = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    warmup_learning_rate: Number = Field(1e-6, ge=0)
    """Learning rate at step 0."""
    warmup_steps: Whole = Field(1500, ge=0)
    """Steps of linear warm-up."""
    decay_power: Number = Field(1.0, ge=0)
    """Power of the polynomial decay to zero."""
    weight_decay: Number = Field(0.05, ge=0)
    """Decoupled weight decay."""
    gradient_clip: Number | None = Field(None, gt=0)
    """Clip the gradient's global norm; null: no clipping."""
    ema: Number | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is written; null: none."""
    augment: bool = False
    """Random flip and resized crop of the training images; impossible with cached embeddings."""
    precision: Precision = "fp32"
    """Arithmetic of the training steps."""
    seed: Whole = Field(0, ge=0)
    """Seed of the data order, the simulated clicks, and the refiner's first weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.modules)) != len(self.modules):
            raise ValueError(f"modules names one twice: {list(self.modules)}")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation is {self.accumulation}, which does not divide batch_size {self.batch_size}; "
                "every part of a batch must be of one size"
            )
        if self.steps and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, but there are only {self.steps} steps; "
                "set it below steps (the learning rate would never reach its peak)"
            )
        return self


CLICKERS = ("ritm", "interformer", "jitter", "uniform", "distance")
"""The clickers that come with this package."""


BOX = "box"
"""The `start` of an evaluation that begins with the object's box."""


def _known_clicker(name: Any) -> Any:
    if name not in CLICKERS and not (isinstance(name, str) and plugins.is_plugin(name)):
        raise ValueError(
            f"{name!r} is no clicker; there are {', '.join(CLICKERS)}, and your own, as mylab.clicks:next_click"
        )
    return name


class EvaluateConfig(Part):
    """One click-loop evaluation; defaults are the published protocol."""

    data: str = "davis"
    """Dataset to evaluate on; `folder:NAME` as in training, and `folder:NAME?split=0.8` the other fifth."""
    samples: Whole | None = Field(None, ge=1)
    """Use at most this many samples, evenly spaced over the dataset; null: all."""
    theta: Theta = 1.1
    """Threshold θ of the dynamic selector: R_e < θ pastes on the global result, else on the previous one; with `.inf`
    always on the global one."""
    curve: Annotated[tuple[Number, ...] | None, Field(strict=False), Added(as_before=None)] = None
    """`[1.0, 1.5]` plays every θ from the first number to the second, both included, in one go: the exact curve
    (curves.parquet), beside the trial's own result at `theta`, which lies between them. A third number takes only
    every θ that far from the one before, where the paths of all would be too many. null: `theta` alone."""
    max_clicks: int = Field(20, ge=1, le=100)
    """Clicks per sample."""
    clicker: Annotated[
        Literal["ritm", "interformer", "jitter", "uniform", "distance"] | Annotated[str, Field(pattern=":")],
        BeforeValidator(_known_clicker),
    ] = "ritm"
    """Whose rule places the next click: a published one, on the deepest pixel of the larger error; or a stress test:
    that pixel moved by noise, or any pixel of that error, with equal chances or by its depth; or a function of your
    own, as `./clicks.py:next_click` beside the sweep file (docs/extending.md)."""
    click_noise_px: Annotated[Number, Field(ge=0), Added(as_before=0.0)] = 0.0
    """Standard deviation of the noise of `clicker: jitter`, in x and in y, in px of the original image."""
    click_slice: Annotated[tuple[Number, Number] | None, Field(strict=False), Added(as_before=None)] = None
    """`[0.9, 1.0]` lets `clicker: distance` draw only the deepest pixels that hold a tenth of all chances together,
    `[0.0, 0.1]` the shallowest (RClicks' groups of clicks); null: all."""
    first_clicks: Annotated[str | None, Added(as_before=None)] = None
    """A file below the data root with people's first clicks, as RClicks publishes them: seed n takes the n-th on each
    object, from 0 and around, and all seeds run in one go (docs/sweeps.md). null: the clicker makes the first one."""
    start: Annotated[str | None, Added(as_before=None)] = None
    """What the first click corrects: `box`, the mask that the network makes of the object's box, which stays a prompt;
    `sp` or `stm`, masks of davis585; else a folder below the data root with a mask KEY.png for each object. null: an
    empty mask."""
    stop_at: Number | None = Field(None, gt=0, le=1)
    """Stop a sample once its IoU reaches this; null makes all clicks (n-mIoU and paste counts need them)."""
    precision: Annotated[Precision, Added(as_before="fp32")] = "fp32"
    """Arithmetic of the clicks: decoder and refiner."""
    resize: Annotated[Literal["stretch", "pad"], Added(as_before="stretch")] = "stretch"
    """How an image becomes the network's square input: `stretch` as the paper evaluates, `pad` as SAM and HQ-SAM do."""
    threshold: Annotated[Number | None, Field(gt=0, lt=1), Added(as_before=None)] = None
    """Probability above which a pixel belongs to the object; null: the backbone's own (0.5; SegNext's 0.49)."""
    seed: Whole = Field(0, ge=0)
    """Seed of the clicks, where the clicker draws them; one stream of chance for each sample and click. With
    `first_clicks` also which of an object's clicks is taken."""
    photographs: Annotated[bool, Added(as_before=True)] = True
    """Keep small photographs and the truths of the hardest samples for the page, about 20 kB each. They change no
    number, so that true is in no id, and an evaluation of an older version has none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.click_noise_px and self.clicker != "jitter":
            raise ValueError(
                f"click_noise_px is {self.click_noise_px:g}, and clicker is {self.clicker}, which has no noise; set "
                "clicker: jitter, or click_noise_px: 0"
            )
        if self.click_slice is not None and self.clicker != "distance":
            raise ValueError(
                f"click_slice is {list(self.click_slice)}, and clicker is {self.clicker}, which has no slices; set "
                "clicker: distance, or leave click_slice out"
            )
        if self.click_slice is not None and not 0 <= self.click_slice[0] < self.click_slice[1] <= 1:
            raise ValueError(f"click_slice is {list(self.click_slice)}; it should rise within 0 to 1, as [0.9, 1.0]")
        if self.start is not None and self.first_clicks is not None:
            raise ValueError(
                f"start is {self.start} and first_clicks is {self.first_clicks}; people made these clicks without a "
                "mask: leave one of the two out"
            )
        if self.curve is not None:
            self._check_curve(self.curve)
        return self

    def _check_curve(self, curve: tuple[float, ...]) -> None:
        if len(curve) not in (2, 3) or not 0 < curve[0] < curve[1] < math.inf:
            raise ValueError(f"curve is {list(curve)}; it goes from a number above 0 to a greater one, as [1.0, 1.5]")
        if len(curve) == 3 and not 0 < curve[2] <= curve[1] - curve[0]:
            raise ValueError(f"curve is {list(curve)}, whose step is {curve[2]:g}; it should fit between its ends")
        if not curve[0] <= self.theta <= curve[1]:
            raise ValueError(
                f"theta is {self.theta:g}, outside of curve, {list(curve)}; the trial's own result is at a θ of "
                "the curve: set theta to one, or widen the curve"
            )


class ProfileConfig(Part):
    """What the model costs (paper, Table 3)."""

    repeats: Whole = Field(5, ge=1)
    """Timed repetitions of one encode and one click, after a warm-up; the median is reported."""
    prompts_per_side: Whole = Field(16, ge=1)
    """SAT latency: this many point prompts along each side of the image; published is 16, hence 256 prompts."""


class TrialConfig(Part):
    """One point of a sweep."""

    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig | None = None
    """The training; null evaluates the weights as they are."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The evaluation."""
    profile: ProfileConfig | None = ProfileConfig()
    """The measurement of parameters, speed and memory; null leaves it out."""

    @property
    def trainings(self) -> tuple[TrainConfig, ...]:
        """The trainings that change weights, from the last one back through each one's `init`."""
        found, train = [], self.train
        while train is not None:
            if train.steps:
                found.append(train)
            train = train.init
        return tuple(found)

    @model_validator(mode="after")
    def _check_leak(self) -> Self:
        for train in self.trainings:
            if leak(train.data, self.evaluate.data):
                folder = self.evaluate.data.partition("?")[0]
                raise ValueError(
                    f"a training's data is {train.data} and evaluate.data is {self.evaluate.data}: images that are "
                    f"evaluated would be trained on; give {folder}?split=0.8 to both, or {folder}?split=none if that "
                    "is wanted"
                )
        return self

    @model_validator(mode="after")
    def _check_augment(self) -> Self:
        # A cached embedding is of one view of its image for ever, whatever a step then does to the image.
        train, key, frozen = self.train, "train", self.model.freeze_backbone
        while train is not None:
            if train.augment and train.steps and frozen and "encoder" not in train.modules:
                unfreeze = "set model.freeze_backbone: false" if key == "train" else f"add encoder to {key}.modules"
                raise ValueError(
                    f"{key}.augment is true, but this training keeps the encoder and reads cached embeddings, which "
                    f"augmentation cannot change; set {key}.augment: false, or train the encoder too ({unfreeze})"
                )
            train, key, frozen = train.init, f"{key}.init", True
        return self


def _checkpoints() -> Path:
    named = os.environ.get("SAMREF_CHECKPOINTS")
    return absolute(named) if named else home() / ".cache" / "samref" / "checkpoints"


class Far(Protocol):
    """Reads parts of files of a stage's input that are not in its folder."""

    def __call__(self, path: Path, start: int, count: int, *, anew: bool = False) -> bytes:
        """Bytes of a file; with `anew` from where they were written, as a copy that is nearer is damaged."""


class DeviceError(UserError, ValueError):
    """A device that nobody has, or not this machine."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where a stage runs. Never in an id: no field may change a number by more than the rounding of sums."""

    data_root: Path = Path("data")
    """Folder that holds the datasets."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one."""
    threads: int | None = None
    """CPU threads of torch and OpenCV; None leaves their choice. The rounding of sums depends on it, and with that
    the last bits of a training."""
    checkpoint_seconds: float = 60.0
    """A training saves a checkpoint this often."""
    checkpoints: Path = field(default_factory=_checkpoints)
    """Folder of downloaded checkpoints."""
    code: tuple[Path, ...] = field(default_factory=plugins.folders)
    """Folders that plug-ins are imported from beside Python's own path."""
    far: Far | None = None
    """Reads what is not in the folders of a stage's inputs; None where all is."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise DeviceError(f"there is no device {self.device!r}; name cpu, cuda, cuda:1 (the second), or auto")

    def resolve_device(self) -> str:
        """The device's name with `auto` settled; DeviceError where this machine has no such device."""
        if self.device == "cpu":
            return self.device
        import torch  # slow to import, and plans need no device

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device == "auto":
            return "cuda" if count else "cpu"
        if int(self.device.partition(":")[2] or 0) >= count:
            raise DeviceError(f"device is {self.device}, and torch sees {count} GPUs here; name cpu, or auto")
        return self.device
