"""What one trial is made of: its stages and their ids.

    embed(model, train.data) ---> train(model, train) ---+
                                                         +--> evaluate(model, evaluate)    the trial's leaf
    embed(model, evaluate.data) -------------------------+
    profile(model)

A stage's id is the hash of the settings that its output depends on and of the ids of the stages that it needs, so
equal ids are the same work: of two trials, of two sweeps, of yesterday and today. Ids hold contents (fingerprints of
data and checkpoints), never paths, names of folders, devices or resources. Knows nothing of sweeps, Ray or the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from samref import plugins
from samref.backbones import revision
from samref.config import EvaluateConfig, ModelConfig, Module, ProfileConfig, TrainConfig, TrialConfig
from samref.part import Part
from samref.stage import CLICKER_SOURCE, MODEL_SETTINGS, NAMES, REFINER, REVISION, Kind, Stage, canonical, digest_text
from samref.user_paths import absolute

STARTS = ("start", "first_clicks")
"""The settings of an evaluation that name what its samples begin with."""


class Fingerprints(Protocol):
    """Contents of what a trial names, as short texts; a plan without the data gives placeholders."""

    def data(self, name: str, split: Literal["train", "val"], samples: int | None) -> str:
        """Fingerprint of a dataset's chosen samples."""
        ...

    def checkpoint(self, model: ModelConfig) -> str:
        """Fingerprint of the backbone's first weights."""
        ...

    def starts(self, evaluate: EvaluateConfig) -> Mapping[str, str]:
        """Fingerprints of what `start` and `first_clicks` name, by these names; nothing of one that is not set."""
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


class NamesAsFingerprints:
    """Fingerprints that are the names themselves, for stages whose contents nobody changes: of tests and benchmarks."""

    def data(self, name: str, split: Literal["train", "val"], samples: int | None) -> str:
        """The dataset's name, split and number of samples."""
        return f"{name}/{split}/{samples}"

    def checkpoint(self, model: ModelConfig) -> str:
        """The checkpoint's name, or `random` where there is none, and the seed."""
        return f"{'random' if model.checkpoint == 'none' else model.checkpoint}:{model.seed}"

    def starts(self, evaluate: EvaluateConfig) -> Mapping[str, str]:
        """The names that are set."""
        return {name: value for name in STARTS if (value := getattr(evaluate, name)) is not None}


def build(config: TrialConfig, fingerprints: Fingerprints, shared: dict[Any, Any] | None = None) -> Trial:
    """A trial with its stages, each id once.

    `shared`, an empty mapping that is kept from one call to the next with equal fingerprints, holds what trials that
    differ in their evaluation's settings have in common: ten thousand are built in a third of the time.
    """
    evaluate = config.evaluate
    others = (getattr(config, name) for name in type(config).model_fields if name != "evaluate")
    key = (*others, evaluate.data, evaluate.samples, evaluate.resize, *(getattr(evaluate, name) for name in STARTS))
    base: _Base | None = shared.get(key) if shared is not None else None
    if base is None:
        base = _Builder(config.model, fingerprints).base(config)
        if shared is not None:
            shared[key] = base
    stages = [*base.stages, base.evaluate_stage(evaluate)]
    if base.profile is not None:
        stages.append(base.profile)
    # Canonical JSON, put together of its parts'. Every setting counts, also those that no stage depends on: each row
    # that was asked for is a row.
    own = {**evaluate.identity(), **clicker_source(evaluate), **base.contents}
    texts = {**base.texts, "evaluate": canonical(own)}
    before = config.as_before()
    parts = (name for name in sorted(texts) if name not in before or getattr(config, name) != before[name])
    text = ",".join(f'"{name}":{texts[name]}' for name in parts)
    return Trial(config=config, stages=tuple(stages), id=digest_text("trial", f"{{{text}}}"))


@dataclass(frozen=True)
class _Base:
    """What trials of one model, training, profile and dataset of evaluation have in common."""

    stages: tuple[Stage, ...]
    """All before the evaluation."""
    profile: Stage | None
    key: Mapping[str, Any]
    """What the evaluation's key holds of the model."""
    names: Mapping[str, Any]
    """Where the model's weights are found."""
    contents: Mapping[str, str]
    """Fingerprints of the evaluation's samples, `data`, and of what they begin with."""
    needs: Mapping[str, str]
    """What the evaluation needs, as in its `Stage.needs`."""
    texts: Mapping[str, str]
    """The trial's other parts as canonical JSON, with contents for names."""

    def evaluate_stage(self, evaluate: EvaluateConfig) -> Stage:
        """The evaluation, whose key leaves out what cannot change it."""
        settings = own_settings("evaluate", evaluate)
        if self.key["refiner"] != "gfr+lfr":
            for name in ("theta", "curve"):  # no selector: every θ is the same evaluation
                settings.pop(name, None)
        settings |= clicker_source(evaluate)
        if evaluate.clicker == "ritm" and evaluate.first_clicks is None:
            del settings["seed"]  # nothing is drawn
        named = {name: getattr(evaluate, name) for name in NAMES["evaluate"]}
        key = {**self.key, **settings, **self.contents}
        return Stage("evaluate", key, {"model": self.names, "evaluate": named}, self.needs)


class _Builder:
    """Makes the stages of one model, each id once, in the order in which they can run."""

    def __init__(self, model: ModelConfig, fingerprints: Fingerprints) -> None:
        self._model = model
        self._fingerprints = fingerprints
        self._checkpoint = {"checkpoint": fingerprints.checkpoint(model)}
        self._names = {name: getattr(model, name) for name in NAMES["model"]}
        if model.checkpoint not in ("auto", "none"):  # a file, which a worker would look for in its own folder
            self._names["checkpoint"] = str(absolute(model.checkpoint))
        self._stages: dict[str, Stage] = {}

    def base(self, config: TrialConfig) -> _Base:
        """What does not depend on the evaluation's own settings."""
        evaluate = config.evaluate
        trained, encoder = self._train_stages(config.train)
        embeddings = self._embed_stage(evaluate.data, "val", evaluate.samples, evaluate.resize, encoder)
        return _Base(
            stages=tuple(self._stages.values()),
            profile=self._profile_stage(config.profile) if config.profile else None,
            key=self._checkpoint | model_settings("evaluate", self._model),
            names=self._names,
            contents={
                "data": self._fingerprints.data(evaluate.data, "val", evaluate.samples),
                **self._fingerprints.starts(evaluate),
            },
            needs={"embeddings": embeddings.id, **({"weights": trained.id} if trained else {})},
            texts={
                name: canonical(self._identity(getattr(config, name)))
                for name in type(config).model_fields
                if name != "evaluate"
            },
        )

    def _embed_stage(
        self, name: str, split: Literal["train", "val"], samples: int | None, resize: str, encoder: Stage | None
    ) -> Stage:
        """The embeddings of a dataset by the checkpoint's encoder, or by one that a stage trained."""
        key = {
            **self._checkpoint,
            **model_settings("embed", self._model),
            "resize": resize,
            "data": self._fingerprints.data(name, split, samples),
        }
        named = {"name": name, "split": split, "samples": samples}
        return self._add("embed", key, {"data": named}, {"weights": encoder.id} if encoder else {})

    def _train_stages(self, train: TrainConfig | None, *, outermost: bool = True) -> tuple[Stage | None, Stage | None]:
        """The stage that ends a chain of trainings, and the one that trained the encoder last."""
        if train is None:
            return None, None
        start, encoder = self._train_stages(train.init, outermost=False)
        modules = trained_modules(self._model, train, outermost=outermost)
        if not modules:  # a training of nothing is what it starts from
            return start, encoder
        needs = {"init": start.id} if start else {}
        if "encoder" not in modules:
            embeddings = self._embed_stage(train.data, "train", train.samples, train.resize, encoder)
            needs["embeddings"] = embeddings.id
        network = model_settings("train", self._model)
        settings = own_settings("train", train)
        if "refiner" not in modules:  # then there is none, nor a selector
            network = {name: value for name, value in network.items() if name not in REFINER}
            del settings["theta"]
        data = self._fingerprints.data(train.data, "train", train.samples)
        key = {**self._checkpoint, **network, **settings, "modules": modules, "data": data}
        named = {name: getattr(train, name) for name in NAMES["train"]}
        stage = self._add("train", key, {"train": named}, needs)
        return stage, (stage if "encoder" in modules else encoder)

    def _profile_stage(self, profile: ProfileConfig) -> Stage:
        """The measurement of the model, for which weights do not matter."""
        key = {**model_settings("profile", self._model), **own_settings("profile", profile)}
        return Stage("profile", key, {"model": {"checkpoint": "none"}})

    def _add(self, kind: Kind, key: Mapping[str, Any], names: Mapping[str, Any], needs: Mapping[str, str]) -> Stage:
        stage = Stage(kind, key, {"model": self._names, **names}, needs)
        return self._stages.setdefault(stage.id, stage)

    def _identity(self, part: Part | None) -> dict[str, Any] | None:
        """A part's settings, with contents for names."""
        if part is None:
            return None
        values = part.identity()
        if isinstance(part, ModelConfig):
            values |= self._checkpoint
            if isinstance(source := revision(part.backbone), str):
                values[REVISION] = source
        if isinstance(part, TrainConfig):
            values["data"] = self._fingerprints.data(part.data, "train", part.samples)
            values["init"] = self._identity(part.init)
        return values


def model_settings(kind: Kind, model: ModelConfig) -> dict[str, Any]:
    """The model's settings that a stage of this kind depends on, by their names in its key; its backbone's revision."""
    before, settings = model.as_before(), {}
    for name, setting in MODEL_SETTINGS[kind].items():
        value = getattr(model, setting)
        if (setting not in before or value != before[setting]) and (
            model.refiner != "none" or setting not in REFINER[1:]
        ):
            settings[name] = value
    if (code := revision(model.backbone)) != 1:
        settings[REVISION] = code
    return settings


def clicker_source(evaluate: EvaluateConfig) -> dict[str, str]:
    """What a key says of the clicker beside its name: of a plug-in its source."""
    own = plugins.is_plugin(evaluate.clicker)
    return {CLICKER_SOURCE: plugins.source(evaluate.clicker)} if own else {}


def check_code(stage: Stage) -> None:
    """Refuse a stage that was planned with other code of its backbone or clicker than is found here.

    Raises PluginError: says of which, and what to do.
    """
    clicker = stage.evaluate if stage.kind == "evaluate" else EvaluateConfig()
    here = {REVISION: revision(stage.backbone), CLICKER_SOURCE: clicker_source(clicker).get(CLICKER_SOURCE)}
    for entry, name in ((REVISION, stage.backbone), (CLICKER_SOURCE, clicker.clicker)):
        planned = stage.key.get(entry, 1 if entry == REVISION else None)
        if planned != here[entry]:
            raise plugins.PluginError(
                f"{name}: its code here ({here[entry]}) is not that of the plan ({planned}): it changed since, or this "
                "machine has another; give the same command again"
            )


def own_settings(kind: Kind, part: Part) -> dict[str, Any]:
    """The settings of a stage's own part that stand in its key: all but names, and earlier trainings."""
    left_out = (*NAMES.get(kind, ()), "init")
    return {name: value for name, value in part.identity().items() if name not in left_out}
