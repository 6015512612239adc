"""The library: the numbers of a sweep's stages, from a few lines of Python."""

import json
from pathlib import Path

import numpy as np
import pytest

import samref
from samref.api import LoadError
from samref.data import open_dataset
from samref.metrics import iou as iou_of

SETTINGS = {"checkpoint": "none", "refiner_width": 16, "refiner_blocks": 2, "patch_size_px": 64}


@pytest.fixture(scope="module")
def store(runner, tmp_path_factory):
    """A store with one trial, as a sweep leaves it; its planned stages and their folders."""
    planned = runner.build(profile=None)
    outs = runner.run(planned)
    root = tmp_path_factory.mktemp("store")
    (root / "stages").symlink_to(runner.root)
    (root / "trials").mkdir()
    (root / "trials" / "trials-1.json").write_text(json.dumps({planned.id: planned.stage("evaluate").id}))
    return root, planned, outs


@pytest.mark.slow
@pytest.mark.cpu_only("a GPU rounds otherwise")
def test_a_loaded_trial_clicks_as_its_evaluation_did(store):
    root, planned, outs = store
    model = samref.load(root, planned.id[:10], device="cpu")
    found = samref.evaluate(model, "shapes", clicks=6, samples=5)
    stage = np.load(outs["evaluate"] / "clicks.npz")
    for column, values in found.clicks.items():
        np.testing.assert_array_equal(values, stage[column], err_msg=column)
    expected = json.loads((outs["evaluate"] / "summary.json").read_text())["metrics"]
    assert {name: expected[name] for name in found.metrics} == dict(found.metrics)
    dataset = open_dataset("shapes", split="val", data_root=Path(), samples=5)
    assert found.samples == tuple(sample.key for sample in dataset.samples)

    images = [dataset.image(sample.image_key) for sample in dataset.samples]
    truths = [dataset.truth(sample.key) for sample in dataset.samples]
    again = samref.evaluate(model, (images, truths), clicks=6)
    assert again.metrics == found.metrics

    sessions = [model.session(image) for image in images]
    rows = list(zip(*(found.clicks[name] for name in ("x", "y", "positive", "iou", "sample")), strict=True))
    for x, y, positive, iou, sample in rows:
        mask = sessions[sample].click(int(x), int(y), bool(positive))
        assert np.float32(iou_of(truths[sample], mask)) == iou
    assert len(sessions[0].clicks) == 6
    sessions[0].reset()
    assert not sessions[0].mask.any()


@pytest.mark.slow
@pytest.mark.cpu_only("a GPU rounds otherwise")
def test_single_clicks_give_the_masks_of_an_evaluation_to_the_bit():
    """Of a decoder alone, whose logits are resized, and of features as embeddings keep them."""
    model = samref.model("tiny", refiner="none", device="cpu")
    found = samref.evaluate(model, "shapes", clicks=10, samples=12)
    dataset = open_dataset("shapes", split="val", data_root=Path(), samples=12)
    sessions = [model.session(dataset.image(sample.image_key)) for sample in dataset.samples]
    truths = [dataset.truth(sample.key) for sample in dataset.samples]
    rows = zip(*(found.clicks[name] for name in ("x", "y", "positive", "iou", "sample")), strict=True)
    ious = [
        (np.float32(iou_of(truths[sample], sessions[sample].click(int(x), int(y), bool(positive)))), iou)
        for x, y, positive, iou, sample in rows
    ]
    assert [own for own, _ in ious] == [expected for _, expected in ious]


def test_what_is_wrong_is_one_line(store):
    root, *_ = store
    for trial, message in (("trial-nothing", "0 trials begin with"), ("train-nothing", "no finished stage is there")):
        with pytest.raises(LoadError, match=message):
            samref.load(root, trial)
    with pytest.raises(ValueError, match="2 images and 1 truths"):
        samref.evaluate("tiny", ([np.zeros((4, 4, 3), np.uint8)] * 2, [np.ones((4, 4), bool)]))
    with pytest.raises(ValueError, match="give H×W×3 uint8"):
        samref.evaluate("tiny", ([np.zeros((4, 4))], [np.ones((4, 4), bool)]))
    with pytest.raises(ValueError, match="image 0 is 0×4×3 uint8; give H×W×3 uint8"):
        samref.evaluate("tiny", ([np.zeros((0, 4, 3), np.uint8)], [np.ones((0, 4), bool)]))
    with pytest.raises(ValueError, match=r"^max_clicks: say it with clicks, "):
        samref.evaluate("tiny", "shapes", max_clicks=3)
    with pytest.raises(ValueError, match="clicks begin with rough, a file for data that has a name"):
        samref.evaluate("tiny", ([np.zeros((4, 4, 3), np.uint8)], [np.ones((4, 4), bool)]), start="rough")
    for settings, message in (
        ({"refiner_width": 17}, "refiner_width is 17: it should be a multiple of 16"),
        ({"refiners": "none"}, "refiners is not a setting; there are backbone, options, checkpoint, "),
        ({"backbone": "./nothing.py:build"}, r"\./nothing\.py:build: there is no file .*nothing\.py"),
    ):
        with pytest.raises(ValueError, match=f"^{message}.*$"):
            samref.model(**settings)
    with pytest.raises(ValueError, match=r"^click_noise_px is 3, and clicker is ritm, which has no noise; .*$"):
        samref.evaluate("tiny", "shapes", click_noise_px=3)
    model = samref.model("tiny", device="cpu", **SETTINGS)
    with pytest.raises(ValueError, match=r"the image is \(4, 4, 3\) of float64; give H×W×3 uint8"):
        model.session(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="outside the image of 6×4 px"):
        model.session(np.zeros((4, 6, 3), np.uint8)).click(6, 0)


def test_it_has_a_version():
    assert samref.__version__[0].isdigit() or samref.__version__ == "unknown"
