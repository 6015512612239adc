"""Runs a stage here and now, alone or as one process of a group, and writes its output folder with a summary."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist

from samref import memory, parallel, plugins
from samref.config import EvaluateConfig, ModelConfig, ProfileConfig, TrainConfig
from samref.embed import DataSource, embed
from samref.evaluate import evaluate
from samref.profile import profile
from samref.source import code_of
from samref.stage import Job, Report
from samref.summary import FILE, Summary
from samref.threads import on_threads
from samref.train import train
from samref.trial import check_code

Metrics = Mapping[str, float | int]


def run_job(job: Job, report: Report) -> list[Summary]:
    """Run a job, write each stage's output folder, and return for each stage the summary that stands there too.

    `report` is called with (step, metrics), of which `metrics["total"]` is the number of steps.
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
        metrics = _measure(job, report)
    seconds = time.perf_counter() - clock
    group = parallel.group(device)
    took: dict[str, Any] = {
        # Evaluations that ran in one go share its time evenly; the processes of a training each take a device.
        "device_seconds": seconds * group.size / len(job.stages),
        **memory.peaks(device),
        "device": device,
        "hardware": _hardware(device),
        "versions": _versions(),
        "started": started.isoformat(timespec="microseconds"),
    }
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


def _measure(job: Job, report: Report) -> list[Metrics]:
    """The work itself: for each stage the metrics that it found."""
    first, out = job.stages[0], job.outs[0]
    model = ModelConfig(**first.config["model"])
    common: dict[str, Any] = {"runtime": job.runtime, "report": report}
    if first.kind == "evaluate":
        configs = [EvaluateConfig(**stage.config["evaluate"]) for stage in job.stages]
        return list(evaluate(model, configs, inputs=job.inputs, outs=job.outs, **common))
    if first.kind == "embed":
        source = DataSource(**first.config["data"])
        return [embed(model, source, first.config["embed"]["resize"], inputs=job.inputs, out=out, **common)]
    if first.kind == "train":
        config = TrainConfig(**first.config["train"])
        return [train(model, config, inputs=job.inputs, out=out, scratch=job.scratch, **common)]
    return [profile(model, ProfileConfig(**first.config["profile"]), out=out, **common)]


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
