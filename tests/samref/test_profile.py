"""What the profile stage measures."""

import numpy as np
import pytest

from samref.config import ModelConfig, ProfileConfig, Runtime
from samref.measures import MEASURES
from samref.profile import profile

pytestmark = pytest.mark.slow

COLUMNS = {each.name for each in MEASURES.values() if each.kind == "profile"}
SMALL = {"backbone": "tiny", "refiner_width": 16, "refiner_blocks": 1, "patch_size_px": 32}


def measure(device, refiner="gfr+lfr", repeats=2, reported=None):
    return profile(
        ModelConfig(**SMALL, refiner=refiner),
        ProfileConfig(repeats=repeats, prompts_per_side=2),
        runtime=Runtime(device=device),
        report=lambda step, metrics: None if reported is None else reported.append((step, metrics["total"])),
    )


@pytest.fixture(scope="module")
def refined(device):
    return measure(device)


def test_every_column_is_measured_and_consistent(refined):
    # On a busy machine noise can outweigh a refinement, whose time is then left out.
    assert set(refined) | {"refine_seconds"} == COLUMNS
    may_be_zero = {"fps_spread", "load_average"}
    assert all(np.isfinite(value) and value >= 0 for value in refined.values())
    assert {name for name, value in refined.items() if value == 0} <= may_be_zero
    image = refined["encode_seconds"] + refined["click_seconds"]
    assert 0.5 / image < refined["fps"] < 2 / image  # of two repetitions the median of sums is not the sum of medians
    assert refined["refiner_memory_ratio"] >= 1
    # A loop holds one encode for its 20 clicks, the prompts' one for all.
    assert refined["loop_seconds_per_click"] > refined["encode_seconds"] / 20
    assert 0 < refined["loop_seconds_per_click_p95"] < refined["loop_seconds_per_click"] * 20
    assert refined["sat_latency_seconds"] > refined["encode_seconds"]


def test_a_model_without_a_refiner_has_no_columns_of_it(device, refined):
    reported = []
    bare = measure(device, refiner="none", repeats=1, reported=reported)
    gone = {name for name in COLUMNS if name.startswith(("prepare", "refine"))}
    assert set(bare) == COLUMNS - gone - {"fps_spread"}  # one repetition has no spread
    assert [bare[name] for name in ("encode_gflops", "decode_gflops")] == [
        refined[name] for name in ("encode_gflops", "decode_gflops")
    ]
    assert bare["parameters"] < refined["parameters"]
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_flops_are_those_of_the_formula(refined):
    """`tiny`: 16×16 tokens of 96 channels, four heads, two blocks in windows of 8×8 and two global, with attention."""
    tokens, width, head = 256, 96, 24
    patches = tokens * 16 * 16 * 3 * width
    linear = tokens * width * (3 * width + width + 2 * 2 * width)  # qkv, projection, two layers of the MLP
    attention = [
        2 * tokens * keys * width + 2 * tokens * 4 * head * side  # QKᵀ and PV; the relative positions of both axes
        for side, keys in ((8, 64), (16, 256))
    ]
    neck = tokens * (width * 64 + 9 * 64 * 64)
    expected = patches + 4 * linear + 2 * sum(attention) + neck
    assert refined["encode_gflops"] == pytest.approx(2 * expected / 1e9)


def test_memory_is_not_that_of_earlier_work(device):
    """A worker of a sweep profiles after other stages: their peak, and what glibc kept of it, are not the model's."""
    first = measure(device, repeats=1)["memory_gb"]
    earlier = [np.ones(250_000) for _ in range(1000)]  # 2 GB, in pieces small enough for the heap
    del earlier
    assert measure(device, repeats=1)["memory_gb"] == pytest.approx(first, abs=0.1)
    assert first > 0.003  # at least the weights
