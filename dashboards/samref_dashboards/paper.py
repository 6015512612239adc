"""Numbers published with SAM-REF (arXiv 2408.11535, supplement), shown beside ours, never mixed with them.

Every row of numbers is in the order of its table's metrics, and in their stored units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samref_dashboards import metrics
from samref_dashboards.design import SIZES

ORIENTATION = "published, for orientation: on another dataset, another number of objects, or by another protocol"


def comparable(trial: Mapping[str, Any], data: str) -> bool:
    """Tell whether a number published for a dataset may stand beside this trial's: same objects, clicker and clicks."""
    protocol = trial.get("evaluate.clicker"), trial.get("evaluate.max_clicks"), trial.get("evaluate.stop_at")
    same = trial["evaluate.data"] == data and trial.get("num_samples") == SIZES[data]
    return same and protocol == ("ritm", 20, None)


THETA_SOURCE = "paper (ViT-H, DAVIS)"
THETA_METRICS = (metrics.ON_GLOBAL, metrics.ON_PREVIOUS, metrics.NOC_90, metrics.NOC_95)
THETA: dict[float, tuple[float, ...]] = {
    1.05: (7.20, 12.80, 4.60, 9.30),
    1.10: (9.44, 10.56, 4.54, 9.10),
    1.15: (12.89, 7.11, 4.59, 9.20),
    1.20: (15.01, 4.99, 4.61, 9.35),
    1.30: (16.87, 3.13, 4.60, 9.37),
}
"""Table 1: the θ sweep."""

METHODS_SOURCE = "paper (HQSeg-44K, trained on COCO+LVIS)"
METHODS_METRICS = (metrics.LATENCY, metrics.MIOU_5, metrics.NOC_90, metrics.NOC_95, metrics.NOF_95)
METHODS: dict[tuple[str, str], tuple[float, ...]] = {
    ("SegNext", "ViT-B"): (22.1, 0.8571, 7.18, 11.52, 700),
    ("SAM-REF", "ViT-B"): (5.1, 0.89, 6.09, 9.72, 596),
    ("SAM", "ViT-H"): (4.21, 0.88, 6.5, 10.53, 653),
    ("SAM-REF", "ViT-H*"): (5.22, 0.896, 5.44, 9.16, 566),
    ("SAM2", "Hiera-L"): (4.12, 0.8826, 5.9, 9.87, 611),
    ("SAM2-REF", "Hiera-L*"): (5.29, 0.891, 5.6, 8.99, 565),
}
"""Table 2: (method, backbone; * frozen) on the 1 537 images of HQSeg-44K's validation."""

NOC_90_SOURCE = "paper (SAM-REF, its best model)"
NOC_90: dict[str, float] = {"grabcut": 1.36, "berkeley": 1.43, "davis": 4.54, "sbd": 4.44}
"""Main text: SAM-REF's NoC90 by dataset."""

COST_SOURCE = "paper (one V100)"
COST_METRICS = (metrics.PARAMETERS, metrics.FPS, metrics.MEMORY)
COST: dict[tuple[str, str], tuple[float, ...]] = {
    ("SAM", "ViT-H"): (635.6e6, 1.70, 3.7),
    ("SAM-REF", "ViT-H"): (636.3e6, 1.67, 3.7),
    ("SAM2", "Hiera-L"): (216.8e6, 4.65, 2.3),
    ("SAM2-REF", "Hiera-L"): (218.0e6, 4.34, 2.3),
}
"""Table 3: what a model costs."""
