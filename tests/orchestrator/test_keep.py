"""Embeddings that the store does not keep: made where they are read, with the same ids and numbers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys import NamedContents, toy_plan, toy_sweep, write_toy_stage

from samref.config import EvaluateConfig, ModelConfig, Runtime, TrialConfig
from samref.stage import Job, Report
from samref_sweep.errors import ResourceError, SpecError
from samref_sweep.execution.requests import resolve_all
from samref_sweep.execution.unit import Runner, perform, run_watched
from samref_sweep.planning.cost import Cost, estimate
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import Work
from samref_sweep.screen.display import cost_lines
from samref_sweep.spec.policy import Keep, Resources
from samref_sweep.spec.sweep import Sweep, read
from samref_sweep.store.folder import FolderStore

pytestmark = pytest.mark.usefixtures("caches")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMREF_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches"


def keeping(sweep: Sweep, keep: Keep, store: FolderStore) -> Plan:
    resources = {**sweep.resources, "embed": Resources(cpu=1, gpu=0, keep=keep)}
    return plan(replace(sweep, resources=resources), NamedContents(), store.done())


def do(planned: Plan, store: FolderStore, runner: Runner = run_watched) -> None:
    for work in planned.works:
        assert not [need for need in work.awaits if not store.has(need)]
        perform(work, store, runtime=Runtime(device="cpu", threads=1), report=lambda step, metrics: None, runner=runner)


@pytest.mark.parametrize(("keep", "times"), [("store", 2), ("local", 2), ("never", 4)])
def test_an_embedding_is_made_once_a_store_once_a_node_or_by_each_who_reads_it(
    store: FolderStore, caches: Path, keep: Keep, times: int
) -> None:
    made: Counter[str] = Counter()

    def count(job: Job, report: Report) -> None:
        made[job.stages[0].kind] += 1
        report(1, {"total": 1})
        write_toy_stage(job, report)

    planned = keeping(toy_sweep(), keep, store)
    assert planned.stages.keys() == toy_plan(store).stages.keys()
    assert planned.counts()["embed"].to_do == 2
    do(planned, store, count)
    assert made == {"embed": times, "train": 2, "evaluate": 2, "profile": 1}
    kinds = Counter(stage_id.partition("-")[0] for stage_id in store.done())
    assert kinds["embed"] == (2 if keep == "store" else 0)
    assert len(list(caches.glob("embeddings/stages/*"))) == (2 if keep == "local" else 0)
    assert not list(caches.glob("embeddings/.partial/*"))
    assert keeping(toy_sweep(), keep, store).works == ()

    for summary in caches.glob("embeddings/stages/*/summary.json"):
        summary.unlink()  # a damaged copy is made anew
    do(keeping(toy_sweep(thetas=[2.0], gammas=[0.6]), keep, store), store, count)
    assert made["evaluate"] == 3
    assert made["embed"] == {"store": 2, "local": 3, "never": 5}[keep]


def test_the_clicks_are_the_same_wherever_the_embedding_was(tmp_path: Path) -> None:
    model = ModelConfig(backbone="tiny", checkpoint="none", refiner="none")
    evaluate = EvaluateConfig(data="shapes", samples=2, max_clicks=2)
    config = TrialConfig(model=model, train=None, evaluate=evaluate, profile=None)
    sweep = replace(toy_sweep(), configs=(config,), points=({},))
    found = []
    for keep in ("store", "never"):
        store = FolderStore(tmp_path / keep)
        planned = keeping(sweep, keep, store)  # type: ignore[arg-type]
        do(planned, store)
        (evaluation,) = [stage for stage in planned.stages if stage.startswith("evaluate-")]
        clicks = np.load(store.open(evaluation) / "clicks.npz")
        found.append((evaluation, {name: clicks[name].tolist() for name in clicks.files if name != "error_ratio"}))
    assert found[0] == found[1]


def test_an_embedding_by_a_trained_encoder_awaits_its_training(store: FolderStore) -> None:
    planned = keeping(toy_sweep(freeze_backbone=False), "never", store)
    evaluations = [work for work in planned.works if work.kind == "evaluate"]
    assert all({need.partition("-")[0] for need in work.awaits} == {"train"} for work in evaluations)
    do(planned, store, write_toy_stage)


def test_both_ways_are_told_with_disk_and_time(finished: tuple[Plan, FolderStore]) -> None:
    _, store = finished
    for stage_id in store.done():
        if stage_id.startswith("embed-"):
            (store.folder(stage_id) / "index.json").write_text('{"count": 2}')
    planned = keeping(toy_sweep(thetas=[2.0]), "never", FolderStore(store.root / "new"))

    def told(keep: Keep, store: FolderStore | None = store) -> Cost:
        return estimate(planned.works, store, lambda name, split, samples: (10, 20), keep)

    # 1.5 s for two images: ten are 7.5 s; two trainings read one embedding, two evaluations another.
    assert told("never").embed_seconds == (15.0, 30.0)
    assert [told(keep).seconds["embed"] for keep in ("store", "local", "never")] == [15.0, 15.0, 30.0]
    (kept, _), (never, _) = (list(cost_lines(told(keep), {"train"})) for keep in ("store", "never"))
    assert kept.endswith(" of disk and 0:15 of a device; with resources.embed.keep: never none and 0:30 of a device")
    assert never.startswith("embeddings (keep: never) take no disk of the store and 0:30 of a device; kept there ")
    (unknown, _) = cost_lines(told("store", None), {"train"})
    assert unknown.endswith(" of disk; with resources.embed.keep: never none")


def test_what_cannot_be_is_refused_in_one_line(store: FolderStore, tmp_path: Path) -> None:
    planned = keeping(toy_sweep(), "never", store)
    asking = {**planned.sweep.resources, "evaluate": Resources(cpu=1, gpu=0, workers=2)}
    two = [{"CPU": 1.0}, {"CPU": 1.0}]
    with pytest.raises(ResourceError, match=r"evaluate asks for 2 processes, and resources.embed.keep is never: each"):
        resolve_all(replace(planned, sweep=replace(planned.sweep, resources=asking)), two, store.where)
    assert not resolve_all(planned, two, store.where)["evaluate"].auto
    (tmp_path / "sweep.yaml").write_text("trial: {evaluate: {data: shapes}}\nresources: {train: {keep: never}}\n")
    with pytest.raises(SpecError, match=r"sweep.yaml: .*resources.train.keep is never; only embeddings can be kept"):
        read(tmp_path / "sweep.yaml")
    with pytest.raises(ValueError, match=r"keep is local, so that who reads an embedding makes it, and no other"):
        Resources(keep="local", workers=2)
    assert Work(planned.works[0].stages).here == ()
