"""A sweep from its file to its tables in three calls: `read`, `plan`, `run`. Nothing is printed, and no option parsed.

The commands are thin users of this package, and so is a notebook (docs/python.md). Also here: one trial in this very
process (`plan_trial`, `run_here`), and what MLflow lacks of a sweep (`sync`).
"""

from samref_sweep.driver.sweep_plan import SweepPlan, plan, plan_trial, set_aside
from samref_sweep.driver.sweep_run import Result, check_results, run, run_here, sync
from samref_sweep.record.tracking_uri import tracking_uri
from samref_sweep.spec.sweep import read

__all__ = ["Result", "SweepPlan"]
__all__ += ["check_results", "plan", "plan_trial", "read", "run", "run_here", "set_aside", "sync", "tracking_uri"]
