"""The click loop on drawn waves: several θ, curves, batches and threads against one at a time."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from samref import evaluation as module
from samref.backbones.backbone import resize_image
from samref.clickloop import ClickLoop
from samref.clicks import Click
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.judging import OneByOne, Together
from samref.nodes import GLOBAL, NO_SELECTOR, Node, Record, Wave
from samref.refiner.resample import Images
from samref.run_lengths import decode
from samref.starts import Start
from samref.thetas import Thetas, at
from samref.transfers import finish
from samref.weights import build_model


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


@pytest.mark.cpu_only("its wave lies on the CPU, where Triton interprets its kernels")
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


@pytest.mark.cpu_only("its wave lies on the CPU, where Triton interprets its kernels")
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
