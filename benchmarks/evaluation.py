"""The click loop against a plain one: clicks per second, where the time goes, what several θ and more objects cost.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 \\
        uv run python benchmarks/evaluation.py --data-root data

The reference is plain_loop.py, in the manner of the public evaluators: one object, one click, one θ at a time; distance
transforms of the whole image; the image encoded once an object; torch's own threads. Both sides run the same weights on
the same images, take turns, and must come to the same NoC. The environment is what the orchestrator gives its workers;
it helps both sides. What a GPU does: benchmarks/gpu.py. Ratios and shares matter, not the seconds of one machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from plain_loop import plain_object

from samref import evaluation, metrics, trial
from samref.clickloop import Trajectory
from samref.config import EvaluateConfig, ModelConfig, Runtime, TrainConfig, TrialConfig
from samref.data import open_dataset
from samref.embed import Embed
from samref.embeddings import Embeddings
from samref.refiner import SamRef
from samref.shards import whole
from samref.thetas import at
from samref.weights import build_model

THETAS = (1.05, 1.1, 1.15, 1.2, 1.3)  # Table 1's


LEVELS = (0.3, 0.5, 0.7, 0.85, 0.9, 0.95)


REPEATS = 3


SMALL_REFINER: dict[str, Any] = {"refiner_width": 16, "refiner_blocks": 2, "patch_size_px": 128}


@dataclass
class Clock:
    """Seconds inside the networks, over all threads."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lock: Lock = field(default_factory=Lock)

    def around(self, name: str, function: Callable[..., Any], device: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            found = function(*args, **kwargs)
            if device != "cpu":
                torch.cuda.synchronize()
            with self.lock:
                self.seconds[name] += time.perf_counter() - began
            return found

        return timed


@contextmanager
def clocked(network: SamRef, device: str) -> Iterator[Clock]:
    """The clock of everything of the network that runs in the loop."""
    clock = Clock()
    parts = [(network.backbone, "decode"), (network, "prepare"), (network.gfr, "forward"), (network.lfr, "forward")]
    parts = [(owner, name) for owner, name in parts if owner is not None]
    for owner, name in parts:
        setattr(owner, name, clock.around(name, getattr(owner, name), device))
    try:
        yield clock
    finally:
        for owner, name in parts:
            delattr(owner, name)


@dataclass
class Case:
    """One model on one dataset, with its embeddings."""

    model: ModelConfig
    config: EvaluateConfig
    runtime: Runtime
    folder: Path
    weights: Path | None = None
    """Output folder of a training; None: the checkpoint's, and a refiner that was made to disagree."""

    def __post_init__(self) -> None:
        self.device = self.runtime.resolve_device()
        self.dataset = open_dataset(
            self.config.data, split="val", data_root=self.runtime.data_root, samples=self.config.samples
        )
        self.network = build_model(self.model, self.runtime, weights=self.weights)
        # An untrained refiner changes nothing; random heads make it work, suspect errors, and disagree over θ.
        generator = torch.Generator().manual_seed(0)
        for refiner in (self.network.gfr, self.network.lfr) if self.weights is None else ():
            head = refiner.fusion.heads[-1] if refiner is not None else None
            if isinstance(head, torch.nn.Conv2d):
                head.weight.data.copy_(0.3 * torch.randn(head.weight.shape, generator=generator))
        self.folder.mkdir(parents=True)
        began = time.perf_counter()
        stage = Embed(self.dataset, self.model, "stretch", lambda: self.network.backbone, self.runtime)
        whole(stage, (self.folder,), self.folder.parent / f"{self.folder.name} shards")
        self.embed_seconds = time.perf_counter() - began
        self.embeddings = Embeddings(self.folder)

    def ours(self, thetas: Sequence[float] = (1.1,)) -> tuple[list[list[Trajectory]], int, float]:
        """Trajectories of each θ and sample, decoder calls, seconds."""
        configs = [self.config.model_copy(update={"theta": theta}) for theta in thetas]
        began = time.perf_counter()
        all_of_it = [(0, range(len(self.dataset.samples)))]
        parts = (self.network, configs, self.dataset, self.embeddings, self.device, all_of_it, silent)
        ((_, paths, calls),) = evaluation.play_parts(*parts)
        seconds = time.perf_counter() - began
        return [[at(own, theta) for own in paths] for theta in thetas], calls, seconds

    @torch.inference_mode()
    def reference(self, theta: float = 1.1, samples: int | None = None) -> tuple[list[list[float]], int, float, float]:
        """IoUs of each sample (of the first ones), decoder calls, seconds of its loop, seconds of its encoder."""
        found, calls, encoding, began = [], 0, 0.0, time.perf_counter()
        for sample in self.dataset.samples[:samples]:
            image, truth = self.dataset.image(sample.image_key), self.dataset.truth(sample.key)
            image_3HW = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            # Resized before it moves: CUDA resizes no bytes.
            image_13SS = self.network.backbone.resize(image_3HW, "stretch")[None].to(self.device)
            image_3HW = image_3HW.to(self.device)
            encode_began = time.perf_counter()
            features = self.network.backbone.encode(image_13SS.float())
            if self.device != "cpu":
                torch.cuda.synchronize()
            encoding += time.perf_counter() - encode_began
            context = self.network.prepare(features, image_13SS, [image_3HW])
            ious = plain_object(self.network, context, truth, theta, self.config.max_clicks)
            found.append(ious)
            calls += len(ious)
        return found, calls, time.perf_counter() - began - encoding, encoding


def compare(case: Case, title: str) -> None:
    """One row of claims 1 and 2: both sides in turns."""
    plain_rates, rates, encoding, shares, plain_shares = [], [], 0.0, [], []
    parts: dict[str, float] = {}
    for _ in range(REPEATS):
        with clocked(case.network, case.device) as clock:
            plain, plain_calls, plain_seconds, encoding = case.reference()
        plain_shares.append(sum(clock.seconds.values()) / plain_seconds)
        plain_rates.append(plain_calls / plain_seconds)
        paths, calls, seconds = case.ours()
        rates.append(calls / seconds)
        with clocked(case.network, case.device) as clock:
            # One thread, so that no network waits for another's turn in Python.
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            _, alone_calls, alone_seconds = case.ours()
            torch.set_num_threads(before)
        shares.append(sum(clock.seconds.values()) / alone_seconds)
        parts = {name: 1e3 * value / alone_calls for name, value in clock.seconds.items()}
    own = [[record.iou for record in trajectory.records] for trajectory in paths[0]]
    same_noc(plain, own, case.config.max_clicks)
    same = sum(a == b for left, right in zip(plain, own, strict=True) for a, b in zip(left, right, strict=False))
    rate, plain_rate = statistics.median(rates), statistics.median(plain_rates)
    inside = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    with_encoding = (plain_calls / plain_rate + encoding) / (calls / rate + case.embed_seconds)
    row(
        title,
        f"{plain_rate:.1f}",
        f"{rate:.1f}",
        f"{rate / plain_rate:.2f}",
        f"{with_encoding:.2f}",
        f"{statistics.median(plain_shares):.0%}",
        f"{statistics.median(shares):.0%}",
        f"{inside} of {1e3 * alone_seconds / alone_calls:.2f}",
        f"{same} of {sum(map(len, plain))}",
    )


COMPARISON = (
    "case",
    "reference, clicks/s",
    "here, clicks/s",
    "ratio",
    "ratio with encoding",
    "reference in networks",
    "here in networks (one thread)",
    "ms a click, one thread",
    "clicks of equal IoU",
)


def same_noc(plain: Sequence[Sequence[float]], own: Sequence[Sequence[float]], max_clicks: int) -> None:
    """Raises AssertionError unless both sides have the same NoC at every level."""
    whole = [[*t, *([t[-1]] * (max_clicks - len(t)))] for t in map(list, plain)]
    mine = [[*t, *([t[-1]] * (max_clicks - len(t)))] for t in map(list, own)]
    for level in LEVELS:
        left, right = metrics.noc(whole, level, max_clicks), metrics.noc(mine, level, max_clicks)
        assert left.tolist() == right.tolist(), f"NoC@{level:g} differs at samples {np.flatnonzero(left != right)}"


def claim_1(options: argparse.Namespace, folder: Path) -> None:
    heading("1 · tiny on DAVIS, CPU, one θ", COMPARISON)
    for refiner in ("none", "gfr+lfr"):
        case = Case(*tiny(options, refiner), folder / refiner, options.weights)
        compare(case, f"tiny, refiner {refiner}, {options.samples} frames")


def claim_2(options: argparse.Namespace, folder: Path) -> None:
    heading("2 · SAM ViT-B at 1024, random weights, cached embeddings, CPU", COMPARISON)
    model = ModelConfig(backbone="sam_vit_b", checkpoint="none", refiner="none", embedding_precision="fp32")
    config = EvaluateConfig(data="davis", samples=options.vit_samples)
    case = Case(model, config, Runtime(data_root=options.data_root, device="cpu"), folder / "vit")
    compare(case, f"ViT-B, {options.vit_samples} frames")
    rate = case.embed_seconds / options.vit_samples
    print(f"\nEncoding: {rate:.1f} s an image. Ten trainings' seeds and one evaluation each plan ", end="")
    names = trial.NamesAsFingerprints()
    trials = [
        trial.build(TrialConfig(model=model, train=TrainConfig(seed=seed), evaluate=config), names)
        for seed in range(10)
    ]
    stages = {stage.id: stage.key["data"] for each in trials for stage in each.stages if stage.kind == "embed"}
    print(f"{len(stages)} embeddings for 10 trials, one a dataset: {', '.join(stages.values())}.")


def claim_3(options: argparse.Namespace, folder: Path) -> None:
    columns = (
        "five θ",
        "decoder calls",
        "distinct histories",
        "seconds",
        "share of calls",
        "share of time",
        "quotient",
    )
    heading("3 · five θ in one go, tiny with its refiner on DAVIS, CPU", columns)
    case = Case(*tiny(options, "gfr+lfr"), folder / "thetas")
    case.ours()  # warm
    alone = [case.ours([theta]) for theta in THETAS]
    together, calls, seconds = case.ours(THETAS)
    histories = {
        (sample, tuple(record.pasted_on for record in trajectory.records[:made]))
        for paths, _, _ in alone
        for sample, trajectory in enumerate(paths[0])
        for made in range(len(trajectory.records))
    }
    for (paths, _, _), own in zip(alone, together, strict=True):
        assert all(repr(a[:2]) == repr(b[:2]) for a, b in zip(paths[0], own, strict=True)), (
            "a θ has other clicks in the common run"
        )
    assert calls == len(histories), f"{calls} decoder calls for {len(histories)} histories"
    separate_calls, separate = sum(each[1] for each in alone), sum(each[2] for each in alone)
    row("separately", str(separate_calls), "", f"{separate:.1f}", "", "", "")
    share, time_share = calls / separate_calls, seconds / separate
    quotient = f"{time_share / share:.2f}"
    row("together", str(calls), str(len(histories)), f"{seconds:.1f}", f"{share:.3f}", f"{time_share:.3f}", quotient)


def claim_4(options: argparse.Namespace, folder: Path) -> None:
    heading("4 · more objects, more clicks (each in a fresh process)", ("objects", "clicks", "ms a click", "peak, GB"))
    few = max(2, options.samples // 16)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        for samples, clicks in ((few, 20), (4 * few, 20), (16 * few, 20), (4 * few, 5), (4 * few, 10)):
            runtime = Runtime(data_root=options.data_root, device="cpu")
            model, config, _ = tiny(options, "gfr+lfr")
            config = config.model_copy(update={"samples": samples, "max_clicks": clicks})
            seconds, peak = processes.submit(scaling, model, config, runtime, folder / f"{samples}-{clicks}").result()
            row(str(samples), str(clicks), f"{1e3 * seconds:.2f}", f"{peak:.3f}")


def scaling(model: ModelConfig, config: EvaluateConfig, runtime: Runtime, folder: Path) -> tuple[float, float]:
    """Seconds a click, and the process's peak resident memory in GB."""
    _, calls, seconds = Case(model, config, runtime, folder).ours()
    # Not getrusage, whose peak a process takes over from the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return seconds / calls, int(peak[1]) / 1e6


def tiny(options: argparse.Namespace, refiner: Any) -> tuple[ModelConfig, EvaluateConfig, Runtime]:
    """The packaged weights, at full precision, so that both sides decode the same embeddings."""
    model = ModelConfig(backbone="tiny", refiner=refiner, embedding_precision="fp32", **SMALL_REFINER)
    config = EvaluateConfig(data="davis", samples=options.samples)
    return model, config, Runtime(data_root=options.data_root, device="cpu")


def silent(step: int, reported: Mapping[str, float]) -> None:
    """Reports nothing."""


def heading(title: str, columns: Sequence[str]) -> None:
    print(f"\n## {title}\n")
    row(*columns)
    row(*["---"] * len(columns))


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--claims", type=int, nargs="+", default=[1, 2, 3, 4], choices=range(1, 5), metavar="1…4")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder that holds DAVIS")
    parser.add_argument("--samples", type=int, default=64, help="frames of DAVIS, evenly spaced")
    parser.add_argument(
        "--vit-samples", type=int, default=2, help="frames for SAM ViT-B: each is encoded several times"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="claim 1 with these weights of `tiny`: a train stage's folder"
    )
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    claims = {1: claim_1, 2: claim_2, 3: claim_3, 4: claim_4}
    for number in options.claims:
        with tempfile.TemporaryDirectory() as folder:
            claims[number](options, Path(folder))
