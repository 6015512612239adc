"""What every θ of an interval costs against single ones: decoder calls, paths, time.

    uv run python benchmarks/curve.py --data-root data --weights runs/stages/train-…

`tiny` with its refiner on DAVIS, on a CPU. The calls are exact, the same on every machine, and checked to be the
different histories of clicks among the paths. Without --weights the refiner is random, and decides at random.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from evaluation import THETAS, Case, heading, row, silent, tiny

from samref import evaluation

INTERVALS = ((1.05, 1.3), (1.0, 1.5), (0.5, 2.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder that holds DAVIS")
    parser.add_argument("--samples", type=int, default=64, help="frames of DAVIS, evenly spaced")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="weights of `tiny`: a train stage's folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = Case(*tiny(options, "gfr+lfr"), Path(folder) / "case", options.weights)
        case.ours()  # warm
        _, single_calls, single_seconds = case.ours()
        columns = ("θ", "decoder calls", "of one evaluation", "time of one", "pieces an object", "at most")
        heading(f"Every θ of an interval, tiny with its refiner, {options.samples} frames of DAVIS, CPU", columns)
        row("1.1", str(single_calls), "1", "1", "1", "1")
        _, calls, seconds = case.ours(THETAS)
        row("five", str(calls), f"{calls / single_calls:.2f}", f"{seconds / single_seconds:.2f}", "", "")
        for interval in INTERVALS:
            config = case.config.model_copy(update={"curve": interval})
            began = time.perf_counter()
            whole = [(0, range(len(case.dataset.samples)))]
            parts = (case.network, [config], case.dataset, case.embeddings, case.device, whole, silent)
            ((_, paths, calls),) = evaluation.play_parts(*parts)
            seconds = time.perf_counter() - began
            histories = {
                (sample, tuple(record.pasted_on for record in path.records[:made]))
                for sample, own in enumerate(paths)
                for path in own
                for made in range(len(path.records))
            }
            assert calls == len(histories), f"{calls} decoder calls for {len(histories)} histories"
            pieces = Counter(len(own) for own in paths)
            mean = sum(count * times for count, times in pieces.items()) / len(paths)
            ratios = f"{calls / single_calls:.2f}", f"{seconds / single_seconds:.2f}"
            row(f"[{interval[0]:g}, {interval[1]:g}]", str(calls), *ratios, f"{mean:.1f}", str(max(pieces)))


if __name__ == "__main__":
    main()
