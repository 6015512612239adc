"""Evaluations: several θ at once against one θ, one sample, one click at a time; and what they write."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from samref import clickloop, kept, path_files, theta_curves
from samref import evaluation as module
from samref.clickloop import Trajectory
from samref.clicks import Click, next_click
from samref.config import EvaluateConfig
from samref.data import open_dataset
from samref.embeddings import Embeddings
from samref.measures import MEASURES
from samref.metrics import iou
from samref.nodes import NO_SELECTOR, Record
from samref.path_files import PathTable
from samref.run_lengths import RunLengths, decode
from samref.weights import build_model

MEASURED = {each.key for each in MEASURES.values() if each.kind == "evaluate"}


THETAS = (0.5, 1.0, 1.1, 1.5)


# Six steps do not teach an error head to be sure of anything: what it suspects at all counts as an error here.
SUSPICIOUS = {"error_threshold": 1e-4}


def clicks_of(folder):
    with np.load(folder / "clicks.npz") as file:
        return dict(file)


def masks_of(folder):
    """Sample's index -> its last mask, in the order of the file."""
    with np.load(folder / "masks.npz") as file:
        counts = np.split(file["counts"], file["offsets"][1:-1])
        rows = zip(file["sample"], file["height"], file["width"], counts, strict=True)
        return {int(sample): decode(height, width, own) for sample, height, width, own in rows}


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
    config = stage.evaluate
    model = build_model(stage.model, runner.runtime, weights=runner.root / stage.needs["weights"])
    embeddings = Embeddings(runner.root / stage.needs["embeddings"])
    dataset = open_dataset("shapes", split="val", data_root=None, samples=config.samples)
    rows = []
    for position, sample in enumerate(dataset.samples):
        image, truth = dataset.image(sample.image_key), dataset.truth(sample.key)
        image_3HW = torch.from_numpy(image.transpose(2, 0, 1).copy())
        image_3HW = image_3HW.to(runner.runtime.device)
        features = embeddings.read([sample.image_key], runner.runtime.device)
        context = model.prepare(features, image_3HW[None], [image_3HW])
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
            coarse, area, mask = found.coarse_B1MM, now, (result > 0).cpu().numpy()
            rows.append((position, count, *click, iou(truth, mask), 1 if on_global else 2, ratio))
    return rows


@pytest.mark.slow
@pytest.mark.cpu_only("on CUDA batches round otherwise than one alone, which moves clicks")
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


def test_one_curve_has_the_metrics_of_every_theta(runner, evaluated):
    """Of the stage that plays the interval, read from its file: every headline number, at each θ that ran alone."""
    planned = runner.build(model=SUSPICIOUS, evaluate={"theta": THETAS[1], "curve": [THETAS[0], THETAS[-1]]})
    (out,) = runner.run_stages([planned.stage("evaluate")], root=runner.root / "curve")
    paths = PathTable.read(out / path_files.FILE)
    assert (paths.length_P.sum(), len(np.unique(paths.sample_P))) == (len(paths.iou_C), 5)
    for theta, alone in zip(THETAS, evaluated[1], strict=True):
        expected = json.loads((alone / "summary.json").read_text())["metrics"]
        for name, values in paths.metrics.items():
            mean = MEASURES[name].unit != "samples"
            found = theta_curves.curve(paths.sample_P, paths.above_P, paths.upto_P, values, mean=mean)
            (value,) = found.value_P[(found.above_P < theta) & (theta <= found.upto_P)]
            assert value == pytest.approx(expected[name], abs=1e-12), (name, theta)
        assert set(expected) - set(paths.metrics) == {"num_samples", module.SECONDS}
    assert len(found.value_P) > 1
    own, alone = clicks_of(out), clicks_of(evaluated[1][1])
    assert all(np.array_equal(own[name], alone[name], equal_nan=name == "error_ratio") for name in ("x", "error_ratio"))


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
        assert set(metrics) <= MEASURED
        assert metrics["clicks_on_global"] + metrics["clicks_on_previous"] == pytest.approx(len(columns["click"]) / 5)


def test_twenty_clicks_measure_all_that_the_table_of_measures_lists():
    path = [Record(Click(0, 0, True), 0.5, 0.5, module.GLOBAL, math.nan)] * 20
    found = module.headline([path], EvaluateConfig(max_clicks=20)) | module.before(
        [Trajectory((), None, start_iou=0.5)]
    )
    assert {*found, module.SECONDS} == MEASURED


def test_the_time_of_a_pass_is_shared_by_all_clicks_of_all_thetas():
    path = [Record(Click(0, 0, True), 0.5, 0.5, module.GLOBAL, math.nan)] * 4
    assert module.per_click(6.0, [[path, path[:2]], [path, path[:2]]]) == 0.5
    assert module.per_click(6.0, [[[]]]) == 6.0  # nothing to click


def test_headline_counts_success_at_the_last_click_as_failure():
    def path(*ious):
        return [Record(Click(0, 0, True), value, value / 2, NO_SELECTOR, math.nan) for value in ious]

    config = EvaluateConfig(max_clicks=3)
    found = module.headline([path(0.5, 0.92, 0.93), path(0.1, 0.2, 0.9), path(0.99)], config)
    assert found["noc_at_90"] == (2 + 3 + 1) / 3
    assert found["nof_at_90"] == 1
    assert found["miou_at_1"] == pytest.approx((0.5 + 0.1 + 0.99) / 3)
    assert found["miou_at_3"] == pytest.approx((0.93 + 0.9 + 0.99) / 3)  # nothing was wrong any more after 0.99
    assert "clicks_on_global" not in found


@pytest.mark.slow
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


def assert_masks_are_the_last_ones(out, num_kept):
    keys, columns, masks = json.loads((out / "samples.json").read_text()), clicks_of(out), masks_of(out)
    dataset = open_dataset("shapes", split="val", data_root=None, samples=len(keys))
    assert len(masks) == num_kept
    for sample, mask in masks.items():
        last = columns["iou"][columns["sample"] == sample][-1]
        assert np.float32(iou(dataset.truth(keys[sample]), mask)) == last


def test_a_threshold_is_a_setting_and_null_is_the_backbones_own(runner, evaluated):
    planned = {
        threshold: runner.build(model=SUSPICIOUS, evaluate={"theta": 1.1, "max_clicks": 1, "threshold": threshold})
        for threshold in (None, 0.5, 0.02)
    }
    masks = {}
    for threshold, trial in planned.items():
        (out,) = runner.run_stages([trial.stage("evaluate")], root=runner.root / f"threshold {threshold}")
        masks[threshold] = masks_of(out)
    assert len({trial.stage("evaluate").id for trial in planned.values()}) == 3
    assert all(np.array_equal(mask, masks[0.5][sample]) for sample, mask in masks[None].items())
    assert all((mask >= masks[0.5][sample]).all() for sample, mask in masks[0.02].items())
    assert sum(mask.sum() for mask in masks[0.02].values()) > sum(mask.sum() for mask in masks[0.5].values())


@pytest.mark.parametrize("refiner", ["none", "gfr+lfr"])
def test_padding_is_the_evaluation_of_what_was_padded_before(runner, tmp_path, refiner):
    """Images of the network's own width, so that nothing is resized: a square with ignored pixels is the same."""
    generator = np.random.default_rng(0)
    for folder in ("wide", "square"):
        for part in ("images", "masks"):
            (tmp_path / folder / part).mkdir(parents=True)
    for number in range(2):
        image = generator.integers(0, 255, (160, 256, 3), np.uint8)
        mask = np.zeros((160, 256), np.uint8)
        cv2.ellipse(mask, (120 + 20 * number, 90), (60, 40), 0, 0, 360, 1, -1)
        square, below = np.zeros((256, 256, 3), np.uint8), np.full((256, 256), 255, np.uint8)
        square[:160], below[:160] = image, mask
        for folder, pixels, truth in (("wide", image, mask), ("square", square, below)):
            cv2.imwrite(str(tmp_path / folder / "images" / f"{number}.png"), pixels)
            cv2.imwrite(str(tmp_path / folder / "masks" / f"{number}.png"), truth)
    clicks = {}
    for folder, resize in (("wide", "pad"), ("square?ignore=255", "stretch"), ("wide", "stretch")):
        evaluate = {"data": f"folder:{tmp_path / folder}", "resize": resize, "max_clicks": 5, "samples": None}
        planned = runner.build(model={"refiner": refiner}, train=None, profile=None, evaluate=evaluate)
        out = runner.run(planned)["evaluate"]
        clicks[folder, resize] = clicks_of(out)
        if resize == "pad":
            assert {mask.shape for mask in masks_of(out).values()} == {(160, 256)}
    padded, before, stretched = clicks.values()
    for name in ("x", "y", "positive", "iou", "pasted_on"):
        assert np.array_equal(padded[name], before[name]), name
    assert not np.array_equal(padded["iou"], stretched["iou"])


def test_the_masks_that_are_kept_have_the_last_iou(evaluated):
    for out in evaluated[1]:
        assert_masks_are_the_last_ones(out, 5)


def test_photographs_and_truths_are_kept_beside_the_masks_and_a_setting_leaves_them_out(evaluated, runner):
    trials, outs = evaluated
    dataset = open_dataset(trials[0].config.evaluate.data, split="val", data_root=Path(), samples=5)
    with np.load(outs[0] / "photographs.npz") as file, np.load(outs[0] / "masks.npz") as masks:
        arrays = dict(file)
        assert arrays["sample"].tolist() == masks["sample"].tolist()
        assert arrays["height"].tolist() == masks["height"].tolist()
    for place, index in enumerate(arrays["sample"]):
        sample = dataset.samples[index]
        start, end = arrays["offsets"][place : place + 2]
        truth = decode(arrays["height"][place], arrays["width"][place], arrays["counts"][start:end])
        assert (truth == (dataset.truth(sample.key) == 1)).all()
        start, end = arrays["jpeg_offsets"][place : place + 2]
        shown = cv2.cvtColor(cv2.imdecode(arrays["jpeg"][start:end], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = dataset.image(sample.image_key)
        assert max(shown.shape) == min(kept.SIDE_PX, max(image.shape))
        assert np.abs(shown.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 3
        assert end - start < 40_000
    without = runner.build(model=SUSPICIOUS, evaluate={"theta": THETAS[0], "photographs": False})
    (out,) = runner.run_stages([without.stage("evaluate")], root=runner.root / "without")
    assert not (out / "photographs.npz").exists()
    assert (clicks_of(out)["iou"] == clicks_of(outs[0])["iou"]).all()


def test_masks_are_those_of_the_hardest_samples_also_after_an_early_stop(runner, monkeypatch):
    monkeypatch.setattr(kept, "KEPT", 3)
    planned = runner.build(model=SUSPICIOUS, evaluate={"theta": 1.1, "stop_at": 0.35})
    (out,) = runner.run_stages([planned.stage("evaluate")], root=runner.root / "three")
    assert_masks_are_the_last_ones(out, 3)


def test_hardest_are_most_clicks_then_the_lowest_last_iou():
    def path(*ious):
        mask = RunLengths(1, 1, np.array([1], np.int32))
        records = (Record(Click(0, 0, True), value, math.nan, NO_SELECTOR, math.nan) for value in ious)
        return Trajectory(tuple(records), mask)

    paths = [path(0.95), path(0.1, 0.5), path(0.2, 0.91), path(0.6, 0.4), Trajectory((), None), path(0.2, 0.3, 0.9)]
    assert kept.hardest(paths, 3) == [3, 1, 5, 2, 0]


def test_a_curve_of_too_many_paths_is_one_line(runner, evaluated, monkeypatch):
    monkeypatch.setattr(clickloop, "MOST_PATHS", 1)
    planned = runner.build(model=SUSPICIOUS, evaluate={"curve": [0.5, 1.5]})
    with pytest.raises(ValueError, match=r"curve is \[0.5, 1.5\], and on \S+ of shapes its θ take more than"):
        runner.run_stages([planned.stage("evaluate")], root=runner.root / "exploded")


@pytest.mark.slow
def test_stopping_at_95_gives_every_noc_for_less_work(runner):
    """The packaged weights, which do reach 95 % of some shapes; all 20 clicks else."""
    metrics, calls = {}, {}
    for stop_at in (None, 0.95):
        planned = runner.build(
            model={"checkpoint": "auto", "refiner": "none"},
            evaluate={"samples": 12, "max_clicks": 20, "stop_at": stop_at},
            **{"train": {"steps": 0, "warmup_steps": 0}},
        )
        out = runner.run(planned)["evaluate"]
        metrics[stop_at] = json.loads((out / "summary.json").read_text())["metrics"]
        calls[stop_at] = len(clicks_of(out)["click"])
    for name in ("noc_at_85", "noc_at_90", "noc_at_95", "nof_at_85", "nof_at_90", "nof_at_95"):
        assert metrics[None][name] == metrics[0.95][name]
    assert calls[0.95] < calls[None]
    assert 0 < metrics[None]["boundary_miou_at_20"] < metrics[None]["miou_at_20"]
    assert "boundary_miou_at_5" not in metrics[0.95]
