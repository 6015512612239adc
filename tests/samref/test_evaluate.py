"""The click loop: several θ at once against one θ, one sample, one click at a time."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from samref import clickloop, kept, path_files, theta_curves
from samref import evaluation as module
from samref.backbones.backbone import resize_image
from samref.clickloop import ClickLoop, Trajectory
from samref.clicks import Click, next_click
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.data import open_dataset
from samref.embeddings import Embeddings
from samref.judging import GLOBAL, NO_SELECTOR, Node, OneByOne, Record, Together, Wave
from samref.measures import MEASURES
from samref.metrics import iou
from samref.path_files import PathTable
from samref.refiner.resample import Images
from samref.run_lengths import RunLengths, decode
from samref.starts import Start
from samref.thetas import Thetas, at
from samref.transfers import finish
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


def draw_wave(network, seed, num_samples, sides=(40, 130)):
    """Objects in images of different sizes, with features of their own."""
    rng = np.random.default_rng(seed)
    truths, images, embeddings = [], [], []
    for _ in range(num_samples):
        height, width = (int(side) for side in rng.integers(*sides, 2))
        truth = np.zeros((height, width), np.uint8)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.ellipse(truth, centre, (width // 3, height // 4), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        truths.append(truth.astype(np.int8))
        truths[-1][:3] = -1
        images.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)))
        embeddings.append(torch.from_numpy(rng.normal(size=(1, 64, 16, 16)).astype(np.float32)))
    small = torch.stack([resize_image(image, 256, "stretch") for image in images])
    return Wave(0, truths, network.prepare({"embedding": torch.cat(embeddings)}, small, images))


@pytest.fixture(scope="module")
def undecided():
    """A refiner of random weights, whose error areas go up and down."""
    settings = {"refiner_width": 16, "refiner_blocks": 1, "patch_size_px": 64}
    network = build_model(ModelConfig(backbone="tiny", **settings), Runtime(device="cpu"), weights=None)
    generator = torch.Generator().manual_seed(1)
    for refiner in (network.gfr, network.lfr):
        weight = refiner.fusion.heads[-1].weight
        weight.data.copy_(torch.randn(weight.shape, generator=generator))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def bare():
    model = ModelConfig(backbone="tiny", refiner="none")
    return build_model(model, Runtime(device="cpu"), weights=None).requires_grad_(False)


def bits(paths):
    """All that a θ gave, so that NaN equals NaN."""
    return [[(repr(sample.records), sample.mask.counts.tobytes()) for sample in own] for own in paths]


def by_theta(paths, thetas):
    """For each θ each sample's trajectory."""
    return [[at(own, theta) for own in paths] for theta in thetas]


@pytest.mark.parametrize(
    ("clicker", "seed"), [("ritm", 0), ("ritm", 1), ("interformer", 0), ("jitter", 0), ("distance", 0)]
)
def test_sizes_thetas_and_threads_do_not_change_a_click(undecided, clicker, seed):
    """Everything at once, in threads, against one θ and one sample at a time: equal to the last bit."""
    wave = draw_wave(undecided, seed, 4)
    thetas = (0.9, 1.0, 1.05, 1.2)
    config = EvaluateConfig(max_clicks=5, clicker=clicker, click_noise_px=3 if clicker == "jitter" else 0)

    def play(part, values):  # for each θ each sample's trajectory
        return by_theta(ClickLoop(undecided, config, Thetas.each(values), batch=1).run(part)[0], values)

    def part(i):  # its position in the dataset stays, as drawn ties depend on it
        return Wave(i, wave.truths[i : i + 1], wave.context.select([i]))

    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        threaded = list(pool.map(lambda i: play(part(i), thetas), range(4)))
        alone = pool.submit(lambda: [[play(part(i), [theta])[0][0] for i in range(4)] for theta in thetas]).result()
        together = pool.submit(lambda: play(wave, thetas)).result()
    threaded = [[found[t][0] for found in threaded] for t in range(4)]
    assert bits(together) == bits(threaded) == bits(alone)
    pasted = {tuple(record.pasted_on for record in sample.records) for own in alone for sample in own}
    assert len(pasted) > 1


def test_every_theta_of_a_curve_is_that_theta_alone(undecided):
    """At each breakpoint, just above it, and between: clicks, IoUs and masks to the last bit."""
    wave, config = draw_wave(undecided, 4, 2), EvaluateConfig(max_clicks=5)

    def play(thetas):
        return ClickLoop(undecided, config, thetas, batch=1).run(wave)

    paths, _ = play(Thetas.of([EvaluateConfig(curve=(0.95, 1.15))]))
    for own in paths:
        assert [path.above for path in own[1:]] == [path.upto for path in own[:-1]]
        assert own[0].above < 0.95 < own[0].upto
        assert own[-1].upto == 1.15
    ends = sorted({path.upto for own in paths for path in own})
    assert len(ends) > 3
    thetas = [0.95, *ends[-4:], *(math.nextafter(end, 2) for end in ends[-4:-1]), 1.0]
    for theta in thetas:
        (alone,) = by_theta(play(Thetas.each([theta]))[0], [theta])
        assert bits(by_theta(paths, [theta])) == bits([alone]), theta


def test_a_curve_in_steps_is_its_thetas_together(undecided):
    wave, config = draw_wave(undecided, 4, 2), EvaluateConfig(max_clicks=4, curve=(0.95, 1.15, 0.05))
    thetas = Thetas.of([config])
    assert thetas.listed == (0.95, 1.0, 1.05, 1.1, 1.15)
    paths, calls = ClickLoop(undecided, config, thetas, batch=1).run(wave)
    exact, more = ClickLoop(undecided, config, thetas._replace(listed=None), batch=1).run(wave)
    assert bits(by_theta(paths, thetas.listed)) == bits(by_theta(exact, thetas.listed))
    assert calls <= more
    assert {path.upto for own in paths for path in own} <= set(thetas.listed)


def test_a_curve_of_too_many_paths_is_one_line(runner, evaluated, monkeypatch):
    monkeypatch.setattr(clickloop, "MOST_PATHS", 1)
    planned = runner.build(model=SUSPICIOUS, evaluate={"curve": [0.5, 1.5]})
    with pytest.raises(ValueError, match=r"curve is \[0.5, 1.5\], and on \S+ of shapes its θ take more than"):
        runner.run_stages([planned.stage("evaluate")], root=runner.root / "exploded")


def test_batches_make_the_same_first_clicks(undecided):
    """In a batch sums are rounded otherwise: that moves a pixel here and there, and later clicks with it."""
    wave = draw_wave(undecided, 7, 5)
    config = EvaluateConfig(max_clicks=1)
    loops = (ClickLoop(undecided, config, Thetas.each([1.1]), batch=batch) for batch in (1, 4))
    alone, batched = ([own.records[0] for (own,) in loop.run(wave)[0]] for loop in loops)
    for one, other in zip(alone, batched, strict=True):
        assert one.click == other.click
        assert one.iou == pytest.approx(other.iou, abs=1e-3)


def in_batches(wave):
    """The wave as a GPU gets it."""
    return replace(wave, context=replace(wave.context, images=Images.stack(wave.context.images)))


def correcting(network, wave):
    """The wave whose clicks begin with masks: the lower halves of the images."""
    masks = [np.arange(truth.size).reshape(truth.shape) >= truth.size // 2 for truth in wave.truths]
    context = network.correcting(wave.context, [torch.from_numpy(mask) for mask in masks])
    return replace(wave, context=context, starts=[Start(mask_HW=mask) for mask in masks])


@pytest.mark.parametrize("refiner", [True, False])
@pytest.mark.parametrize("begin", [None, correcting])
def test_together_makes_the_clicks_of_one_by_one(undecided, bare, refiner, begin):
    """Up to a pixel here and there: sums are rounded otherwise, and a crop of the image is not rounded to bytes."""
    network = undecided if refiner else bare
    wave = draw_wave(network, 7, 2, (20, 33))
    wave = wave if begin is None else begin(network, wave)
    config, thetas = EvaluateConfig(max_clicks=2), (0.9, 1.05)
    expected, calls = ClickLoop(network, config, Thetas.each(thetas), batch=1).run(wave)
    found, found_calls = ClickLoop(network, config, Thetas.each(thetas), batch=8, together=True).run(in_batches(wave))
    assert found_calls == calls
    if refiner:
        assert len({tuple(record.pasted_on for record in sample.records) for own in found for sample in own}) > 1
        assert all(sample.records[0].pasted_on == GLOBAL for own in found for sample in own)
    for own, other in zip(by_theta(found, thetas), by_theta(expected, thetas), strict=True):
        for (records, mask, *_), (other_records, other_mask, *_) in zip(own, other, strict=True):
            for record, expected_record in zip(records, other_records, strict=True):
                assert record.click == expected_record.click
                assert record.iou == pytest.approx(expected_record.iou, abs=0.01)
                assert record.boundary_iou == pytest.approx(expected_record.boundary_iou, abs=0.03, nan_ok=True)
                assert record.pasted_on == expected_record.pasted_on
            assert abs(decode(*mask).astype(int) - decode(*other_mask)).sum() <= 3  # px


def test_the_judges_of_host_and_device_agree(undecided):
    wave = draw_wave(undecided, 3, 4, (20, 33))
    rng = np.random.default_rng(0)
    for clicker in ("ritm", "interformer", "uniform"):
        config = EvaluateConfig(max_clicks=5, clicker=clicker)
        record = Record(Click(1, 5, True), 0.0, math.nan, NO_SELECTOR, math.nan)
        nodes = [Node(i, 0.0, 2.0, None, (record,)) for i in (2, 0, 3, 3)]
        masks = [torch.from_numpy(rng.random(wave.truths[node.sample].shape) < 0.5) for node in nodes]
        expected = finish(OneByOne(wave, undecided, config).judge(nodes, [mask.numpy() for mask in masks]))
        together = Together(wave, undecided, config, map)
        padded = torch.zeros(4, *together._all_frames.largest, dtype=torch.bool)
        for own, mask in zip(padded, masks, strict=True):
            own[: mask.shape[0], : mask.shape[1]] = mask
        assert repr(finish(together.judge(nodes, padded))) == repr(expected)


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


@pytest.mark.slow
def test_pastes_of_all_twenty_clicks_sum_to_twenty(undecided):
    wave = draw_wave(undecided, 11, 2)
    paths = [own for (own,) in ClickLoop(undecided, EvaluateConfig(), Thetas.each([1.0]), batch=1).run(wave)[0]]
    found = module.headline([sample.records for sample in paths], EvaluateConfig())
    assert found["clicks_on_global"] + found["clicks_on_previous"] == 20
    assert found["clicks_on_previous"] > 0


def test_boundary_iou_is_measured_where_it_is_reported(undecided):
    wave = draw_wave(undecided, 5, 2)
    paths = ClickLoop(undecided, EvaluateConfig(max_clicks=6), Thetas.each([1.1]), batch=1).run(wave)[0]
    for (own,) in paths:
        measured = [not math.isnan(record.boundary_iou) for record in own.records]
        assert measured == [True, False, False, False, True, True]  # after 6 there is no next click
