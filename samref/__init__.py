"""SAM-REF (CVPR 2025): the model, its trainer and the click-loop evaluator of interactive segmentation.

Knows nothing of Ray, MLflow, Parquet or YAML: `samref.run_stage.run_job` runs a stage, here and now. For a program of
one's own there are `samref.evaluate`, `samref.model` and `samref.load` (samref/api.py).
"""

from importlib import metadata
from typing import Any

try:
    __version__ = metadata.version("samref-sweep")
except metadata.PackageNotFoundError:  # a cluster's worker gets the package without its distribution
    __version__ = "unknown"

_OF_API = ("evaluate", "load", "model")


def __getattr__(name: str) -> Any:
    if name in _OF_API:
        from samref import api  # imports torch, which plans do without

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
