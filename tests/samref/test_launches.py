"""benchmarks/launches.py: what a round asks of a GPU, bounded, so that nobody adds a wait or a loop by accident."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def launches():
    path = Path(__file__).parents[2] / "benchmarks" / "launches.py"
    spec = importlib.util.spec_from_file_location("launches", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.cpu_only("counts on the CPU, where Triton interprets its kernels")
@pytest.mark.slow
@pytest.mark.parametrize(("refiner", "waits", "operators"), [("none", 1, 320), ("gfr+lfr", 2, 660)])
def test_a_click_round_waits_twice_and_asks_nothing_more_for_more_samples(launches, refiner, waits, operators):
    network = launches.network(refiner)
    few, many = (launches.click_round(network, wave) for wave in (2, 5))
    assert few.waits == many.waits == waits
    assert many.operators <= operators
    assert (many.operators - few.operators) / 3 < 1  # what is kept from the first call on is made in the first
    few, many = (launches.train_step(network, batch) for batch in (2, 5))
    assert few.waits == many.waits <= waits + 1
    assert (many.operators - few.operators) / 3 <= 1  # its image's way to the device
