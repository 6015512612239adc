"""The commands `samref-sweep` and `samref-trial`."""

from samref_sweep.cli.commands import main, trial_main

__all__ = ["main", "trial_main"]
