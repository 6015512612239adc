"""What a plan's missing stages will take: disk for embeddings, and hours of a device, judged by earlier stages.

Knows nothing of Ray. What cannot be known (no such stage was ever done, no data here) is left out and said.
"""

import contextlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from samref.backbones import values_per_image
from samref.config import ModelConfig
from samref.stage import Kind, Stage
from samref.summary import Summary
from samref_sweep.planning.work import Work
from samref_sweep.spec.policy import Keep
from samref_sweep.store.store import Store

BYTES_PER_VALUE = {"fp32": 4, "fp16": 2, "bf16": 2}
LOOKED_AT = 20
"""Earlier stages of each kind that are read, the newest ones."""

Size = tuple[int, int]
"""Images and samples of a dataset."""
SizeOf = Callable[[str, Any, int | None], Size | None]
"""Name, split, number of samples wanted → the dataset's size; None where the data is not here."""


@dataclass(frozen=True)
class Cost:
    """What the stages that are to do will take."""

    embedding_bytes: int
    """Disk of the embeddings, if they are kept."""
    seconds: Mapping[Kind, float]
    """Kind → seconds of a device, of those stages for which earlier ones tell."""
    known: int
    """Stages that `seconds` counts."""
    unknown: Mapping[Kind, int]
    """Kind → stages of which nothing is known."""
    earlier: int
    """Earlier stages that tell it."""
    hardware: str | None
    """What they ran on."""
    unsized_images: int = 0
    """Images of embed stages whose features are a plug-in's: `embedding_bytes` cannot count them."""
    keep: Keep = "store"
    """Where the embeddings are kept, which `seconds` follows."""
    embed_seconds: tuple[float, float] | None = None
    """Seconds of a device for the embeddings: each made once, and each made by all work that reads it; None where no
    earlier stage tells."""


def embedding_bytes(model: ModelConfig, images: int) -> int:
    """Disk that the embeddings of some images take, less a few kilobytes of headers; 0 for a plug-in's."""
    return images * values_per_image(model.backbone) * BYTES_PER_VALUE[model.embedding_precision]


def estimate(works: Iterable[Work], store: Store | None, size_of: SizeOf, keep: Keep = "store") -> Cost:
    """The cost of work that is to do, from the store's newest stages of the same kind and backbone.

    A stage's time grows with its images (embed), steps × batch (train), or samples × clicks (evaluate).
    """
    past = list(_past(store)) if store else []
    hardware = past[0][0].hardware if past else None
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    amounts: defaultdict[tuple[str, str], float] = defaultdict(float)
    earlier: Counter[tuple[str, str]] = Counter()
    for summary, amount in past:
        key = (summary.stage.kind, summary.stage.backbone)
        if summary.hardware == hardware and amount:
            seconds[key] += summary.device_seconds
            amounts[key] += amount
            earlier[key] += 1
    works = list(works)
    stages = {stage.id: stage for work in works for stage in (*work.stages, *work.here)}
    reads = Counter(need for work in works for need in work.needs.values())
    disk, known, told, unsized = 0, 0, set(), 0
    once = each_time = 0.0
    total: defaultdict[Kind, float] = defaultdict(float)
    unknown: Counter[Kind] = Counter()
    for each in stages.values():
        key = (each.kind, each.backbone)
        size = _size(each, size_of)
        if each.kind == "embed" and size:
            needed = embedding_bytes(each.model, size[0])
            disk += needed
            unsized += 0 if needed else size[0]
        amount = _amount(each, size)
        if amount is None or not amounts[key]:
            unknown[each.kind] += 1
        else:
            own = seconds[key] / amounts[key] * amount
            times = max(1, reads[each.id])
            if each.kind == "embed":
                once, each_time = once + own, each_time + own * times
            total[each.kind] += own * times if each.kind == "embed" and keep == "never" else own
            known += 1
            told.add(key)
    both = (once, each_time) if once and not unknown["embed"] else None
    tells = sum(earlier[key] for key in told)
    return Cost(disk, dict(total), known, dict(unknown), tells, hardware, unsized, keep, both)


def _size(stage: Stage, size_of: SizeOf) -> Size | None:
    if stage.kind == "embed":
        data = stage.config["data"]
        return size_of(data["name"], data["split"], data["samples"])
    if stage.kind == "evaluate":
        data = stage.config["evaluate"]  # not `stage.evaluate`: validating ten thousand takes a third of a second
        return size_of(data["data"], "val", data["samples"])
    return None


def _amount(stage: Stage, size: Size | None) -> float | None:
    """How much work a stage is, in units that its time is proportional to."""
    if stage.kind == "train":
        return float(stage.train.steps * stage.train.batch_size)
    if stage.kind == "profile":
        return 1.0
    if size is None:
        return None
    return float(size[0] if stage.kind == "embed" else size[1] * stage.config["evaluate"]["max_clicks"])


def _past(store: Store) -> Iterable[tuple[Summary, float | None]]:
    """The newest stages' summaries with how much work each was, the newest first."""
    kinds: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, finished in store.dated().items():
        kinds[name.partition("-")[0]].append((finished, name))
    newest = (each for names in kinds.values() for each in heapq.nlargest(LOOKED_AT, names))
    for _, name in sorted(newest, reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError):
            summary = store.summary(name, checked=False)
            size = (0, int(summary.metrics.get("num_samples", 0)))
            if summary.stage.kind == "embed":
                index = json.loads(store.file(name, "index.json").read_text())
                size = (index["count"] if "count" in index else len(index["images"]), 0)  # the names, in older stores
            yield summary, _amount(summary.stage, size)
