"""Numbers published with SAM-REF (arXiv 2408.11535, supplement): rows of published.yaml, by the tables of the paper."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from samref_dashboards import metrics
from samref_dashboards.design import SIZES
from samref_dashboards.metrics import Metric
from samref_dashboards.published import Published, read

ORIENTATION = "published, for orientation: on another dataset, another number of objects, or by another protocol"


def comparable(trial: Mapping[str, Any], data: str) -> bool:
    """Tell whether a number published for a dataset may stand beside this trial's: same objects, clicker and clicks."""
    protocol = trial.get("evaluate.clicker"), trial.get("evaluate.max_clicks"), trial.get("evaluate.stop_at")
    same = trial["evaluate.data"] == data and trial.get("num_samples") == SIZES[data]
    return same and protocol == ("ritm", 20, None)


def _of(table: str, numbers: Sequence[Metric]) -> Iterator[tuple[Published, tuple[float, ...]]]:
    """The rows of one of its tables, with their numbers in the order of these metrics."""
    for row in read():
        if row.source.startswith(f"SAM-REF, arXiv 2408.11535, {table}"):
            yield row, tuple(row.numbers[metric.key] for metric in numbers)


THETA_SOURCE = "paper (ViT-H, DAVIS)"
THETA_METRICS = (metrics.ON_GLOBAL, metrics.ON_PREVIOUS, metrics.NOC_90, metrics.NOC_95)
THETA: dict[float, tuple[float, ...]] = {
    row.settings["evaluate.theta"]: numbers for row, numbers in _of("Table 1", THETA_METRICS)
}
"""Table 1: the θ sweep."""

METHODS_SOURCE = "paper (HQSeg-44K, trained on COCO+LVIS)"
METHODS_METRICS = (metrics.LATENCY, metrics.MIOU_5, metrics.NOC_90, metrics.NOC_95, metrics.NOF_95)
METHODS: dict[tuple[str, str], tuple[float, ...]] = {
    (row.method, row.backbone): numbers for row, numbers in _of("Table 2", METHODS_METRICS)
}
"""Table 2: (method, backbone; * frozen) on the 1 537 images of HQSeg-44K's validation."""

NOC_90_SOURCE = "paper (SAM-REF, its best model)"
NOC_90 = {str(row.protocol["dataset"]): number for row, (number,) in _of("main text", (metrics.NOC_90,))}
"""Main text: SAM-REF's NoC90 by dataset."""

COST_SOURCE = "paper (one V100)"
COST_METRICS = (metrics.PARAMETERS, metrics.FPS, metrics.MEMORY)
COST: dict[tuple[str, str], tuple[float, ...]] = {
    (row.method, row.backbone): numbers for row, numbers in _of("Table 3", COST_METRICS)
}
"""Table 3: what a model costs."""
