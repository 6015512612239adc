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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
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


class Stopped(Exception):  # noqa: N818  (no error: what was done so far is kept)
    """Raised by a `report` to end its stage now; a training saves a checkpoint first."""


# Raised by hand when a change of code changes what a stage of this kind writes; the golden loss curve, or the golden
# clicks, fail first.
VERSION: Mapping[Kind, int] = {"embed": 1, "train": 2, "evaluate": 5, "profile": 4}


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
    return _digest(prefix, canonical(value))


def _digest(prefix: str, text: str) -> str:
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


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


def build(config: TrialConfig, fingerprints: Fingerprints, shared: dict[Any, Any] | None = None) -> Trial:
    """The stages of a trial, each id once.

    Args:
        config: the trial.
        fingerprints: of what it names.
        shared: an empty mapping, kept from one call to the next, holds what trials of the same parts (the same
            objects, as a grid's are) have in common: ten thousand of them are built in a third of the time.
    """
    shared = {} if shared is None else shared
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        return stages.setdefault(stage.id, stage)

    model, evaluate = config.model, config.evaluate

    def once(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in shared:
            shared[key] = (make(), config)  # which keeps the parts alive, so that no other part gets their ids
        return shared[key][0]

    weights: dict[str, Any] = once(("network", id(model)), lambda: _network(model, fingerprints))
    whole_model: dict[str, Any] = once(("model", id(model)), model.model_dump)

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
                config={"model": whole_model, "data": data, "resize": resize},
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
                    "model": whole_model,
                    "train": {**train.model_dump(), "init": None, "modules": modules},
                },
                needs=needs,
            )
        )
        return stage, (stage if "encoder" in modules else encoder)

    def before() -> tuple[Stage | None, Stage]:
        trained, encoder = training(config.train)
        return trained, embed(evaluate.data, "val", evaluate.samples, "stretch", encoder)

    key = ("before", id(model), id(config.train), evaluate.data, evaluate.samples)
    (trained, embeddings), needed = once(key, lambda: (before(), stages))
    stages = dict(needed)
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
            config={"model": whole_model, "evaluate": evaluate.model_dump()},
            needs={"embeddings": embeddings.id, **({"weights": trained.id} if trained else {})},
        )
    )
    if (cost := config.profile) is not None:

        def profile() -> Stage:
            return Stage(
                kind="profile",
                key={
                    "backbone": model.backbone,
                    "precision": model.precision,
                    "multimask": model.multimask,
                    **_refiner(model),
                    **cost.model_dump(),
                },
                config={"model": whole_model, "profile": cost.model_dump()},
            )

        add(once(("profile", id(model), id(cost)), profile))
    parts = {
        name: once(("text", id(getattr(config, name))), partial(_identity, config, name, fingerprints))
        for name in sorted(TrialConfig.model_fields)
    }
    # Canonical JSON, put together of its parts'.
    text = ",".join(f'"{name}":{part}' for name, part in parts.items())
    return Trial(config=config, stages=tuple(stages.values()), id=_digest("trial", f"{{{text}}}"))


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
    from samref import memory, parallel

    started = datetime.now(UTC)
    clock = time.perf_counter()
    device = runtime.resolve_device()
    memory.reset(device)
    first = stages[0]
    model = ModelConfig(**first.config["model"])
    metrics: list[dict[str, float | int]]
    with _on_threads(runtime.threads):
        if first.kind == "embed":
            from samref.embed import DataSource, embed

            source = DataSource(**first.config["data"])
            resize = first.config["resize"]
            metrics = [embed(model, source, resize, inputs=inputs, out=outs[0], runtime=runtime, report=report)]
        elif first.kind == "train":
            from samref.train import train

            config = TrainConfig(**first.config["train"])
            metrics = [
                train(model, config, inputs=inputs, out=outs[0], scratch=scratch, runtime=runtime, report=report)
            ]
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
    group = parallel.group(device)
    measurements = {
        # Evaluations that ran in one go share its time evenly; the processes of a training each take a device.
        "device_seconds": seconds * group.size / len(stages),
        **memory.peaks(device),
        "device": device,
        "hardware": _hardware(device),
        "versions": _versions(),
        "started": started.isoformat(timespec="microseconds"),
    }
    summaries = []
    for stage, out, measured in zip(stages, outs, metrics, strict=True):
        summary = {"id": stage.id, "stage": stage.to_json(), "metrics": measured, **measurements}
        if group.rank == 0:
            (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        summaries.append(summary)
    return summaries


@contextmanager
def _on_threads(number: int | None) -> Iterator[None]:
    """Torch and OpenCV on so many threads of the CPU, for the block; how sums are rounded hangs on it."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    if number is not None:
        torch.set_num_threads(number)
        cv2.setNumThreads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


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


def _identity(config: TrialConfig, name: str, fingerprints: Fingerprints) -> str:
    """A part as canonical JSON, with contents for names."""
    # Every setting counts, also those that no stage depends on: each row that was asked for is a row.
    value = config.model_dump(include={name})[name]
    if name == "model":
        value["checkpoint"] = fingerprints.checkpoint(config.model)
    elif name == "evaluate":
        value["data"] = fingerprints.data(config.evaluate.data, "val", config.evaluate.samples)
    elif name == "train":
        part, train = value, config.train
        while train is not None:
            part["data"] = fingerprints.data(train.data, "train", train.samples)
            part, train = part["init"], train.init
    return canonical(value)


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
