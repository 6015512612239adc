"""samref.derived: metrics by the pattern of their name, by hand; what the clicks do not tell is left out."""

from pathlib import Path

import numpy as np
import pytest

from samref import derived, plugins
from samref.config import EvaluateConfig
from samref.plugins import PluginError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Two samples of four clicks, one of two (nothing was left to click), one that had no click to make.
IOUS = [[0.5, 0.7, 0.9, 0.8], [0.2, 0.3, 0.4, 0.5], [0.9, 1.0], []]
CLICKS = {
    "sample": np.array([sample for sample, own in enumerate(IOUS) for _ in own]),
    "click": np.array([click for own in IOUS for click, _ in enumerate(own, start=1)]),
    "iou": np.array([iou for own in IOUS for iou in own]),
    "positive": np.array([True] * 8 + [False] * 2),
}
KEYS = ["x/a", "b", "x/c", "y/d"]


def found(*names, **settings):
    return derived.of_clicks(names, CLICKS, KEYS, EvaluateConfig(max_clicks=4, **settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noc_at_80", (3 + 4 + 1 + 1) / 4),
        ("noc_at_80_else_5", (3 + 5 + 1 + 1) / 4),
        ("noc_at_80_in_2", (2 + 2 + 1 + 1) / 4),
        ("noc_at_50", (1 + 4 + 1 + 1) / 4),
        ("noc_at_50_else_21", (1 + 4 + 1 + 1) / 4),  # reached at the last click is no failure here
        ("noc_at_80@x", (3 + 1) / 2),
        ("nof_at_80@y", 0),
        ("miou_at_2", (0.7 + 0.3 + 1.0 + 1.0) / 4),
        ("miou_at_2@x", (0.7 + 1.0) / 2),
        ("nof_at_80", 1),
        ("nof_at_80_in_2", 2),
        ("success_at_70_in_2", 3 / 4),
        ("iou_auc_2", (0.6 + 0.25 + 0.95 + 1.0) / 4),
        ("iou_auc_4", ((0.25 + 0.7 + 0.9 + 0.4) / 3 + (0.1 + 0.3 + 0.4 + 0.25) / 3 + 2.95 / 3 + 1) / 4),
    ],
)
def test_by_hand(name, value):
    assert found(name) == pytest.approx({name: value})
    measure = derived.measure(name)
    assert measure.name == name
    assert measure.better == ("higher" if any(each in name for each in ("auc", "success", "miou")) else "lower")


def test_what_the_clicks_do_not_tell_is_left_out():
    assert found("iou_auc_5", "noc_at_80_in_5", "iou_auc_1", "miou_at_5", "noc_at_80@z") == {}
    stopped = EvaluateConfig(max_clicks=4, stop_at=0.85)
    some = derived.of_clicks(("noc_at_80", "noc_at_95", "iou_auc_2"), CLICKS, KEYS[:3], stopped)
    assert some == {"noc_at_80": pytest.approx(8 / 3)}
    assert derived.measure("noc_at_800") is derived.measure("best") is derived.measure("noc_at_80@") is None


def test_one_of_ones_own(tmp_path):
    name = plugins.beside("./metric.py:negative_share", EXAMPLES)
    assert found(name) == {name: pytest.approx(0.2)}
    (tmp_path / "own_metric_nan.py").write_text("def metric(clicks):\n    return clicks['iou'].mean() * float('nan')")
    nan = plugins.beside("./own_metric_nan.py:metric", tmp_path)
    with pytest.raises(PluginError, match=r"own_metric_nan.py:1: it returned nan; return a finite number"):
        found(nan)
