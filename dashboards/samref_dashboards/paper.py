"""Numbers published with SAM-REF (arXiv 2408.11535, supplement), shown beside ours, never mixed with them."""

from __future__ import annotations

THETA_SOURCE = "paper (ViT-H, DAVIS)"
THETA: dict[float, dict[str, float]] = {
    1.05: {"clicks_on_global": 7.20, "clicks_on_previous": 12.80, "noc_at_90": 4.60, "noc_at_95": 9.30},
    1.10: {"clicks_on_global": 9.44, "clicks_on_previous": 10.56, "noc_at_90": 4.54, "noc_at_95": 9.10},
    1.15: {"clicks_on_global": 12.89, "clicks_on_previous": 7.11, "noc_at_90": 4.59, "noc_at_95": 9.20},
    1.20: {"clicks_on_global": 15.01, "clicks_on_previous": 4.99, "noc_at_90": 4.61, "noc_at_95": 9.35},
    1.30: {"clicks_on_global": 16.87, "clicks_on_previous": 3.13, "noc_at_90": 4.60, "noc_at_95": 9.37},
}
"""Table 1: the θ sweep."""

METHODS_SOURCE = "paper (HQSeg-44K, trained on COCO+LVIS)"
_METHOD_METRICS = ("sat_latency_seconds", "miou_at_5", "noc_at_90", "noc_at_95", "nof_at_95")
_METHODS: dict[tuple[str, str], tuple[float, ...]] = {
    ("SegNext", "ViT-B"): (22.1, 0.8571, 7.18, 11.52, 700),
    ("SAM-REF", "ViT-B"): (5.1, 0.89, 6.09, 9.72, 596),
    ("SAM", "ViT-H"): (4.21, 0.88, 6.5, 10.53, 653),
    ("SAM-REF", "ViT-H*"): (5.22, 0.896, 5.44, 9.16, 566),
    ("SAM2", "Hiera-L"): (4.12, 0.8826, 5.9, 9.87, 611),
    ("SAM2-REF", "Hiera-L*"): (5.29, 0.891, 5.6, 8.99, 565),
}
METHODS = {who: dict(zip(_METHOD_METRICS, row, strict=True)) for who, row in _METHODS.items()}
"""Table 2: (method, backbone; * frozen) on the 1 537 images of HQSeg-44K's validation."""

NOC_90: dict[str, float] = {"grabcut": 1.36, "berkeley": 1.43, "davis": 4.54, "sbd": 4.44}
"""Main text: SAM-REF's NoC90 by dataset."""

COST_SOURCE = "paper (one V100)"
COST: dict[tuple[str, str], dict[str, float]] = {
    ("SAM", "ViT-H"): {"parameters_leaf": 635.6e6, "fps": 1.70, "memory_gb": 3.7},
    ("SAM-REF", "ViT-H"): {"parameters_leaf": 636.3e6, "fps": 1.67, "memory_gb": 3.7},
    ("SAM2", "Hiera-L"): {"parameters_leaf": 216.8e6, "fps": 4.65, "memory_gb": 2.3},
    ("SAM2-REF", "Hiera-L"): {"parameters_leaf": 218.0e6, "fps": 4.34, "memory_gb": 2.3},
}
"""Table 3: what a model costs."""
