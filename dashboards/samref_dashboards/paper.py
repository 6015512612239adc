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

COST_SOURCE = "paper (one V100)"
COST: dict[str, dict[str, float]] = {
    "SAM, ViT-H": {"parameters_leaf": 635.6e6, "fps": 1.70, "memory_gb": 3.7},
    "SAM-REF, ViT-H": {"parameters_leaf": 636.3e6, "fps": 1.67, "memory_gb": 3.7},
    "SAM2, Hiera-L": {"parameters_leaf": 216.8e6, "fps": 4.65, "memory_gb": 2.3},
    "SAM2-REF, Hiera-L": {"parameters_leaf": 218.0e6, "fps": 4.34, "memory_gb": 2.3},
}
"""Table 3: what a model costs."""
