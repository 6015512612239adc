"""What one trial is made of: its stages, their ids, and how to run one.

    embed(model, train.data) ---> train(model, train) ---+
                                                         +--> evaluate(model, evaluate)    the trial's leaf
    embed(model, evaluate.data) -------------------------+
    profile(model)

A stage's id is the hash of the settings that its output depends on and of the ids of the stages that it needs, so
equal ids are the same work: of two trials, of two sweeps, of yesterday and today. Ids hold contents (fingerprints of
data and checkpoints), never paths, names of folders, devices or resources. Knows nothing of sweeps, Ray or the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from samref.config import (
    EvaluateConfig,
    ModelConfig,
    Module,
    ProfileConfig,
    Runtime,
    TrainConfig,
    TrialConfig,
)

Kind = Literal["embed", "train", "evaluate", "profile"]
Report = Callable[[int, Mapping[str, float]], None]

# Raised by hand when a change of code changes what a stage of this kind writes; the golden loss curve, or the golden
# clicks, fail first.
VERSION: Mapping[Kind, int] = {"embed": 1, "train": 1, "evaluate": 1, "profile": 1}


class Fingerprints(Protocol):
    """Contents of what a trial names, as short texts; a plan without the data gives placeholders."""

    def data(self, name: str, split: Literal["train", "val"], samples: int | None) -> str:
        """Fingerprint of a dataset's chosen samples."""
        ...

    def checkpoint(self, model: ModelConfig) -> str:
        """Fingerprint of the backbone's first weights."""
        ...


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, and 1.0 written as 1, so that equal settings give equal text."""

    def plain(item: Any) -> Any:
        kind = type(item)  # exact types first: a plan of ten thousand trials comes here a million times
        if kind is float:
            return int(item) if item.is_integer() else item
        if kind is str or kind is int or kind is bool or item is None:
            return item
        if isinstance(item, Mapping):
            return {str(key): plain(entry) for key, entry in item.items()}
        return [plain(entry) for entry in item]

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(prefix: str, value: Any) -> str:
    """`prefix-` and twelve hexadecimal digits of the SHA-256 of canonical JSON."""
    return f"{prefix}-{hashlib.sha256(canonical(value).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Stage:
    """A unit of work whose output is one folder, named by its id."""

    kind: Kind
    key: Mapping[str, Any]
    """What the output depends on besides `needs`; the id hashes this."""
    config: Mapping[str, Any] = field(compare=False)
    """What running it takes: the parts of the trial's configuration, data by name."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Role → id of the stage whose output is needed."""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        identity = {"version": VERSION[self.kind], "key": self.key, "needs": self.needs}
        object.__setattr__(self, "id", digest(self.kind, identity))

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, as plain JSON values."""
        return {name: getattr(self, name) for name in ("kind", "key", "config", "needs")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Stage:
        """The stage again, with the same id."""
        return cls(**value)


@dataclass(frozen=True)
class Trial:
    """A configuration and the stages that make its row of the table, in the order in which they can run."""

    config: TrialConfig
    stages: tuple[Stage, ...]
    id: str

    def stage(self, kind: Kind) -> Stage | None:
        """The trial's own stage of this kind: the last one, as an `init`'s stages come before."""
        return next((stage for stage in reversed(self.stages) if stage.kind == kind), None)


def trained_modules(model: ModelConfig, train: TrainConfig, *, outermost: bool = True) -> tuple[Module, ...]:
    """The modules that a training changes: none at 0 steps; no refiner where the model has none."""
    if train.steps == 0:
        return ()
    wanted = set(train.modules)
    if outermost and not model.freeze_backbone:
        wanted.add("encoder")
    if model.refiner == "none":
        wanted.discard("refiner")
    order: tuple[Module, ...] = ("encoder", "decoder", "refiner")
    return tuple(module for module in order if module in wanted)


def build(config: TrialConfig, fingerprints: Fingerprints) -> Trial:
    """The stages of a trial, each id once."""
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        return stages.setdefault(stage.id, stage)

    model = config.model
    weights = _network(model, fingerprints)

    def embed(
        name: str, split: Literal["train", "val"], samples: int | None, resize: str, encoder: Stage | None
    ) -> Stage:
        data = {"name": name, "split": split, "samples": samples}
        return add(
            Stage(
                kind="embed",
                key={
                    **weights,
                    "precision": model.precision,
                    "storage": model.embedding_precision,
                    "resize": resize,
                    "data": fingerprints.data(name, split, samples),
                },
                config={"model": model.model_dump(), "data": data, "resize": resize},
                needs={"weights": encoder.id} if encoder else {},
            )
        )

    def training(train: TrainConfig | None, outermost: bool = True) -> tuple[Stage | None, Stage | None]:
        """The stage that ends a chain of trainings, and the one that trained the encoder last."""
        if train is None:
            return None, None
        start, encoder = training(train.init, outermost=False)
        modules = trained_modules(model, train, outermost=outermost)
        if not modules:  # a training of nothing is what it starts from
            return start, encoder
        needs = {"init": start.id} if start else {}
        if "encoder" not in modules:
            needs["embeddings"] = embed(train.data, "train", train.samples, train.resize, encoder).id
        settings = train.model_dump(exclude={"data", "samples", "init", "modules"})
        refiner: dict[str, Any] = {}
        if "refiner" in modules:
            refiner = _refiner(model)
        else:
            del settings["theta"]
        stage = add(
            Stage(
                kind="train",
                key={
                    **weights,
                    **refiner,
                    **settings,
                    "modules": modules,
                    "multimask": model.multimask,
                    "data": fingerprints.data(train.data, "train", train.samples),
                    "encoder_precision": model.precision,
                },
                config={
                    "model": model.model_dump(),
                    "train": {**train.model_dump(), "init": None, "modules": modules},
                },
                needs=needs,
            )
        )
        return stage, (stage if "encoder" in modules else encoder)

    trained, encoder = training(config.train)
    evaluate = config.evaluate
    embeddings = embed(evaluate.data, "val", evaluate.samples, "stretch", encoder)
    settings = evaluate.model_dump(exclude={"data", "samples"})
    if model.refiner != "gfr+lfr":
        del settings["theta"]  # no selector: every θ is the same evaluation
    if evaluate.clicker == "ritm":
        del settings["seed"]  # nothing is drawn
    add(
        Stage(
            kind="evaluate",
            key={
                **weights,
                **_refiner(model),
                **settings,
                "multimask": model.multimask,
                "data": fingerprints.data(evaluate.data, "val", evaluate.samples),
            },
            config={"model": model.model_dump(), "evaluate": evaluate.model_dump()},
            needs={"embeddings": embeddings.id, **({"weights": trained.id} if trained else {})},
        )
    )
    if config.profile:
        add(
            Stage(
                kind="profile",
                key={
                    "backbone": model.backbone,
                    "precision": model.precision,
                    "multimask": model.multimask,
                    **_refiner(model),
                    **config.profile.model_dump(),
                },
                config={"model": model.model_dump(), "profile": config.profile.model_dump()},
            )
        )
    return Trial(config=config, stages=tuple(stages.values()), id=_trial_id(config, fingerprints))


def run(
    stages: Sequence[Stage],
    inputs: Mapping[str, Path],
    outs: Sequence[Path],
    *,
    scratch: Path,
    runtime: Runtime,
    report: Report,
) -> list[dict[str, Any]]:
    """Run stages that differ in θ alone (or one stage of any kind) and write each one's output folder.

    Args:
        stages: evaluations of one model on one dataset, or exactly one stage.
        inputs: role of each need → folder of its output.
        outs: one empty folder a stage.
        scratch: folder of the first stage's id that outlives a killed attempt; a training resumes from it.
        runtime: where to run.
        report: called with (step, metrics); `metrics["total"]` is the number of steps.

    Returns:
        For each stage the summary that was also written to its `summary.json`.
    """
    # Imported here: each verb imports torch, and plans need none of it.
    from samref import parallel

    started = datetime.now(UTC)
    clock = time.perf_counter()
    first = stages[0]
    model = ModelConfig(**first.config["model"])
    metrics: list[dict[str, float | int]]
    if first.kind == "embed":
        from samref.embed import DataSource, embed

        source = DataSource(**first.config["data"])
        resize = first.config["resize"]
        metrics = [embed(model, source, resize, inputs=inputs, out=outs[0], runtime=runtime, report=report)]
    elif first.kind == "train":
        from samref.train import train

        config = TrainConfig(**first.config["train"])
        metrics = [train(model, config, inputs=inputs, out=outs[0], scratch=scratch, runtime=runtime, report=report)]
    elif first.kind == "evaluate":
        from samref.evaluate import evaluate

        configs = [EvaluateConfig(**stage.config["evaluate"]) for stage in stages]
        metrics = evaluate(model, configs, inputs=inputs, outs=outs, runtime=runtime, report=report)
    else:
        from samref.profile import profile

        metrics = [
            profile(model, ProfileConfig(**first.config["profile"]), out=outs[0], runtime=runtime, report=report)
        ]
    seconds = time.perf_counter() - clock
    summaries = []
    for stage, out, measured in zip(stages, outs, metrics, strict=True):
        summary = {
            "id": stage.id,
            "stage": stage.to_json(),
            "metrics": measured,
            # Evaluations that ran in one go share its time evenly.
            "device_seconds": seconds / len(stages),
            "device": runtime.resolve_device(),
            "hardware": _hardware(runtime.resolve_device()),
            "versions": _versions(),
            "started": started.isoformat(timespec="microseconds"),
        }
        if parallel.group(runtime.resolve_device()).rank == 0:
            (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        summaries.append(summary)
    return summaries


def _network(model: ModelConfig, fingerprints: Fingerprints) -> dict[str, Any]:
    return {"backbone": model.backbone, "checkpoint": fingerprints.checkpoint(model)}


def _refiner(model: ModelConfig) -> dict[str, Any]:
    if model.refiner == "none":
        return {"refiner": "none"}
    names = (
        "refiner",
        "refiner_blocks",
        "refiner_width",
        "patch_size_px",
        "click_radius_px",
        "error_threshold",
    )
    return {name: getattr(model, name) for name in names}


def _trial_id(config: TrialConfig, fingerprints: Fingerprints) -> str:
    # Every setting counts, also those that no stage depends on: each row that was asked for is a row.
    value = config.model_dump()
    value["model"]["checkpoint"] = fingerprints.checkpoint(config.model)
    part, train = value["train"], config.train
    while train is not None:
        part["data"] = fingerprints.data(train.data, "train", train.samples)
        part, train = part["init"], train.init
    value["evaluate"]["data"] = fingerprints.data(config.evaluate.data, "val", config.evaluate.samples)
    return digest("trial", value)


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    import cv2
    import numpy
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "opencv": cv2.__version__,
    }
