"""NoC against the IoU that counts: equal to the headline where there is one, and silent above an early stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samref_dashboards.content import gather
from samref_dashboards.design import find_design
from samref_dashboards.iou_levels import LEVELS, read
from samref_dashboards.load import load

Writer = Callable[..., list[dict[str, Any]]]


def test_noc_at_every_level_is_the_headlines(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"train.gamma": (0.6, 0.9)}, num_samples=4)
    results = load([tmp_path])
    values = read(results.sql, find_design(results))
    for trial in trials:
        for percent in (85, 90, 95):
            assert values[trial["trial"], percent / 100] == pytest.approx(trial[f"noc_at_{percent}"])
        own = [values[trial["trial"], level] for level in LEVELS]
        assert own == sorted(own)
    (shown,) = (each for each in gather(results).figures if each.name == "figure-noc-by-level")
    assert len(shown.panels[0].spec["data"]["values"]) == 2 * len(LEVELS)


def test_above_an_early_stop_nothing_is_known(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"train.gamma": (0.6,)}, settings={"evaluate.stop_at": 0.9}, num_samples=2)
    results = load([tmp_path])
    values = read(results.sql, find_design(results))
    assert {level for _, level in values} == {level for level in LEVELS if level <= 0.9}
    assert {trial for trial, _ in values} == {trials[0]["trial"]}
