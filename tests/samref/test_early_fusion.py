"""A network through which image, clicks and previous mask go together, trained and evaluated: against a plain loop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samref import backbones, data, metrics, plugins
from samref.clicks import next_click

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CLICKS = 6


def plain_loop(network, image_HW3, truth):
    """Clicks and IoUs by the published evaluation (RITM's), all in torch, with the network alone."""
    side, frame = network.image_size, truth.shape
    image = F.interpolate(torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float(), (side, side), mode="bilinear")
    previous, mask, clicks = torch.zeros(1, 1, *frame), np.zeros(frame, bool), []
    for _ in range(CLICKS):
        clicks.append(next_click(truth, mask, clicks))
        disks = torch.zeros(1, 2, side, side)
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        for click in clicks:
            at_x, at_y = (round(place * side / of) for place, of in zip(click[:2], (frame[1], frame[0]), strict=True))
            disks[0, 0 if click.positive else 1][(x - at_x) ** 2 + (y - at_y) ** 2 <= 25] = 1
        small = F.interpolate(previous, (side, side), mode="bilinear")
        logits = network.layers(torch.cat([image / 127.5 - 1, small, disks], dim=1))
        logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=True)
        previous = F.interpolate(logits, frame, mode="bilinear").sigmoid()
        mask = (previous[0, 0] > 0.49).numpy()
        yield clicks[-1], metrics.iou(truth, mask)


@pytest.mark.cpu_only("a GPU rounds otherwise")
def test_the_evaluation_clicks_as_a_plain_loop(runner, tmp_path):
    name = plugins.beside("./early_fusion.py:build", EXAMPLES)
    network = backbones.build(name, {"width": 8}, seed=3)
    with torch.no_grad():
        network.layers[-1].weight.mul_(300)  # random weights say next to nothing; so masks change with the clicks
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = {"backbone": name, "options": {"width": 8}, "refiner": "none", "checkpoint": str(tmp_path / "weights.pth")}
    untrained = {"steps": 0, "warmup_steps": 0}
    planned = runner.build(model=model, train=untrained, evaluate={"max_clicks": CLICKS}, profile=None)
    outs = runner.run(planned)
    index = json.loads((outs["embed"] / "index.json").read_text())
    assert index["features"] == {}  # an image as a feature is not kept beside the image
    assert not list(outs["embed"].rglob("embedding*"))

    dataset = data.open_dataset("shapes", split="val", data_root=Path(), samples=5)
    expected = []
    with torch.inference_mode():
        for sample in dataset.samples:
            expected += plain_loop(network, dataset.image(sample.image_key), dataset.truth(sample.key))
    found = np.load(outs["evaluate"] / "clicks.npz")
    clicked = list(zip(found["x"], found["y"], found["positive"], strict=True))
    assert clicked == [click for click, _ in expected]
    assert found["iou"] == pytest.approx([iou for _, iou in expected], abs=1e-3)
    assert len({iou for _, iou in expected}) > 15  # the masks change with the clicks
