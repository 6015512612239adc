"""Training: steps of AdamW over batches, in one process or several, with checkpoints.

Paper: supplement, training details; docs/method.md; what one step learns from is in `step.py`. Knows nothing of sweeps,
trackers or the store: it calls `report(step, metrics)` and writes into the folder that it is given.

    weights.safetensors   all that this training, and the one it started from, changed beyond the checkpoint; where
                          train.ema is set, the averages of what this one changed
    training.jsonl        {"step", "metric", "value"}, averaged over the steps since the line before

In `scratch` it keeps a checkpoint, from which a killed training goes on, on a CPU to the same weights bit by bit.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samref import checkpoint, parallel, pixel_loops, weights
from samref.batches import ROUNDS, Batch, Batches
from samref.checkpoint import Progress, State
from samref.clicks import num_rounds
from samref.config import ModelConfig, Runtime, TrainConfig
from samref.data import open_dataset
from samref.embeddings import Embeddings
from samref.errors import UserError
from samref.precision import products
from samref.refiner import SamRef, windows
from samref.refiner.recorded import EVERY_CLICK, forget, record
from samref.schedule import learning_rate
from samref.stage import Report, Stopped
from samref.step import training_step
from samref.threads import on_threads

_LOG = logging.getLogger(__name__)
_RECORDS = 200  # points of each curve
_REPORT_SECONDS = 1.0  # a report may be the order to stop, so it comes between the points too
_HALVINGS = 3  # of a step's parts, where memory runs out


class TrainingError(UserError, RuntimeError):
    """A training that cannot go on; says at which step and on which samples."""


def train(
    model: ModelConfig,
    config: TrainConfig,
    *,
    inputs: Mapping[str, Path],
    out: Path,
    scratch: Path,
    runtime: Runtime,
    report: Report,
) -> dict[str, float | int]:
    """Run one training, alone or, where a torch.distributed process group is up, as one of its processes.

    Args:
        model: the network.
        config: the training; `modules` are exactly those that change.
        inputs: `init` (the training to start from) and `embeddings` (unless the encoder is trained), if any.
        out: empty folder for the outputs.
        scratch: folder that outlives a killed attempt at this training; the same one for all processes.
        runtime: device and data.
        report: called after steps with the curves' newest points, the step at which they were `recorded`, and `total`
            steps.

    Returns:
        loss (the curve's last point), steps_per_second (of all but the first, which compiles; missing where a
        checkpoint left nothing to do) and accumulation (the one that it ended with).

    Raises:
        TrainingError: a loss that is not finite, or memory that does not suffice for the smallest parts.
        ValueError: a batch that cannot be divided over the processes.
    """
    device = runtime.resolve_device()
    group = parallel.group(device)
    if config.batch_size % (group.size * config.accumulation):
        raise ValueError(
            f"train.batch_size is {config.batch_size}, which {group.size} processes with train.accumulation "
            f"{config.accumulation} cannot divide; make it a multiple of {group.size * config.accumulation}"
        )
    embeddings = Embeddings(inputs["embeddings"], runtime.far) if "embeddings" in inputs else None
    network = _network(model, config, inputs.get("init"), runtime, encoder=embeddings is None)
    if device.startswith("cuda"):
        record(network, EVERY_CLICK)
    state = _first_state(network, config)
    checkpoint.restore(scratch, state, device)
    if not group.same(state.progress.step):
        raise TrainingError(f"the processes found different checkpoints in {scratch}; it must be one folder for all")
    batches = _batches(config, network, embeddings, group, runtime, device)
    with (
        products(config.precision),
        # Threads of their own: what reads ahead must not keep a step waiting for its clicks.
        ThreadPoolExecutor(batches.threads, thread_name_prefix="clicks") as pool,
        on_threads(1 if batches.pinned else None),  # beside a GPU each CPU takes a sample, alone
    ):
        pixel_loops.load()  # compiled before the clock runs
        if network.lfr is not None:
            windows.load()
        work = _Work(network, config, device, group, pool)
        steps, seconds = _steps(work, state, batches, scratch, runtime, report)
    if group.rank == 0:
        written: Mapping[str, Tensor] = state.parameters if state.averages is None else state.averages
        weights.save({**weights.inherited(inputs.get("init")), **written}, out)
        with (out / "training.jsonl").open("w") as curve:
            curve.writelines(json.dumps(line) + "\n" for line in state.progress.curve)
    rate = {"steps_per_second": steps / seconds} if steps else {}
    return {"loss": state.progress.last("loss"), **rate, "accumulation": state.progress.accumulation}


def _network(model: ModelConfig, config: TrainConfig, init: Path | None, runtime: Runtime, *, encoder: bool) -> SamRef:
    if "refiner" not in config.modules:
        model = model.model_copy(update={"refiner": "none"})
    seed, precision = config.seed, config.precision
    return weights.build_model(model, runtime, weights=init, refiner_seed=seed, encoder=encoder, precision=precision)


def _batches(
    config: TrainConfig,
    network: SamRef,
    embeddings: Embeddings | None,
    group: parallel.Group,
    runtime: Runtime,
    device: str,
) -> Batches:
    """This process's share of all batches."""
    return Batches(
        open_dataset(config.data, split="train", data_root=runtime.data_root, samples=config.samples),
        size=network.backbone.image_size,
        resize=config.resize,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augment,
        positions=group.share(config.batch_size),
        embeddings=embeddings,
        threads=torch.get_num_threads(),
        pinned=device.startswith("cuda"),
        resize_input=network.backbone.resize,
    )


def _first_state(network: SamRef, config: TrainConfig) -> State:
    parameters = weights.parts(network, config.modules)
    network.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        fused=next(iter(parameters.values())).is_cuda or None,  # one kernel for all; on a CPU as before there was one
    )
    averages = {name: p.detach().clone() for name, p in parameters.items()} if config.ema is not None else None
    return State(parameters, optimizer, averages, Progress(accumulation=config.accumulation))


def _steps(
    work: _Work, state: State, batches: Batches, scratch: Path, runtime: Runtime, report: Report
) -> tuple[int, float]:
    """Make the steps that are left; the number of those after the first (or 1), and the seconds they took."""
    config, first = work.config, state.progress.step
    counted = first
    every = max(1, config.steps // _RECORDS)
    clock = saved = told = time.perf_counter()
    metrics: Mapping[str, float] = {}
    for batch in batches.iterate(first, config.steps):
        step = state.progress.step
        names, means = work.gradients(batch, state)
        for settings in state.optimizer.param_groups:
            settings["lr"] = learning_rate(config, step)
        if config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(state.parameters.values(), config.gradient_clip)
        state.optimizer.step()
        if config.ema is not None:
            state.average(config.ema)
        losses = dict(zip(names, means.tolist(), strict=True))  # the host waits for the device
        state.progress.add(_finite(losses, step, config, batches))
        recorded = state.progress.step % every == 0 or state.progress.step == config.steps
        metrics = {**state.progress.record(), "recorded": state.progress.step} if recorded else metrics
        if step == first and config.steps > first + 1:
            counted, clock = first + 1, time.perf_counter()
        if work.group.rank > 0:
            continue
        if recorded or time.perf_counter() - told > _REPORT_SECONDS:
            told = time.perf_counter()
            try:
                report(state.progress.step, {"total": config.steps, **metrics})
            except Stopped:
                checkpoint.save(scratch, state)
                raise
        if time.perf_counter() - saved > runtime.checkpoint_seconds:
            checkpoint.save(scratch, state)
            saved = time.perf_counter()
    return config.steps - counted, time.perf_counter() - clock


def _finite(losses: Mapping[str, float], step: int, config: TrainConfig, batches: Batches) -> dict[str, float]:
    """A step's losses by name, with their sum."""
    total = sum(losses.values())
    if not math.isfinite(total):
        raise TrainingError(
            f"the loss is {total} at step {step}, learning rate {learning_rate(config, step):.2e}, samples "
            f"{', '.join(batches.keys(step))}; a lower train.learning_rate or train.gradient_clip often helps"
        )
    return {"loss": total, **losses}


@dataclass(frozen=True)
class _Work:
    """What a step needs besides the state that it changes."""

    network: SamRef
    config: TrainConfig
    device: str
    group: parallel.Group
    pool: Executor

    def gradients(self, batch: Batch, state: State) -> tuple[list[str], Tensor]:
        """Fill in the gradients of a step's whole batch, and give its losses' names and means.

        Where CUDA's memory runs out, on any process, all start the step again with parts half as large: until the
        optimiser's step nothing but gradients has changed. (That step takes the same memory whatever the parts, so
        running out there is final.)
        """
        while True:
            state.optimizer.zero_grad(set_to_none=True)
            losses: dict[str, Tensor] | None = None
            try:
                losses = self._accumulate(batch, state.progress)
            except torch.OutOfMemoryError as error:
                _LOG.warning("out of memory at step %d: %s", state.progress.step, error)
            # Out of the except block, so that no traceback holds the failed part's tensors any more.
            failed = self.group.any(losses is None)
            if losses is not None and not failed:
                break
            self._halve(state.progress, len(batch.samples))
        gradients = [parameter.grad for parameter in state.parameters.values() if parameter.grad is not None]
        means = torch.stack(list(losses.values()))
        self.group.sum_([*gradients, means])
        return list(losses), means

    def _accumulate(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Add up the gradients of this process's parts; each counts by its share of the whole batch."""
        config, step = self.config, progress.step
        # One n for the whole batch (docs/method.md), however it is divided.
        rounds = num_rounds(config.gamma, config.max_clicks, np.random.default_rng([config.seed, ROUNDS, step]))
        sums: dict[str, Tensor] = {}
        for part in batch.split(progress.accumulation):
            losses = training_step(self.network, part, config, step, rounds, self.device, self.pool)
            share = len(part.samples) / config.batch_size
            (torch.stack(list(losses.values())).sum() * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        return sums

    def _halve(self, progress: Progress, count: int) -> None:
        parts = min(progress.accumulation, count)
        if parts == count or progress.accumulation >= self.config.accumulation << _HALVINGS:
            raise TrainingError(
                f"out of memory at step {progress.step} with {-(-count // parts)} of {count} samples at a time, after "
                f"train.accumulation {self.config.accumulation} became {progress.accumulation}; train on a device with "
                "more memory, with train.precision: bf16, or with a smaller train.batch_size"
            )
        progress.accumulation = min(2 * progress.accumulation, count)
        forget(self.network)  # of the larger parts, and to leave more memory for the smaller ones
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()  # blocks of the larger parts' sizes would split the memory up
        _LOG.warning("step %d again, and on, with accumulation %d", progress.step, progress.accumulation)
