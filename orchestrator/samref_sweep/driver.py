"""From a sweep to its plan, with what the plan will cost: what the commands do before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samref.config import ModelConfig, Runtime
from samref.contents import Contents
from samref.progress import readable_size
from samref.trial import build
from samref_sweep.errors import SpecError
from samref_sweep.execution.requests import resolve
from samref_sweep.execution.search import Search
from samref_sweep.planning.cost import Cost, estimate
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.redo import OtherCode, other_code, superseded
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.folder import Store


@dataclass
class Prepared:
    """A sweep that could run now."""

    sweep: Sweep
    plan: Plan
    contents: Contents
    store: Store | None
    """None where there is none yet, and only a plan was asked for."""
    search: Search | None
    other_code: OtherCode
    """The stages that are reused though other code made them."""
    superseded: frozenset[str] = frozenset()
    """Ids of finished stages that the plan makes anew; `set_aside` lets them go."""

    def models(self) -> list[ModelConfig]:
        """The models of what is to do, and of all that a search may suggest."""
        configs = (stage.config["model"] for work in self.plan.works for stage in work.stages)
        probes = self.sweep.search.probes if self.sweep.search else ()
        return list(dict.fromkeys([*(ModelConfig(**each) for each in _distinct(configs)), *(c.model for c in probes)]))

    def check(self) -> None:
        """Read all data and checkpoints that will be needed (`Contents.check`)."""
        self.contents.check(self.models())

    def cost(self) -> Cost:
        """What is left to do will cost."""
        stages = (stage for work in self.plan.works for stage in work.stages)
        return estimate(stages, self.store, self.contents.size)

    def check_disk(self) -> None:
        """Refuse embeddings that take more disk than is allowed, or than there is (`SpecError`)."""
        needed, cap = self.cost().embedding_bytes, self.sweep.budget.embeddings_gb
        if cap is not None and needed > cap * 1e9:
            raise SpecError(
                f"{self.sweep.file}: embeddings to come take {readable_size(needed)}, more than budget.embeddings_gb, "
                f"{cap:g}; fewer samples or model.embedding_precision: fp16 take less"
            )
        free = self.store.free_bytes() if self.store else None
        if self.store and free is not None and needed > free:
            raise SpecError(
                f"{self.store.where}: embeddings to come take {readable_size(needed)} and {readable_size(free)} are "
                "free; choose another disk with --store"
            )

    def check_requests(self) -> None:
        """Refuse what this machine cannot serve (`ResourceError`)."""
        for kind in {work.kind for work in self.plan.works}:
            resolve(kind, self.sweep.resources[kind], [_this_machine()])


def prepare(sweep: Sweep, runtime: Runtime, store: Store | None, redo: Collection[str] = ()) -> Prepared:
    """Plan a sweep; of an adaptive one, what was suggested so far. The store is left as it is.

    Args:
        sweep: what to plan.
        runtime: where the data is.
        store: what was done before; None where there is no store yet.
        redo: kinds of stages, or `changed` (whatever other code made), that count as not done, with all that read them.
    """
    contents = Contents(runtime, store.fingerprints if store else None)
    search = None
    if sweep.search:
        for config in sweep.search.probes:
            build(config, contents)  # opens what may be suggested, so that it is checked like all else
        search = Search(sweep, contents, store) if store else None
    planned = search.plan if search else plan(sweep, contents, store.done() if store else ())
    made = store.codes.all() if store else {}
    other = other_code(planned.stages.values(), planned.done, made)
    again = superseded(planned.stages.values(), planned.done, redo, other.stages)
    if again:
        planned = planned.anew(again)
        other = other_code(planned.stages.values(), planned.done, made)
    return Prepared(sweep, planned, contents, store, search, other, again)


def set_aside(prepared: Prepared, runtime: Runtime) -> Prepared:
    """Once all is checked, set the stages aside that are to be made anew; the sweep as it is planned then."""
    if not prepared.store or not prepared.superseded:
        return prepared
    prepared.check_disk()
    prepared.check()
    prepared.store.supersede(prepared.superseded)
    prepared.store.forget_failures(prepared.superseded)
    return prepare(prepared.sweep, runtime, prepared.store)


def _distinct(models: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Stages of a plan share their models, and validating ten thousand takes a second."""
    return {frozenset(model.items()): model for model in models}.values()


def _this_machine() -> dict[str, float]:
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus is None:
        drivers = Path("/proc/driver/nvidia/gpus")
        count = len(list(drivers.iterdir())) if drivers.is_dir() else 0
    else:
        count = len([name for name in gpus.split(",") if name.strip() not in ("", "-1")])
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(count)}
