"""Peaks of this very process."""

import numpy as np

from samref import memory


def test_a_peak_is_of_the_work_since_the_reset() -> None:
    memory.reset("cpu")
    before = memory.peaks("cpu")["peak_memory_gb"]
    block = np.ones(50_000_000)
    assert 0.39 < memory.peaks("cpu")["peak_memory_gb"] - before < 0.5
    del block
    assert memory.peaks("cpu")["peak_memory_gb"] - before > 0.39  # a peak stays
    memory.reset("cpu")
    assert memory.peaks("cpu")["peak_memory_gb"] - before < 0.1  # until the next piece of work
    assert set(memory.peaks("cpu")) == {"peak_memory_gb"}
