"""Runs a stage here and now, alone or as one process of a group, and writes its output folder with a summary."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist

from samref import memory, parallel, plugins
from samref.config import ProfileConfig
from samref.embed import DataSource, embed
from samref.evaluation import Evaluate
from samref.profile import profile
from samref.shards import Divisible, Lead, Shards, alone
from samref.source import code_of
from samref.stage import Job, Report, digest
from samref.summary import FILE, Summary
from samref.threads import on_threads
from samref.train import train
from samref.trial import check_code

Metrics = Mapping[str, float | int]


def run_job(job: Job, report: Report, lead: Lead = alone) -> list[Summary]:
    """Run a job, write each stage's output folder, and return for each stage the summary that stands there too.

    `report` is called with (step, metrics), of which `metrics["total"]` is the number of steps. `lead` has the shards
    of a stage worked that other processes can share, which those do by `work_shards`.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    for folder in job.runtime.code:
        plugins.look_in(folder)
    for stage in job.stages:
        check_code(stage)
    device = job.runtime.resolve_device()
    memory.reset(device)
    with on_threads(job.runtime.threads):
        metrics, shared = _measure(job, report, lead)
    seconds = time.perf_counter() - clock
    group = parallel.group(device)
    took: dict[str, Any] = {
        "device_seconds": seconds * group.size,  # the processes of a training each take a device
        **_about(device),
        "versions": _versions(),
        "started": started.isoformat(timespec="microseconds"),
        **shared,
    }
    took["device_seconds"] /= len(job.stages)  # evaluations that ran in one go share its time evenly
    summaries = []
    for stage, out, measured in zip(job.stages, job.outs, metrics, strict=True):
        summary = Summary(stage.id, stage, measured, code=dict(code_of(stage)), **took)
        if group.rank == 0:
            (out / FILE).write_text(json.dumps(summary.to_json(), indent=1) + "\n")
        summaries.append(summary)
    return summaries


def run_in_group(job: Job, report: Report) -> list[Summary]:
    """`run_job` for a training as one of several processes; to be called in each of them, alike.

    A process group that is up already (Ray Train's workers) is used and left as it is. Else one is made for the call
    from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT (torchrun's variables): NCCL on CUDA, gloo on the CPU. Of the
    GPUs of a machine each process takes the one of its LOCAL_RANK. The job's inputs and scratch must be the same
    folders for all; rank 0 alone writes and reports.
    """
    device = job.runtime.resolve_device()
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        return run_job(replace(job, runtime=replace(job.runtime, device=device)), report)
    finally:
        if own:
            dist.destroy_process_group()


def work_shards(job: Job, report: Report, numbers: Iterable[int], finished: Callable[[Path], None]) -> None:
    """Work some shards of a stage that another process leads, and whose job needs no output folder here.

    The shards' numbers are taken one by one, as there is time for them. `report` is called with the images or samples
    that are done here, `finished` with the folder of each shard that is.
    """
    memory.reset(job.runtime.resolve_device())
    with on_threads(job.runtime.threads):
        stage = _divisible(job)
        stage.work(shards_of(job, stage, finished), numbers, report)


def _measure(job: Job, report: Report, lead: Lead) -> tuple[list[Metrics], Mapping[str, Any]]:
    """The work itself: for each stage the metrics that it found; and what it took, where its shards tell that."""
    first = job.stages[0]
    common: dict[str, Any] = {"runtime": job.runtime, "report": report}
    if first.kind == "train":
        folders: dict[str, Any] = {"inputs": job.inputs, "out": job.outs[0], "scratch": job.scratch}
        return [train(first.model, first.train, **folders, **common)], {}
    if first.kind == "profile":
        return [profile(first.model, ProfileConfig(**first.config["profile"]), **common)], {}
    return lead_shards(job, _divisible(job), report, lead)


def lead_shards(job: Job, stage: Divisible, report: Report, lead: Lead) -> tuple[list[Metrics], Mapping[str, Any]]:
    """Have a stage's missing shards worked, and join all; gives what `_measure` does."""
    shards = shards_of(job, stage)
    shards.clear_aside()
    before = stage.total - sum(len(shards.rows(number)) for number in shards.missing())

    def report_steps(done: int, metrics: Mapping[str, float]) -> None:
        report((before + done) * stage.unit, {"total": stage.total * stage.unit, **metrics})

    lead(shards, partial(stage.work, shards), report_steps)
    metrics, told = stage.join(shards, job.outs), shards.about()
    took: dict[str, Any] = {"device_seconds": sum(each["seconds"] for each in told)}
    for name in ("peak_memory_gb", "device_peak_memory_gb"):
        if values := [each[name] for each in told if name in each]:
            took[name] = max(values)
    for name in ("device", "hardware"):
        took[name] = "; ".join(dict.fromkeys(each[name] for each in told))
    return list(metrics), took


def _divisible(job: Job) -> Divisible:
    first = job.stages[0]
    if first.kind == "evaluate":
        return Evaluate(first.model, [each.evaluate for each in job.stages], inputs=job.inputs, runtime=job.runtime)
    source = DataSource(**first.config["data"])
    return embed(first.model, source, first.config["embed"]["resize"], inputs=job.inputs, runtime=job.runtime)


def shards_of(job: Job, stage: Divisible, finished: Callable[[Path], None] = lambda folder: None) -> Shards:
    """The shards of these very stages by this code: others have another folder."""
    name = digest("shards", [[each.id for each in job.stages], dict(code_of(job.stages[0])), stage.total])
    device = job.runtime.resolve_device()
    return Shards(job.scratch / name, stage.total, stage.wave, about=lambda: _about(device), finished=finished)


def _about(device: str) -> dict[str, Any]:
    return {**memory.peaks(device), "device": device, "hardware": _hardware(device)}


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
