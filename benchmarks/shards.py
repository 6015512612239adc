"""Stages in shards: how much faster several workers are, and what large numbers of images and shards cost.

    python benchmarks/shards.py sleeping    # 1 to 16 workers whose samples sleep: the shards' own cost
    python benchmarks/shards.py two         # real embedding by `tiny`, two processes of one thread against one
    python benchmarks/shards.py real        # the same by SAM2.1's smallest encoder, with random weights
    python benchmarks/shards.py index       # the index of a million images: opening, finding, memory, open files
    python benchmarks/shards.py board       # ten thousand shards: the memory of who hands them out
    python benchmarks/shards.py all         # one after the other, some ten minutes on an idle machine of two cores

`--quick` walks through it in half a minute; its figures mean nothing. `sleeping` runs its workers as threads, so that
sixteen need no sixteen cores; their shards are written, hashed and brought to the disk as ever. `two` and `real` leave
starting processes out. Every figure that counts is a ratio or a count, but the index's seconds. Needs the packages of
the project; no GPU, no data.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch

from samref.config import ModelConfig, Runtime
from samref.embed import DataSource, embed
from samref.embeddings import Embeddings, EmbeddingWriter, join
from samref.shards import Shards
from samref.threads import on_threads
from samref_sweep.execution.board import Board

SECONDS = 0.05  # a sample's; a shard takes 0.8 s, less than any of a real network


def silent(step: int, metrics: object) -> None:
    """Report nothing."""


def sleeping(folder: Path, samples: int) -> None:
    """Rates of 1 to 16 workers over as many times the rate that the sleep alone would have."""
    print("workers  of the ideal")
    for num_workers in (1, 2, 4, 8, 16):
        shards = Shards(folder / str(num_workers), samples, 8)
        board = Board({number: len(shards.rows(number)) for number in shards.missing()})
        lock = threading.Lock()

        def work(name: str, shards: Shards = shards, board: Board = board, lock: threading.Lock = lock) -> None:
            while True:
                with lock:
                    number = board.take(name)
                if number is None:
                    return
                with shards.writing(number) as aside:
                    time.sleep(SECONDS * len(shards.rows(number)))
                    (aside / "rows").write_text(str(number))
                with lock:
                    board.finish(name, number)

        threads = [threading.Thread(target=work, args=(str(i),)) for i in range(num_workers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{num_workers:7}  {samples * SECONDS / num_workers / (time.perf_counter() - began):.3f}", flush=True)


def two(folder: Path, images: int, backbone: str) -> None:
    """The rate of two processes over that of one; each embeds shards of its own, on a CPU of its own."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for num_workers in (1, 2, 1, 2):
        command = [
            sys.executable,
            __file__,
            "worker",
            backbone,
            tempfile.mkdtemp(dir=folder),
            str(images),
            str(num_workers),
        ]
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(subprocess.Popen([*command, str(own)], stdin=-1, stdout=-1))
                for own in range(num_workers)
            ]
            pipes = [(worker.stdin, worker.stdout) for worker in workers if worker.stdin and worker.stdout]
            for _, said in pipes:
                said.readline()  # the model is there
            began = time.perf_counter()
            for told, _ in pipes:
                told.write(b"\n")
                told.flush()
            cpu = sum(float(said.readline()) for _, said in pipes)
            seconds = time.perf_counter() - began
        rates[num_workers].append(images / seconds)
        print(
            f"{num_workers} of {backbone}: {images / seconds:.3g} images/s, {cpu / images:.3g} CPU s an image",
            flush=True,
        )
    print(f"two workers over one: {max(rates[2]) / max(rates[1]):.2f} (each the better of two runs)")


def worker(backbone: str, folder: Path, images: int, num_workers: int, own: int) -> None:
    """Embed every num_workers-th shard, once a line comes; prints the CPU seconds that it took."""
    if hasattr(os, "sched_setaffinity"):  # one worker's threads take nothing of the other CPU
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[own]})
    model = ModelConfig(backbone=backbone, checkpoint="none")
    source = DataSource(name="shapes", split="val", samples=images)
    stage = embed(model, source, "stretch", inputs={}, runtime=Runtime(device="cpu", threads=1))
    shards = Shards(folder / "shards", stage.total, stage.wave)
    began = 0.0

    def numbers() -> Iterable[int]:
        nonlocal began
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.process_time()
        yield from range(own, shards.count, num_workers)

    with on_threads(1):
        stage.work(shards, numbers(), silent)
    print(time.process_time() - began, flush=True)


def index(folder: Path, num_images: int) -> None:
    """A million images of one value each, in shards of 512."""
    keys = [f"train2017/{i:012}.jpg" for i in range(num_images)]
    shards = Shards(folder / "shards", num_images, 8)
    for number in range(shards.count):
        rows = shards.rows(number)
        with shards.writing(number) as aside:
            writer = EmbeddingWriter(aside, keys[rows.start : rows.stop], {"embedding": (1, 1)}, "fp16")
            writer.receive(0, {"embedding": torch.tensor(rows).float()[:, None, None, None] % 1024})()
            writer.close()
    (out := folder / "out").mkdir()
    join(shards, out, keys, "fp16")
    process = psutil.Process()
    memory, began = process.memory_info().rss, time.perf_counter()
    embeddings = Embeddings(out)
    opened = time.perf_counter() - began
    order = np.random.default_rng(0).integers(0, num_images, 20_000)
    began = time.perf_counter()
    found = embeddings.read([keys[i] for i in order], "cpu")["embedding"].flatten()
    assert torch.equal(found, torch.from_numpy(order).float() % 1024)
    seconds = time.perf_counter() - began
    text = len(json.dumps(keys))
    sizes = {path.name: path.stat().st_size for path in (out / "images.npy", out / "names.bin")}
    maps = sum(".npy" in line for line in Path("/proc/self/maps").read_text().splitlines())
    print(f"{num_images} images in {shards.count} shards: opened in {opened:.3f} s")
    print(f"a row in {seconds / len(order) * 1e6:.0f} µs; {maps} arrays mapped")
    print(f"memory {(process.memory_info().rss - memory) / 1e6:.0f} MB more; on disk {sizes}, names as JSON {text}")


def board(folder: Path, most: int) -> None:
    """The memory of a board while ten thousand shards are worked."""
    del folder
    tracemalloc.start()
    for count in (most // 10, most):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        board = Board(dict.fromkeys(range(count), 512))
        while (number := board.take("a")) is not None:
            board.tell("a", number, {"clicks": number})
            board.finish("a", number)
        print(f"{count} shards: {(tracemalloc.get_traced_memory()[1] - before) / 1e3:.0f} kB at most")


MEASUREMENTS: dict[str, tuple[Callable[..., None], int, int]] = {
    "sleeping": (sleeping, 2048, 128),
    "two": (partial(two, backbone="tiny"), 4096, 32),
    "real": (partial(two, backbone="sam2.1_hiera_t"), 16, 1),
    "index": (index, 1_000_000, 20_000),
    "board": (board, 10_000, 1_000),
}
"""Name → the measurement, how many samples, images or shards it takes, and how many are enough for `--quick`."""


def main() -> None:
    """Run one of the measurements, by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*MEASUREMENTS, "all", "worker"))
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    options = parser.parse_args()
    if options.what == "worker":
        backbone, place, *numbers = options.arguments
        worker(backbone, Path(place), *map(int, numbers))
        return
    for name in MEASUREMENTS if options.what == "all" else (options.what,):
        measure, much, little = MEASUREMENTS[name]
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}:")
            measure(Path(folder), little if options.quick else much)


if __name__ == "__main__":
    main()
