"""samref.starts: people's first clicks, masks to be corrected and boxes, from the file to the clicks that follow."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from samref.clicks import next_click
from samref.config import EvaluateConfig, Runtime
from samref.contents import Contents
from samref.data import DataError, MissingDataError, open_dataset
from samref.embeddings import Embeddings
from samref.metrics import iou
from samref.starts import Starts
from samref.weights import build_model

SAMPLES = 3
UNTRAINED = {"train": None, "model": {"checkpoint": "auto"}}
HEADER = "dataset,full_stem,image_stem,object_stem,click_type,model_type,device,x,y,w,h"


@pytest.fixture(scope="module")
def shapes():
    return open_dataset("shapes", split="val", data_root=None, samples=SAMPLES)


@pytest.fixture(scope="module")
def keys(shapes):
    return [sample.key for sample in shapes.samples]


@pytest.fixture(scope="module")
def local(runner, tmp_path_factory):
    """Runs evaluations whose data root is a folder of its own."""
    root = tmp_path_factory.mktemp("starts")
    (root / "data").mkdir()
    return type(runner)(root / "stages", replace(runner.runtime, data_root=root / "data"))


def row(key, x, y, *, dataset="shapes", kind="first", size=(256, 256)):
    return f"{dataset},{key},{key},0,{kind},ritm,pc,{x},{y},{size[0]},{size[1]}"


def write(file, *rows, header=HEADER):
    file.write_text("\n".join([header, *rows]) + "\n")


def evaluation(local, **settings):
    return local.build(**UNTRAINED, evaluate={"samples": SAMPLES, "max_clicks": 3, **settings})


def played(local, planned, name):
    """The output folders of evaluations that run in one go."""
    for stage in planned[0].stages:
        if stage.kind == "embed" and not (local.root / stage.id).exists():
            local.run_stages([stage])
    return local.run_stages([each.stage("evaluate") for each in planned], root=local.root / name)


def clicks_of(folder):
    with np.load(folder / "clicks.npz") as file:
        return dict(file)


def metrics_of(folder):
    return json.loads((folder / "summary.json").read_text())["metrics"]


def test_everybodys_first_clicks_in_one_go_are_each_alone(local, keys):
    """Seed n takes an object's n-th click, from 0 and around; what follows is as if it were the only one."""
    places = [[(70, 80), (90, 100.5)], [(128, 128), (60, 200), (10, 20)], [(31, 32)]]
    # Halved: people clicked on a smaller image. What is of another dataset, or no first click, does not count.
    rows = [row(key, x / 2, y / 2, size=(128, 128)) for key, own in zip(keys, places, strict=True) for x, y in own]
    others = row("000", 1, 2, dataset="DAVIS"), row(keys[0], 3, 4, kind="subsequent")
    write(local.runtime.data_root / "clicks.csv", *others, *rows)
    people = [evaluation(local, first_clicks="clicks.csv", seed=seed) for seed in range(3)]
    together = played(local, people, "together")
    for seed, (planned, out) in enumerate(zip(people, together, strict=True)):
        (alone,) = played(local, [planned], f"alone-{seed}")
        own, expected = clicks_of(out), clicks_of(alone)
        assert all(np.array_equal(own[name], expected[name], equal_nan=name != "positive") for name in own)
        begun = own["click"] == 1
        wanted = [at[seed % len(at)] for at in places]
        assert list(zip(own["x"][begun], own["y"][begun], strict=True)) == [(int(x), int(y)) for x, y in wanted]
        assert own["positive"][begun].all()
        assert metrics_of(out)["num_samples"] == SAMPLES
    assert len({metrics_of(out)["miou_at_1"] for out in together}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n{row('no-such', 1, 2)}", r"clicks\.csv, row 2: full_stem is 'no-such', which is no object of"),
        (f"{HEADER}\n\n{row('KEY', 256, 2)}", r"clicks\.csv, row 3: \(256, 2\) lies outside the image of 256×256 px"),
        (f"{HEADER}\n{row('KEY', 'a', 2)}", r"clicks\.csv, row 2: x is 'a'; it should be a number of px"),
        (f"{HEADER}\n{row('KEY', 'nan', 2)}", r"clicks\.csv, row 2: \(nan, 2\) lies outside"),
        (f"{HEADER}\nshapes,KEY", r"clicks\.csv, row 2: x is None"),
        ("full_stem,x\nKEY,1", r"clicks\.csv: has no column y; it has full_stem, x"),
        ("", r"clicks\.csv: has no column full_stem, x, y; it has none"),
        (f"{HEADER}\n{row('KEY', 1, 2)}", r"clicks\.csv: has no first click for 2 of 3 objects of shapes \(.+\); add"),
        ("\0\xff", r"clicks\.csv: "),
    ],
)
def test_what_is_wrong_in_a_file_of_clicks_is_one_line_with_its_row(tmp_path, keys, text, message):
    (tmp_path / "clicks.csv").write_text(text.replace("KEY", keys[0]), encoding="latin-1")
    config = EvaluateConfig(data="shapes", samples=SAMPLES, first_clicks="clicks.csv")
    with pytest.raises(DataError, match=message) as found:
        Starts.open(config, tmp_path)
    assert "\n" not in str(found.value)


def test_without_sizes_positions_are_those_of_the_image(tmp_path, shapes, keys):
    write(tmp_path / "clicks.csv", *(f"{key},10,300" for key in keys), header="full_stem,x,y")
    starts = Starts.open(EvaluateConfig(data="shapes", samples=SAMPLES, first_clicks="clicks.csv"), tmp_path)
    with pytest.raises(DataError, match=r"clicks\.csv, row 2: \(10, 300\) lies outside the image of 256×256 px"):
        starts.of(keys[0], shapes.truth(keys[0]))


def test_masks_are_corrected_where_they_are_wrong(local, shapes, keys):
    """The first click is RITM's on the given mask, and the IoU of that mask is told."""
    folder = local.runtime.data_root / "rough"
    folder.mkdir()
    rough = {}
    for key in keys:
        rough[key] = cv2.dilate((shapes.truth(key) == 1).astype(np.uint8), np.ones((9, 9)))
        rough[key][:, :100] = 0
        cv2.imwrite(str(folder / f"{key}.png"), rough[key] * 255)
    (corrected,) = played(local, [evaluation(local, start="rough")], "corrected")
    (empty,) = played(local, [evaluation(local)], "empty")
    found = clicks_of(corrected)
    for index, key in enumerate(keys):
        click = next_click(shapes.truth(key), rough[key], ())
        (first,) = np.flatnonzero((found["sample"] == index) & (found["click"] == 1))
        assert (found["x"][first], found["y"][first], found["positive"][first]) == tuple(click)
    expected = np.mean([iou(shapes.truth(key), rough[key]) for key in keys])
    assert metrics_of(corrected)["miou_at_0"] == pytest.approx(expected, abs=1e-6)
    assert "miou_at_0" not in metrics_of(empty)
    assert not np.array_equal(found["iou"], clicks_of(empty)["iou"])


def test_masks_that_are_not_there_or_do_not_fit_are_one_line(tmp_path, shapes, keys):
    config = EvaluateConfig(data="shapes", samples=SAMPLES, start="rough")
    with pytest.raises(MissingDataError, match=r"rough: no such folder, which evaluate\.start names"):
        Starts.open(config, tmp_path)
    (tmp_path / "rough").mkdir()
    for key in keys[:2]:
        cv2.imwrite(str(tmp_path / "rough" / f"{key}.png"), np.eye(20, dtype=np.uint8) * 255)
    with pytest.raises(DataError, match=rf"has no mask to start from for 1 of 3 objects \({keys[2]}\)"):
        Starts.open(config, tmp_path)
    starts = Starts.open(config.model_copy(update={"samples": 1}), tmp_path)
    with pytest.raises(DataError, match=r"\.png: is 20×20 px, its object's mask 256×256"):
        starts.of(keys[0], shapes.truth(keys[0]))
    with pytest.raises(DataError, match=r"evaluate\.start is sp, which davis585 alone has, not shapes"):
        Starts.open(config.model_copy(update={"start": "sp"}), tmp_path)


def test_what_an_evaluation_begins_with_is_in_its_fingerprints(tmp_path, keys):
    """Contents, not names: an edited row or mask is another evaluation, a renamed file the same."""
    (tmp_path / "rough").mkdir()
    contents = []
    for grey in (255, 254):
        write(tmp_path / f"{grey}.csv", *(row(key, grey, 1) for key in keys))
        for key in keys:
            cv2.imwrite(str(tmp_path / "rough" / f"{key}.png"), np.full((256, 256), grey, np.uint8))
        prints, data = Contents(Runtime(data_root=tmp_path), None), {"data": "shapes", "samples": SAMPLES}
        for settings in ({"first_clicks": f"{grey}.csv"}, {"start": "rough"}, {"start": "box"}):
            contents.append(prints.starts(EvaluateConfig(**data, **settings)))
    (first, masks, box), (edited, other_masks, other_box) = contents[:3], contents[3:]
    assert first.keys() == edited.keys() == {"first_clicks"}
    assert first != edited
    assert masks != other_masks
    assert box == other_box == {"start": "box"}
    (tmp_path / "renamed.csv").write_bytes((tmp_path / "255.csv").read_bytes())
    assert prints.starts(EvaluateConfig(**data, first_clicks="renamed.csv")) == first
    assert prints.starts(EvaluateConfig(**data)) == {}
    missing = prints.starts(EvaluateConfig(**data, first_clicks="gone.csv"))
    assert missing == {"first_clicks": "missing:gone.csv"}
    assert "gone.csv: no such file" in prints.missing["shapes"]


def test_a_box_is_a_prompt_before_and_with_the_clicks(local, shapes, keys):
    """Against segment-anything's steps by hand: the box alone, then the box and a click on the mask that it gave."""
    planned = evaluation(local, start="box")
    (out,) = played(local, [planned], "boxed")
    found, stage = clicks_of(out), planned.stage("evaluate")
    network = build_model(stage.model, local.runtime, weights=None)
    features = Embeddings(local.root / stage.needs["embeddings"]).read(
        [shapes.samples[0].image_key], local.runtime.device
    )
    truth = shapes.truth(keys[0])
    ys, xs = np.nonzero(truth == 1)
    box = torch.tensor([[xs.min(), ys.min(), xs.max(), ys.max()]], dtype=torch.float32)
    with torch.inference_mode():
        none = torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long)
        alone = network.backbone.decode(features, *none, None, boxes_B4=box)
        mask = cv2.resize(alone[0, 0].numpy(), truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
        click = next_click(truth, mask, ())
        points = torch.tensor([[[click.x, click.y]]], dtype=torch.float32)
        clicked = network.backbone.decode(features, points, torch.tensor([[int(click.positive)]]), alone, boxes_B4=box)
        after = cv2.resize(clicked[0, 0].numpy(), truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
    assert (found["x"][0], found["y"][0], found["positive"][0]) == tuple(click)
    assert found["iou"][0] == pytest.approx(iou(truth, after), abs=1e-3)
    assert metrics_of(out)["miou_at_0"] > 0.3


def test_a_start_and_peoples_first_clicks_exclude_each_other():
    with pytest.raises(ValueError, match=r"start is box and first_clicks is a\.csv; people made these clicks without"):
        EvaluateConfig(start="box", first_clicks="a.csv")
