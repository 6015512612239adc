"""Results of sweeps as pages, tables and figures; `read` gives a program their rows (docs/python.md)."""

from samref_dashboards.load import ResultsError, read

__all__ = ["ResultsError", "read"]
