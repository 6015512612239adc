"""What one trial is made of: its stages and their ids.

    embed(model, train.data) ---> train(model, train) ---+
                                                         +--> evaluate(model, evaluate)    the trial's leaf
    embed(model, evaluate.data) -------------------------+
    profile(model)

A stage's id is the hash of the settings that its output depends on and of the ids of the stages that it needs, so
equal ids are the same work: of two trials, of two sweeps, of yesterday and today. Ids hold contents (fingerprints of
data and checkpoints), never paths, names of folders, devices or resources. Knows nothing of sweeps, Ray or the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from samref.config import (
    ModelConfig,
    Module,
    TrainConfig,
    TrialConfig,
)
from samref.stage import Kind, Stage, canonical, digest_text


class Fingerprints(Protocol):
    """Contents of what a trial names, as short texts; a plan without the data gives placeholders."""

    def data(self, name: str, split: Literal["train", "val"], samples: int | None) -> str:
        """Fingerprint of a dataset's chosen samples."""
        ...

    def checkpoint(self, model: ModelConfig) -> str:
        """Fingerprint of the backbone's first weights."""
        ...


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
    return Trial(config=config, stages=tuple(stages.values()), id=digest_text("trial", f"{{{text}}}"))


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
