"""Sweeps of SAM-REF trials: `read` a sweep file, `plan` it, `run` what is missing (docs/python.md).

Importing the package imports nothing else; each of the three verbs is looked up when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samref_sweep.driver import plan, read, run

__all__ = ["plan", "read", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from samref_sweep import driver

    return getattr(driver, name)
