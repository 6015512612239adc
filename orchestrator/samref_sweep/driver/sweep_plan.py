"""From a sweep to its plan: what it consists of, what the store lacks of it, its cost, and what stands against it."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.contents import Contents
from samref.progress import readable_size
from samref.trial import build
from samref.user_paths import absolute
from samref_sweep.errors import SpecError
from samref_sweep.execution.allotment import this_machine
from samref_sweep.execution.requests import resolve_all
from samref_sweep.execution.search import Search
from samref_sweep.execution.seed_by_seed import SeedBySeed, begin
from samref_sweep.failures import Failure
from samref_sweep.planning.cost import Cost, estimate
from samref_sweep.planning.own_metrics import unmeasured
from samref_sweep.planning.plan import Outcome, Plan
from samref_sweep.planning.plan import plan as plan_trials
from samref_sweep.planning.redo import OtherCode, other_code, superseded
from samref_sweep.spec.policy import FIRST_LOOK
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.opening import existing_store
from samref_sweep.store.store import Store


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep consists of and what of it is still to do, with the store and the data that were looked at."""

    sweep: Sweep
    plan: Plan
    """Trials, stages and the work that is to do, as they were when it was made."""
    where: str
    """The store's folder or URI."""
    store: Store | None
    """The opened store; None where there is none yet, which `run` then makes."""
    runtime: Runtime
    contents: Contents
    search: Search | SeedBySeed | None = None
    """What suggests trials of an adaptive sweep; it goes on where it was, so a plan is for one run."""
    other_code: OtherCode = field(default_factory=lambda: OtherCode({}, ()))
    """The finished stages that are reused though other code made them."""
    superseded: frozenset[str] = frozenset()
    """Ids of finished stages that are to be made anew; a run sets them aside."""
    remembered: Mapping[str, Failure] | None = None
    """Stage id → why it failed by itself, or was stopped, in an earlier run, so that it is not to do; None: all that
    failed is tried again."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.plan.works and not self.suggestions_left

    @property
    def suggestions_left(self) -> int:
        """How many trials an adaptive method may still suggest."""
        if self.search:
            return self.search.num_left
        if self.sweep.until:
            return self.sweep.until.up_to - FIRST_LOOK
        return self.sweep.search.trials if self.sweep.search else 0

    @cached_property
    def cost(self) -> Cost:
        """Disk and time that what is to do will take."""
        keep = self.sweep.resources["embed"].keep
        return estimate(self.plan.works, self.store, self.contents.size, keep)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of this plan, in words: `warnings`, data that is missing, checkpoints to download."""
        return (*self.warnings, *self.contents.missing.values(), *self.contents.downloads(self._models()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a run says first, too: stages by other code, what is odd about data or checkpoints, shared images."""
        anew = self.search.anew if isinstance(self.search, Search) else ""
        return (*filter(None, (self.other_code.text, anew)), *self.odd)

    @property
    def odd(self) -> tuple[str, ...]:
        """What is odd about file, data, checkpoints or metrics, and which images are both trained on and evaluated."""
        probes = self.sweep.search.probes if self.sweep.search else ()
        configs = [*(trial.config for trial in self.plan.trials), *probes]

        def samples(evaluate: EvaluateConfig) -> tuple[str, ...] | None:
            return self.contents.samples(evaluate.data, "val", evaluate.samples)

        empty = unmeasured(self.sweep, (config.evaluate for config in configs), samples)
        return (*self.sweep.odd, *self.contents.warnings(configs), *empty)

    def grown(self) -> Plan:
        """The plan as it is now: an adaptive sweep has more trials while it runs."""
        return self.search.plan if self.search else self.plan

    def outcomes(self) -> tuple[Outcome, ...]:
        """For each trial what became of it so far, by what the store holds now."""
        return self.plan.outcomes(self.store.done() if self.store else frozenset(), self.remembered or {})

    def check(self) -> None:
        """Refuse what cannot be run, before time is spent on it: reads all data and checkpoints that will be needed.

        Official checkpoints that are not here yet are downloaded, with progress on stderr.

        Raises:
            SpecError: the embeddings take more disk than is allowed, or than there is.
            DataError, CheckpointError: something is missing or broken.
        """
        self._check_disk()
        self.contents.check(self._models())

    def check_here(self) -> None:
        """Refuse what this machine cannot serve (`ResourceError`), for who will run the sweep on it."""
        resolve_all(self.plan, this_machine(), self.where)

    def _models(self) -> list[ModelConfig]:
        """The models of what is to do, and of all that a search may suggest."""
        configs = (stage.config["model"] for work in self.plan.works for stage in work.stages)
        shared = {repr(each): each for each in configs}.values()  # validating ten thousand takes a second
        probes = self.sweep.search.probes if self.sweep.search else ()
        return list(dict.fromkeys([*(ModelConfig(**each) for each in shared), *(c.model for c in probes)]))

    def _check_disk(self) -> None:
        if self.cost.keep != "store":
            return
        needed, cap = self.cost.embedding_bytes, self.sweep.budget.embeddings_gb
        if cap is not None and needed > cap * 1e9:
            raise SpecError(
                f"{self.sweep.file}: embeddings to come take {readable_size(needed)}, more than budget.embeddings_gb, "
                f"{cap:g}; fewer samples or model.embedding_precision: fp16 take less"
            )
        shared = self.store.shared if self.store else None
        if shared and needed > (free := shutil.disk_usage(shared).free):
            raise SpecError(
                f"{shared}: embeddings to come take {readable_size(needed)} and {readable_size(free)} are "
                "free; choose another disk with --store"
            )


def plan(
    sweep: Sweep,
    *,
    store: str | Path | Store = "runs",
    data_root: str | Path = "data",
    device: str = "auto",
    retry_failed: bool = False,
    redo: Collection[str] = (),
) -> SweepPlan:
    """Plan a sweep: its trials, the stages that they share, and which of them the store lacks. Nothing is written.

    Args:
        sweep: what to plan.
        store: folder or URI of the finished stages; it need not exist. A store that is open already also keeps what
            reading the data cost.
        data_root: the datasets' folder.
        device: where `run_here` computes: cpu, cuda, cuda:1 or auto.
        retry_failed: whether stages that failed by themselves in earlier runs are to do again.
        redo: kinds of stages, or `changed` (whatever other code made), that are to be made anew, with all that read
            them.

    Raises:
        StoreError: the store cannot be read.
        DataError: a dataset is here, but is not what its name says.
    """
    opened = existing_store(str(store)) if isinstance(store, str | Path) else store
    where = opened.where if opened else str(store)
    # Workers have their own working folders: every path is settled here.
    runtime = Runtime(data_root=absolute(str(data_root)), device=device)
    contents = Contents(runtime, opened.node.fingerprints if opened else None)
    search: Search | SeedBySeed | None = None
    if sweep.until:
        search = SeedBySeed(sweep, contents, opened) if opened else None
    if sweep.search:
        for config in sweep.search.probes:
            build(config, contents)  # opens what may be suggested, so that it is checked like all else
        search = Search(sweep, contents, opened) if opened else None
    make = begin if sweep.until else plan_trials
    whole = search.plan if search else make(sweep, contents, opened.done() if opened else ())
    made = opened.codes.all() if opened else {}
    other = other_code(whole.stages.values(), whole.done, made)
    if anew := superseded(whole.stages.values(), whole.done, redo, other.stages):
        whole = whole.anew(anew)
        other = other_code(whole.stages.values(), whole.done, made)
    remembered = None if retry_failed else _remembered(whole, opened)
    left = whole.without(remembered or ())
    return SweepPlan(sweep, left, where, opened, runtime, contents, search, other, anew, remembered)


def _remembered(planned: Plan, store: Store | None) -> dict[str, Failure]:
    """Why stages of a plan failed by themselves in earlier runs."""
    stages = planned.stages
    told = {name: each for name, each in (store.failures.all() if store else {}).items() if name in stages}
    # Without what stopped them a sweep lets stages go on.
    stops = planned.sweep.scheduler or planned.sweep.budget.trial_hours
    return {name: each for name, each in told.items() if each.kind != "stopped" or stops}


def set_aside(planned: SweepPlan) -> SweepPlan:
    """Set the finished stages aside that a checked plan makes anew, and return the plan as it is then.

    Nothing is lost if the run is killed: the same command goes on, and the store keeps what they were until then.
    """
    if not planned.store or not planned.superseded:
        return planned
    planned.store.supersede(planned.superseded)
    planned.store.failures.forget(planned.superseded)
    return again(planned, planned.store)


def again(planned: SweepPlan, store: Store, redo: Collection[str] = ()) -> SweepPlan:
    """Plan a sweep once more, by what a store holds now."""
    data_root, device, retry_failed = planned.runtime.data_root, planned.runtime.device, planned.remembered is None
    return plan(planned.sweep, store=store, data_root=data_root, device=device, retry_failed=retry_failed, redo=redo)


def plan_trial(planned: SweepPlan, number: int, store: Store, redo: Collection[str] = ()) -> SweepPlan:
    """Plan the trial of that number of a planned sweep alone, in a store that may be another; `redo` as for `plan`."""
    trial, point = planned.plan.trials[number], planned.plan.points[number]
    alone = replace(planned.sweep, configs=(trial.config,), points=(point,), search=None, until=None)
    return again(replace(planned, sweep=alone, remembered=None), store, redo)
