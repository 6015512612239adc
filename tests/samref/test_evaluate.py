"""The click loop: several θ at once against one θ, one sample, one click at a time."""

import json
import math

import numpy as np
import pytest
import torch

from samref import evaluate as module
from samref.clicks import Click, next_click
from samref.config import EvaluateConfig, ModelConfig
from samref.data import open_dataset
from samref.embeddings import Embeddings
from samref.metrics import iou
from samref.weights import build_model

THETAS = (0.5, 1.0, 1.1, 1.5)
# Six steps do not teach an error head to be sure of anything: what it suspects at all counts as an error here.
SUSPICIOUS = {"error_threshold": 1e-4}


def clicks_of(folder):
    with np.load(folder / "clicks.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def evaluated(runner):
    """Four θ in one go, with a refiner that really disagrees with itself."""
    trials = [runner.build(model=SUSPICIOUS, evaluate={"theta": theta}) for theta in THETAS]
    for planned in trials[:1]:
        for stage in planned.stages:
            if stage.kind not in ("evaluate", "profile") and not (runner.root / stage.id).exists():
                runner.run_stages([stage])
    outs = runner.run_stages([planned.stage("evaluate") for planned in trials], root=runner.root / "together")
    return trials, outs


def plain_loop(runner, planned):
    """The protocol as it is told: one sample, one click at a time; nothing shared, nothing batched."""
    stage = planned.stage("evaluate")
    config = EvaluateConfig(**stage.config["evaluate"])
    model = build_model(
        ModelConfig(**stage.config["model"]), runner.runtime, weights=runner.root / stage.needs["weights"]
    )
    embeddings = Embeddings(runner.root / stage.needs["embeddings"])
    dataset = open_dataset("shapes", split="val", data_root=None, samples=config.samples)
    rows = []
    for position, sample in enumerate(dataset.samples):
        image, truth = dataset.image(sample.image_key), dataset.truth(sample.key)
        image_3HW = torch.from_numpy(image.transpose(2, 0, 1).copy())
        context = model.prepare(embeddings.read([sample.image_key], "cpu"), image_3HW[None], [image_3HW])
        mask, clicks, coarse, result, area = np.zeros(truth.shape, np.uint8), [], None, None, None
        for count in range(1, config.max_clicks + 1):
            click = next_click(truth, mask, clicks)
            if click is None:
                break
            clicks.append(click)
            with torch.inference_mode():
                found = model(context, [clicks], coarse, None if result is None else [result], [truth.shape])
                now = int(found.error_area_B[0])
                ratio = math.nan if area is None else now / max(1, area)
                on_global = area is None or ratio < config.theta
                result = model.paste(found, 0, None if on_global else result, truth.shape)
            coarse, area, mask = found.coarse_B1MM, now, (result > 0).numpy()
            rows.append((position, count, *click, iou(truth, mask), 1 if on_global else 2, ratio))
    return rows


@pytest.mark.slow
def test_several_thetas_at_once_equal_one_at_a_time(runner, evaluated):
    trials, outs = evaluated
    for planned, out in zip(trials, outs, strict=True):
        columns = clicks_of(out)
        expected = [np.array(column) for column in zip(*plain_loop(runner, planned), strict=True)]
        names = ("sample", "click", "x", "y", "positive", "iou", "pasted_on", "error_ratio")
        for name, column in zip(names, expected, strict=True):
            np.testing.assert_array_equal(columns[name], column.astype(columns[name].dtype), err_msg=name)


def test_the_thetas_really_disagree(evaluated):
    pasted = [tuple(clicks_of(out)["pasted_on"]) for out in evaluated[1]]
    assert len(set(pasted)) > 1
    assert all(row[0] == module.GLOBAL for row in pasted)


def test_rows_are_whole_and_consistent(evaluated):
    for planned, out in zip(*evaluated, strict=True):
        columns = clicks_of(out)
        keys = json.loads((out / "samples.json").read_text())
        assert len(keys) == 5
        theta = planned.config.evaluate.theta
        for position in range(5):
            own = columns["sample"] == position
            assert columns["click"][own].tolist() == list(range(1, own.sum() + 1))
            spots = list(zip(columns["x"][own], columns["y"][own], strict=True))
            assert len(set(spots)) == len(spots)  # no pixel is clicked twice
            assert columns["positive"][own][0]
            ratios, pasted = columns["error_ratio"][own], columns["pasted_on"][own]
            assert math.isnan(ratios[0])
            assert ((ratios[1:] < theta) == (pasted[1:] == module.GLOBAL)).all()
        metrics = json.loads((out / "summary.json").read_text())["metrics"]
        assert metrics["num_samples"] == 5
        assert metrics["clicks_on_global"] + metrics["clicks_on_previous"] == pytest.approx(len(columns["click"]) / 5)


def test_headline_counts_success_at_the_last_click_as_failure():
    def path(*ious):
        return [module.Record(Click(0, 0, True), value, module.NO_SELECTOR, math.nan) for value in ious]

    config = EvaluateConfig(max_clicks=3)
    found = module.headline([path(0.5, 0.92, 0.93), path(0.1, 0.2, 0.9), path(0.99)], config)
    assert found["noc_at_90"] == (2 + 3 + 1) / 3
    assert found["nof_at_90"] == 1
    assert found["miou_at_1"] == pytest.approx((0.5 + 0.1 + 0.99) / 3)
    assert found["miou_at_3"] == pytest.approx((0.93 + 0.9 + 0.99) / 3)  # nothing was wrong any more after 0.99
    assert "clicks_on_global" not in found


def test_an_early_stop_gives_the_same_noc_for_less_work(runner, evaluated):
    planned = runner.build(model=SUSPICIOUS, evaluate={"theta": 1.1, "stop_at": 0.3})
    out = runner.run(planned)["evaluate"]
    whole = clicks_of(evaluated[1][THETAS.index(1.1)])
    early = clicks_of(out)
    assert len(early["click"]) <= len(whole["click"])
    for position in range(5):
        a, b = (columns["iou"][columns["sample"] == position] for columns in (whole, early))
        reached = np.flatnonzero(a >= 0.3)
        assert b.tolist() == a[: reached[0] + 1 if len(reached) else None].tolist()
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert "noc_at_90" not in metrics
    assert "miou_at_5" not in metrics


def test_waves_do_not_change_a_result(runner, evaluated, monkeypatch):
    monkeypatch.setattr(module, "_WAVE", 2)
    monkeypatch.setattr(module, "_BATCH", 3)
    planned = runner.build(model=SUSPICIOUS, evaluate={"theta": 1.0})
    stage = planned.stage("evaluate")
    out = runner.run_stages([stage], root=runner.root / "small-waves")[0]
    whole, small = clicks_of(evaluated[1][THETAS.index(1.0)]), clicks_of(out)
    for name in whole:
        np.testing.assert_array_equal(whole[name], small[name], err_msg=name)
