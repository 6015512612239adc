"""The trainer: schedule, resume, determinism, what is trained and what is not."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from samref import train as train_module
from samref.batches import Batches, resize_truth
from samref.config import TrainConfig
from samref.data import open_dataset


def test_learning_rate_is_the_papers():
    config = TrainConfig()
    assert train_module.learning_rate(config, 0) == 1e-6
    assert train_module.learning_rate(config, 750) == pytest.approx((1e-6 + 1e-4) / 2)
    assert train_module.learning_rate(config, 1500) == 1e-4
    assert train_module.learning_rate(config, 40_750) == pytest.approx(0.5e-4)
    assert 0 < train_module.learning_rate(config, 79_999) < 2e-9


def weights(folder):
    return load_file(folder / "weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_writes_weights_and_curves(runner):
    out = runner.run(runner.build())["train"]
    curve = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    metrics = {"loss", "decoder_nfl", "decoder_dice", "global_error", "global_nfl", "local_error", "local_nfl"}
    assert {point["metric"] for point in curve} == metrics
    assert [point["step"] for point in curve if point["metric"] == "loss"] == [1, 2, 3, 4, 5, 6]
    for step in range(1, 7):
        values = {point["metric"]: point["value"] for point in curve if point["step"] == step}
        assert values.pop("loss") == pytest.approx(sum(values.values()), rel=1e-5)
    names = weights(out).keys()
    assert any(name.startswith("gfr.") for name in names)
    assert any(name.startswith("lfr.") for name in names)
    assert any("mask_decoder" in name for name in names)
    assert not any("image_encoder" in name for name in names)


def test_the_same_settings_give_the_same_weights_and_another_seed_others(runner, tmp_path):
    first = weights(runner.run(runner.build())["train"])
    again = runner.run_stages([runner.build().stage("train")], root=tmp_path)[0]
    assert same(first, weights(again))
    other = weights(runner.run(runner.build(train={"seed": 1}))["train"])
    assert not same(first, other)


def test_gamma_and_theta_reach_the_simulated_rounds(runner):
    first = weights(runner.run(runner.build())["train"])
    assert not same(first, weights(runner.run(runner.build(train={"gamma": 0.95}))["train"]))


def test_frozen_leaves_the_encoder_and_unfrozen_trains_it(runner):
    planned = runner.build(model={"freeze_backbone": False})
    assert [stage.kind for stage in planned.stages] == ["train", "embed", "evaluate", "profile"]
    trained = weights(runner.run(planned)["train"])
    name = "backbone.sam.image_encoder.patch_embed.proj.weight"
    from samref import backbones

    assert not torch.equal(trained[name], backbones.build("tiny").state_dict()[name.removeprefix("backbone.")])


def test_a_refiner_on_top_of_a_trained_decoder_keeps_it(runner):
    """Two phases: the decoder, shared; then the refiner, whose output holds both."""
    base = {"steps": 4, "modules": ["encoder", "decoder"], "data": "shapes", "samples": 8, "batch_size": 2}
    planned = runner.build(train={"modules": ["refiner"], "init": {**base, "warmup_steps": 1}})
    other = runner.build(train={"modules": ["refiner"], "gamma": 0.9, "init": {**base, "warmup_steps": 1}})
    runner.run(planned)
    init, outer = (stage for stage in planned.stages if stage.kind == "train")
    assert init.id in {stage.id for stage in other.stages}
    before, after = weights(runner.root / init.id), weights(runner.root / outer.id)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(name.startswith("gfr.") for name in after.keys() - before.keys())


def test_a_decoder_trained_with_the_refiner_equals_one_trained_alone_while_clicks_agree(runner):
    """The refiner's losses do not reach the decoder: with no simulated round (γ = 0) nothing else differs."""
    with_refiner = weights(runner.run(runner.build(train={"gamma": 0.0}))["train"])
    alone = weights(runner.run(runner.build(train={"gamma": 0.0}, model={"refiner": "none"}))["train"])
    assert all(torch.equal(with_refiner[name], value) for name, value in alone.items())


def test_a_loss_that_is_not_finite_names_step_rate_and_samples(runner, tmp_path):
    stage = runner.build(train={"learning_rate": 1e30, "gradient_clip": None}).stage("train")
    with pytest.raises(train_module.TrainingError, match=r"the loss is \S+ at step \d, learning rate \S+, samples "):
        runner.run_stages([stage], root=tmp_path)


def test_a_killed_training_ends_with_the_same_weights(runner, tmp_path):
    """SIGKILL in the middle, in a process of its own; then again, from the checkpoint."""
    planned = runner.build(train={"steps": 12})
    expected = weights(runner.run(planned)["train"])
    stage = planned.stage("train")
    program = textwrap.dedent(
        """
        import json, sys, time
        from pathlib import Path
        from samref import trial
        from samref.config import Runtime
        stage, inputs, out, scratch, pause = json.loads(sys.argv[1])
        def report(step, metrics):
            print(step, flush=True)
            time.sleep(pause)
        Path(out).mkdir()
        inputs = {role: Path(folder) for role, folder in inputs.items()}
        trial.run([trial.Stage.from_json(stage)], inputs, [Path(out)], scratch=Path(scratch),
                  runtime=Runtime(device="cpu", checkpoint_seconds=0), report=report)
        """
    )
    inputs = {role: str(runner.root / needed) for role, needed in stage.needs.items()}

    def start(out, pause):
        argument = json.dumps([stage.to_json(), inputs, str(tmp_path / out), str(tmp_path / "scratch"), pause])
        return subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE, text=True)

    first = start("first", 0.3)
    for line in first.stdout:
        if int(line) == 5:
            time.sleep(0.1)
            first.kill()
            break
    first.wait()
    assert not (tmp_path / "first" / "weights.safetensors").exists()
    kept = [path.name for path in (tmp_path / "scratch").glob("step-*")]
    assert len(kept) == 1
    second = start("second", 0)
    steps = [int(line) for line in second.stdout]
    assert second.wait() == 0
    assert steps == list(range(int(kept[0].removeprefix("step-")) + 1, 13))
    assert same(weights(tmp_path / "second"), expected)
    assert (tmp_path / "second" / "training.jsonl").read_text() == (
        runner.root / stage.id / "training.jsonl"
    ).read_text()


class TestBatches:
    def batches(self, **changes):
        dataset = open_dataset("shapes", split="train", data_root=Path(), samples=7)
        settings = {"size": 64, "resize": "pad", "batch_size": 3, "seed": 0, "augment": False, **changes}
        return Batches(dataset, **settings)

    def test_every_epoch_sees_every_sample_once(self):
        order = [index for step in range(7) for index in self.batches().indices(step)]
        assert sorted(order[:7]) == sorted(order[7:14]) == sorted(order[14:]) == list(range(7))
        assert order[:7] != order[7:14]

    def test_reading_ahead_gives_the_batches_of_their_steps(self):
        ahead = list(self.batches().iterate(2, 6))
        assert len(ahead) == 4
        for step, batch in enumerate(ahead, start=2):
            alone = self.batches().read(step)
            assert batch.samples == alone.samples
            assert torch.equal(batch.images_B3SS, alone.images_B3SS)

    def test_augmentation_is_drawn_from_seed_and_step(self):
        first, again = (self.batches(augment=True).read(3) for _ in range(2))
        assert torch.equal(first.images_B3SS, again.images_B3SS)
        assert not torch.equal(first.images_B3SS, self.batches().read(3).images_B3SS)
        assert all((truth == 1).any() for truth in first.truth_BSS)

    def test_padding_is_ignored_and_no_object_vanishes(self):
        import numpy as np

        truth = np.zeros((100, 400), np.int8)
        truth[51, 203] = 1
        padded = resize_truth(truth, 64, "pad")
        assert (padded[16:] == -1).all()
        assert (padded == 1).sum() == 1
        assert abs(np.argwhere(padded == 1)[0] - [8, 32]).max() <= 1
        assert (resize_truth(truth, 64, "stretch") >= 0).all()
