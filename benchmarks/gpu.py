"""What a GPU does with this project, every figure in one command of under six minutes.

    python benchmarks/gpu.py --data-root data --out gpu.json
    python benchmarks/gpu.py --read gpu.json --results benchmarks/RESULTS.md

Needs `samref`, this folder, `segment-anything`, `sam2`, and DAVIS and ECSSD below the data root (or what `--evaluate`
and `--train` name). Weights are random. Each part has a time limit; one that fails or takes longer is named, the others
go on. The table, and what the paper's experiments would take at these rates, stand at the end and in `--out` as JSON.
`--quick` walks every path in under a minute, on a CPU too, with `tiny` and drawn images; its figures mean nothing.
`--tests` runs tests/samref on the device as well; `--parts` takes some parts only, and `--where` also tells where the
time of click loops, the embed stage, trainings and single clicks goes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import where

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: its kernels, for --quick

from encoder import enlarge, machine, measure
from evaluation import SMALL_REFINER, Case, silent
from gpu_report import paper, table, write_results
from training import steps_per_second

from samref import weights
from samref.backbones.backbone import Backbone
from samref.clicks import next_click
from samref.config import EvaluateConfig, ModelConfig, Precision, ProfileConfig, Runtime, TrainConfig
from samref.data import open_dataset
from samref.embed import Embed
from samref.precision import products
from samref.profile import profile
from samref.refiner import SamRef
from samref.refiner.recorded import forget
from samref.shards import whole
from samref.waves import LARGEST
from samref.weights import build_model

ROOT = Path(__file__).parents[1]


BACKBONES = {"ViT-H": "sam_vit_h", "Hiera-L": "sam2.1_hiera_l"}
SIZES = {"480×854": (480, 854), "1024²": (1024, 1024), "2000×3000": (2000, 3000), "4000×6000": (4000, 6000)}


class LateError(Exception):
    """A part took longer than its limit."""


@dataclass
class Bench:
    """What all parts share, and what they found."""

    options: argparse.Namespace
    folder: Path
    device: str
    measured: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = time.perf_counter()
        self.quick: bool = self.options.quick
        self.runtime = Runtime(data_root=self.options.data_root, device=self.device, checkpoint_seconds=float("inf"))
        self.backbones: dict[str, Backbone] = {}

    def backbone(self, label: str) -> Backbone:
        """That of the click loops, or one that is built now."""
        if label not in self.backbones:
            model = self.model(BACKBONES[label], refiner="none")
            self.backbones[label] = build_model(model, self.runtime, weights=None).backbone
        return self.backbones[label]

    def model(self, backbone: str, **changes: Any) -> ModelConfig:
        """Random weights, stored as they are; with `--quick` the small network whatever was asked for."""
        if self.quick:
            changes = {**SMALL_REFINER, **changes}
        return ModelConfig(backbone="tiny" if self.quick else backbone, checkpoint="none", **changes)

    def note(self, name: str, value: float) -> None:
        self.measured[name] = value
        print(f"{name}: {value:.4g}", flush=True)

    @contextlib.contextmanager
    def part(self, name: str, seconds: int) -> Iterator[None]:
        """Say and remember what went wrong, or took too long, and go on."""

        def ring(*_: object) -> None:
            raise LateError(f"longer than {seconds} s")

        print(f"\n## {name}", flush=True)
        before = signal.signal(signal.SIGALRM, ring)
        signal.alarm(seconds if not self.quick else 0)
        try:
            yield
        except Exception as error:
            traceback.print_exc(limit=-6, file=sys.stdout)
            self.failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            with contextlib.suppress(RuntimeError):  # a kernel that faulted leaves nothing to work with
                torch.cuda.empty_cache()
            if self.options.out:  # now, in case that nothing comes after it
                self.options.out.write_text(json.dumps(self.report(), indent=1, ensure_ascii=False) + "\n")

    def report(self) -> dict[str, Any]:
        """What is known so far, as JSON takes it."""
        return {
            "card": machine(self.device),
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": self.options.commit or commit(),
            "seconds": time.perf_counter() - self.began,
            "measured": self.measured,
            "paper": paper(self.measured),
            "failed": self.failed,
        }


def loops(bench: Bench) -> None:
    """The evaluation against the plain loop of benchmarks/evaluation.py, with the same network and images.

    The plain one has torch's own defaults; ours is given with TF32 factors throughout, and in bf16.
    """
    plain_samples, samples = (1, 2) if bench.quick else (6, 32)
    for label, backbone in BACKBONES.items():
        model = bench.model(backbone, embedding_precision="fp32", precision="bf16")
        config = EvaluateConfig(data=bench.options.evaluate, samples=samples, max_clicks=3 if bench.quick else 20)
        case = Case(model, config, bench.runtime, bench.folder / label)
        bench.backbones[label] = case.network.backbone
        bare = copy.copy(case)
        bare.network = SamRef(case.network.backbone, model.model_copy(update={"refiner": "none"})).eval()
        # As long as DAVIS's evaluation, which reads its next samples meanwhile.
        dataset = copy.copy(case.dataset)
        dataset.samples = (dataset.samples * 11)[: samples if bench.quick else 345]
        for name, each in ((f"loop, {label}", bare), (f"loop, {label} with refiner", case)):
            each.reference(samples=1)
            _, plain_calls, plain_seconds, _ = each.reference(samples=plain_samples)
            bench.note(f"plain clicks/s: {name}", plain_calls / plain_seconds)
            each.dataset = dataset
            for precision in ("tf32", "bf16"):
                rate = clicks_per_second(each, precision)
                bench.note(f"clicks/s in {precision}: {name}", rate)
                if bench.options.where:
                    again = partial(clicks_per_second, each, precision, only=True)
                    where.tell(f"{name}, {precision}", again, bench.device)
                bench.note(f"{name}, {precision}", rate * plain_seconds / plain_calls)


def clicks_per_second(case: Case, precision: Precision, *, only: bool = False) -> float:
    """Of an evaluation after one of two waves, in which Triton compiles and what comes often is recorded.

    `only` is the evaluation alone, of a case that has just been measured.
    """
    if only:
        with products(precision):
            _, calls, seconds = case.ours()
        return calls / seconds
    case.config = case.config.model_copy(update={"precision": precision})
    forget(case.network)  # its weights move
    if case.device.startswith("cuda"):  # as build_model does
        for refiner in case.network.refiner_modules():
            refiner.fusion.use_channels_last(stems=precision == "bf16")  # type: ignore[union-attr, operator]
    dataset, case.dataset = case.dataset, copy.copy(case.dataset)
    case.dataset.samples = dataset.samples[: 2 * LARGEST]
    with products(precision):
        case.ours()
        case.dataset = dataset
        _, calls, seconds = case.ours()
    return calls / seconds


def judgements(bench: Bench) -> None:
    """The next click and the IoU of masks that are wrong everywhere, on the device; and by the host's loops."""
    from samref.device_clicks import judge  # Triton comes with torch's builds for GPUs

    for size, (height, width) in SIZES.items():
        if bench.quick:
            height, width = height // 80, width // 80
        count = 1 if bench.quick else max(1, min(32, 2**25 // (height * width)))
        truth = torch.ones(count, height, width, dtype=torch.int8, device=bench.device)
        mask = torch.zeros_like(truth, dtype=torch.bool)
        samples = torch.arange(count, device=bench.device)
        clicked = torch.full((count, 1, 2), -1, dtype=torch.int32, device=bench.device)
        seconds = fastest(partial(judge, truth, samples, mask, clicked), bench)
        bench.note(f"judge, {size}", 1e3 * seconds / count)
        one_truth, one_mask = truth[0].cpu().numpy(), mask[0].cpu().numpy()
        bench.note(f"by the host, {size}: ms", 1e3 * fastest(partial(next_click, one_truth, one_mask, []), bench))


def single_clicks(bench: Bench) -> None:
    """What a person waits for, by the profile stage."""
    config = ProfileConfig(repeats=1 if bench.quick else 5, prompts_per_side=2 if bench.quick else 16)

    def cost(backbone: str, refiner: Any) -> Mapping[str, float]:
        model = bench.model(backbone, refiner=refiner)
        return profile(model, config, runtime=bench.runtime, report=silent)

    refined, bare = cost("sam_vit_h", "gfr+lfr"), cost("sam_vit_h", "none")
    bench.note("fps ratio, ViT-H", refined["refiner_fps_ratio"])
    bench.note("sat latency", refined["sat_latency_seconds"] / bare["sat_latency_seconds"])
    for name in ("encode_seconds", "click_seconds", "sat_latency_seconds"):
        bench.note(f"{name}: ViT-H with refiner", refined[name])
    bench.note("fps ratio, Hiera-L", cost("sam2.1_hiera_l", "gfr+lfr")["refiner_fps_ratio"])
    if bench.options.where:
        where.tell("single clicks, ViT-H with refiner", partial(cost, "sam_vit_h", "gfr+lfr"), bench.device)


def encoders(bench: Bench) -> None:
    """Images that lie on the device, in batches of eight; and how far bf16 takes them from float32."""
    for label in BACKBONES:
        backbone = bench.backbone(label)
        bench.note(f"encoder, {label}", 1e3 * encoder_seconds(backbone, bench))
        images_1SS = torch.randint(0, 256, (1, 3, backbone.image_size, backbone.image_size)).to(bench.device).float()
        with torch.inference_mode():
            exact = backbone.encode(images_1SS)["embedding"]
            with torch.autocast(bench.device, torch.bfloat16):
                half = backbone.encode(images_1SS)["embedding"]
        share = float((half - exact).abs().mean() / exact.abs().mean())
        bench.note(f"bf16's mean difference, of the mean: {label}", share)


def encoder_seconds(backbone: Backbone, bench: Bench) -> float:
    """An image, in bf16."""
    shape = (1 if bench.quick else 8, 3, backbone.image_size, backbone.image_size)
    images_B3SS = torch.randint(0, 256, shape, dtype=torch.uint8).to(bench.device).float()

    def encode(images_B3SS: torch.Tensor) -> torch.Tensor:
        with torch.autocast(bench.device, torch.bfloat16):
            return backbone.encode(images_B3SS)["embedding"]

    with torch.inference_mode():
        return measure(encode, images_B3SS, 1 if bench.quick else 5, bench.device).seconds / shape[0]


def embedding(bench: Bench) -> None:
    """The embed stage on photographs of 6 megapixels, and its encoder alone."""
    count = 4 if bench.quick else 512
    photographs = open_dataset(bench.options.train, split="train", data_root=bench.options.data_root, samples=4)
    images = [photographs.image(sample.image_key) for sample in photographs.samples]
    enlarge(images, bench.folder / "data" / "six", count)
    dataset = open_dataset("folder:six", split="val", data_root=bench.folder / "data")
    model, backbone = bench.model("sam_vit_h", precision="bf16"), bench.backbone("ViT-H")

    def embed() -> float:
        stage = Embed(dataset, model, "stretch", lambda: backbone, bench.runtime)
        out = Path(tempfile.mkdtemp(dir=bench.folder))
        (found,) = whole(stage, (out,), out.with_suffix(".shards"))
        return float(found["images_per_second"])

    rate = embed()
    bench.note("embed, images/s", rate)
    bench.note("embed", rate * encoder_seconds(backbone, bench))
    if bench.options.where:
        where.tell("embed", embed, bench.device)


def trainings(bench: Bench) -> None:
    """Steps of the paper's trainings: the decoder's, then the refiner's, from embeddings; and with the encoder."""
    samples, batch, steps, clicks = (4, 2, 6, 2) if bench.quick else (64, 16, 40, 20)
    data = bench.options.train
    dataset = open_dataset(data, split="train", data_root=bench.options.data_root, samples=samples)
    model = bench.model("sam_vit_h", precision="bf16")
    cache = bench.folder / "train embedded"
    cache.mkdir()
    stage = Embed(dataset, model, "pad", lambda: bench.backbone("ViT-H"), bench.runtime)
    whole(stage, (cache,), bench.folder / "train shards")
    bench.backbones.clear()
    config = TrainConfig(
        data=data,
        samples=samples,
        steps=steps,
        batch_size=batch,
        max_clicks=clicks,
        warmup_steps=0,
        precision="fp32" if bench.quick else "bf16",
    )
    unfrozen = {"modules": ("encoder", "decoder", "refiner"), "batch_size": 2 if bench.quick else 4}
    small = bench.model("sam_vit_b", precision="bf16", freeze_backbone=False)
    for name, network, changes, inputs in (
        ("train, γ 0.6", model, {}, {"embeddings": cache}),
        ("train, decoder alone, γ 0.6", model, {"modules": ("decoder",)}, {"embeddings": cache}),
        ("train, γ 0.9", model, {"gamma": 0.9}, {"embeddings": cache}),
        ("train, unfrozen ViT-B", small, unfrozen, {}),
    ):
        changed = config.model_copy(update=changes)
        warm = 4 if bench.quick else 16
        bench.note(name, steps_per_second(network, changed, inputs, bench.folder / name, bench.runtime, warm))
        if bench.options.where:
            again = partial(steps_per_second, network, changed, inputs, runtime=bench.runtime, warm=warm)
            where.tell(name, lambda again=again: again(folder=Path(tempfile.mkdtemp(dir=bench.folder))), bench.device)


def fastest(work: Callable[[], object], bench: Bench) -> float:
    """Seconds of the fastest of a few repetitions after a warm-up, until the device has done it."""
    return measure(lambda _: work(), torch.empty(0), 1 if bench.quick else 5, bench.device).seconds


def run_tests(bench: Bench) -> None:
    """tests/samref on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/samref", "-p", "no:cacheprovider"]
    environment = {**os.environ, "SAMREF_TEST_DEVICE": bench.device}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    print(done.stdout[-4000:], flush=True)
    if done.returncode:
        raise RuntimeError(done.stdout.strip().rpartition("\n")[2] or done.stderr[-200:])


def commit() -> str:
    """The tree's, where git knows it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, text=True, capture_output=True, check=False).stdout.strip() or "unknown"
    return "unknown"


def build_on(device: str) -> None:
    """Draw random weights where they are used: a large network's take seconds on the host."""
    build = weights.build

    def built(*arguments: Any, **options: Any) -> Backbone:
        try:
            with torch.device(device):
                return build(*arguments, **options)
        except Exception:  # a network that cannot be made there
            return build(*arguments, **options)

    weights.build = built


PARTS = (
    ("click loops", loops, 150),
    ("encoders", encoders, 20),
    ("next click and IoU", judgements, 20),
    ("embed stage", embedding, 40),
    ("trainings", trainings, 110),
    ("single clicks", single_clicks, 60),
)
"""What matters most first."""


def main() -> int:
    """Measure, or read what was measured elsewhere, and report; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--evaluate", help="dataset of the click loops (default: davis; with --quick: shapes)")
    parser.add_argument("--train", help="dataset of trainings and photographs (default: ecssd; with --quick: shapes)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=[name for name, _, _ in PARTS], metavar="PART")
    parser.add_argument("--where", action="store_true", help="needs twice the time, or more")
    parser.add_argument("--commit", help="default: what git says")
    parser.add_argument("--out", type=Path, help="file for the report as JSON")
    parser.add_argument("--read", type=Path, help="a report's JSON, instead of measuring")
    parser.add_argument("--results", type=Path, help="file of all claims' results; the GPU's section is replaced")
    options = parser.parse_args()
    options.evaluate = options.evaluate or ("shapes" if options.quick else "davis")
    options.train = options.train or ("shapes" if options.quick else "ecssd")
    found = json.loads(options.read.read_text()) if options.read else run(options)
    place = f"{found['card']}, torch {found['torch']}, {found['date']}, commit {found['commit']}"
    heading = f"{place}; {found['seconds']:.0f} s."
    print(f"\n{heading}\n", *table(found), sep="\n")
    if options.results:
        write_results(options.results, "On a GPU", f"`python benchmarks/gpu.py`: {heading}", table(found))
    return 1 if found["failed"] else 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every part; the report."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder), Runtime(device=options.device).resolve_device())
        build_on(bench.device)
        parts = [part for part in PARTS if not options.parts or part[0] in options.parts]
        for name, work, seconds in [*parts, ("tests", run_tests, 600)] if options.tests else parts:
            with bench.part(name, seconds * (3 if options.where else 1)):
                work(bench)
        return bench.report()


if __name__ == "__main__":
    sys.exit(main())
