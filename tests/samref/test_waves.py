"""samref.waves: a dataset in waves, in whatever memory there is. Without a GPU, Triton interprets its kernels."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from replays import replayed

from samref import judging, plugins, waves
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.data import open_dataset
from samref.embed import DataSource, embed
from samref.embeddings import Embeddings
from samref.refiner.recorded import EVERY_CLICK, forget
from samref.shards import whole
from samref.weights import build_model

CLICKER = plugins.beside("./clicker.py:anywhere", Path(__file__).parents[2] / "docs" / "examples")
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


def play(small, clicks=2, parts=(range(5),), **settings):
    network, dataset, embeddings = small
    config = EvaluateConfig(data="davis", max_clicks=clicks, **settings)
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


@pytest.mark.slow
def test_a_clicker_that_is_out_of_memory_once_clicks_in_halves(small, monkeypatch, caplog):
    """Of one's own, a network on the same GPU perhaps; it is asked in other threads than the wave's."""
    clicker, asked = judging.own_click, []

    def short_of_memory(*arguments):
        asked.append(arguments)
        if len(asked) == 6:  # five first clicks are there
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clicker(*arguments)

    monkeypatch.setattr(waves, "_IN_PLAY", 1)
    expected, _ = play(small, clicker=CLICKER)
    monkeypatch.setattr(judging, "own_click", short_of_memory)
    paths, calls = play(small, clicker=CLICKER)
    assert caplog.messages == ["out of memory; 2 samples at once from here on"]
    assert calls == [10]
    own, others = ([[record.click for record in path.records] for path in each] for each in (paths, expected))
    assert own == others


@pytest.mark.gpu_only("a CPU records nothing")
def test_waves_that_are_replayed_make_the_clicks_of_those_that_are_not(tmp_path, monkeypatch):
    """Of several θ, so that calls have any number of nodes; up to roundings, by which a click may move."""
    num_samples = 70
    model = MODEL.model_copy(update={"refiner": "gfr+lfr"})
    runtime = Runtime(device=DEVICE)
    source = DataSource(name="shapes", split="val", samples=num_samples)
    (tmp_path / "embeddings").mkdir()
    whole(embed(model, source, "stretch", inputs={}, runtime=runtime), (tmp_path / "embeddings",), tmp_path / "shards")
    dataset = open_dataset("shapes", split="val", data_root=None, samples=num_samples)
    network, configs = (
        build_model(model, runtime, weights=None),
        [EvaluateConfig(data="shapes", max_clicks=5, theta=theta) for theta in (0.9, 1.05, 1.2)],
    )
    generator = torch.Generator(DEVICE).manual_seed(0)
    for refiner in network.refiner_modules():  # it works, suspects errors, and disagrees over θ
        torch.nn.init.normal_(refiner.fusion.heads[-1].weight, std=0.3, generator=generator)
    monkeypatch.setattr(waves, "LARGEST", 20)

    def clicks():
        parts = [range(num_samples)]
        played = waves.play(network, configs, dataset, Embeddings(tmp_path / "embeddings"), DEVICE, 2, parts)
        return [
            (i, path.above, [record.click for record in path.records])
            for i, paths in enumerate(sample for found, _ in played for sample in found)
            for path in paths
        ]

    recorded = clicks()
    assert replayed(network) == EVERY_CLICK.keys()
    forget(network)
    monkeypatch.setattr(waves, "record", lambda network, stages: None)
    plain = clicks()
    assert len(plain) > num_samples  # some θ part
    same = sum(each in plain for each in recorded)
    assert same > 0.9 * max(len(plain), len(recorded))


def test_waves_follow_images_and_thetas():
    davis, large = (480, 854), (4000, 6000)
    assert waves.at_once(*davis, 1, 38e9) == waves.LARGEST
    assert 1 < waves.at_once(*large, 5, 38e9) < waves.at_once(*large, 1, 38e9) < 32
    assert waves.at_once(*large, 5, 1e9) == 1
