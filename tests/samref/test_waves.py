"""samref.waves: a dataset in waves, in whatever memory there is. Without a GPU, Triton interprets its kernels."""

import logging

import cv2
import numpy as np
import pytest
import torch

from samref import waves
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.data import open_dataset
from samref.embed import DataSource, embed
from samref.embeddings import Embeddings
from samref.shards import whole
from samref.weights import build_model

MODEL = ModelConfig(backbone="tiny", checkpoint="none", refiner_width=16, refiner_blocks=1, patch_size_px=32)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Five small images of two sizes, a network without a refiner, and their embeddings."""
    root, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    for name in ("images", "masks", "embeddings"):
        (root / name).mkdir()
    for i in range(5):
        height, width = (24, 32) if i % 2 else (32, 20)
        mask = np.zeros((height, width), np.uint8)
        mask[4:-4, 5 : 12 + i] = 255
        cv2.imwrite(str(root / "images" / f"{i}.png"), rng.integers(0, 256, (height, width, 3), np.uint8))
        cv2.imwrite(str(root / "masks" / f"{i}.png"), mask)
    model, runtime = MODEL.model_copy(update={"refiner": "none"}), Runtime(data_root=root, device=DEVICE)
    name = f"folder:{root}"
    source = DataSource(name=name, split="val", samples=None)
    whole(embed(model, source, "stretch", inputs={}, runtime=runtime), (root / "embeddings",), root / "shards")
    dataset = open_dataset(name, split="val", data_root=root, samples=None)
    return build_model(model, runtime, weights=None), dataset, Embeddings(root / "embeddings")


def play(small, clicks=2, parts=(range(5),)):
    network, dataset, embeddings = small
    config = EvaluateConfig(data="davis", max_clicks=clicks)
    played = list(waves.play(network, [config], dataset, embeddings, DEVICE, 2, parts))
    return [sample for paths, _ in played for (sample,) in paths], [calls for _, calls in played]


@pytest.mark.slow
def test_samples_come_in_order_and_in_waves(small, monkeypatch):
    paths, calls = play(small)
    assert calls == [6, 4]  # two in play, so the five make two waves; two clicks each
    assert [(sample.mask.height, sample.mask.width) for sample in paths] == [(32, 20), (24, 32)] * 2 + [(32, 20)]
    in_parts, calls = play(small, parts=(range(1, 3), range(4, 5)))
    assert calls == [4, 2]  # no wave has samples of two parts
    assert [sample.mask.height for sample in in_parts] == [24, 32, 32]
    monkeypatch.setattr(waves, "LARGEST", 1)
    alone, calls = play(small, clicks=1)
    assert calls == [1] * 5
    assert [sample.records[0].click for sample in alone] == [sample.records[0].click for sample in paths]


@pytest.mark.slow
def test_a_wave_that_does_not_fit_is_played_in_halves(small, monkeypatch, caplog):
    network = small[0]
    decode, asked = network.backbone.decode, []

    def with_room_for_one(features, *arguments, **keywords):
        asked.append(len(features["embedding"]))
        if asked[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(features, *arguments, **keywords)

    expected, _ = play(small, clicks=1)
    monkeypatch.setattr(network.backbone, "decode", with_room_for_one)
    monkeypatch.setattr(waves, "_IN_PLAY", 1)
    with caplog.at_level(logging.WARNING):
        paths, calls = play(small, clicks=1)
    assert caplog.messages == [
        "out of memory; 2 samples at once from here on",
        "out of memory; 1 samples at once from here on",
    ]
    assert (asked, calls) == ([5, 2, 1, 1, 1, 1, 1], [5])
    assert [sample.records[0].click for sample in paths] == [sample.records[0].click for sample in expected]
    monkeypatch.setattr(network.backbone, "decode", lambda *a, **k: with_room_for_one({"embedding": [0, 0]}))
    with pytest.raises(torch.OutOfMemoryError):
        play(small)


def test_waves_follow_images_and_thetas():
    davis, large = (480, 854), (4000, 6000)
    assert waves.at_once(*davis, 1, 38e9) == waves.LARGEST
    assert 1 < waves.at_once(*large, 5, 38e9) < waves.at_once(*large, 1, 38e9) < 32
    assert waves.at_once(*large, 5, 1e9) == 1
