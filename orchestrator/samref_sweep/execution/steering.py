"""What may change a sweep's course while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from samref_sweep.execution.halving import Halving
from samref_sweep.execution.search import Search
from samref_sweep.execution.spending import Spending


@dataclass
class Steering:
    """What may change a sweep's course while it runs."""

    spending: Spending
    search: Search | None = None
    halving: Halving | None = None
