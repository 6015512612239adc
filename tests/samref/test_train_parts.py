"""A batch of a training that is worked in parts is the same batch, also where memory runs out for larger ones."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from trainings import go_on, interrupt, losses, metrics, same, watching, weights

from samref import train as train_module
from samref.batches import Batches
from samref.config import ModelConfig, Runtime, TrainConfig
from samref.data import open_dataset
from samref.step import training_step
from samref.weights import build_model

pytestmark = pytest.mark.slow


@pytest.mark.cpu_only("on CUDA rounding moves clicks, and the curve with them")
def test_accumulation_gives_the_same_curve(runner):
    whole, halves, singles = (
        runner.train(train={"batch_size": 4, "gamma": 0.9, "accumulation": parts}) for parts in (1, 2, 4)
    )
    assert losses(halves) == pytest.approx(losses(whole), rel=1e-4)
    assert losses(singles) == pytest.approx(losses(whole), rel=1e-4)
    assert not same(weights(whole), weights(halves))  # it really was worked otherwise


def test_objects_that_are_worked_at_once_as_on_a_gpu_have_the_losses_of_those_one_by_one(device):
    settings = {"refiner_width": 16, "refiner_blocks": 1, "patch_size_px": 64}
    network = build_model(ModelConfig(backbone="tiny", **settings), Runtime(device=device), weights=None)
    generator = torch.Generator().manual_seed(0)
    for refiner in network.refiner_modules():  # it works, and suspects errors
        refiner.fusion.heads[-1].weight.data.copy_(
            torch.randn(refiner.fusion.heads[-1].weight.shape, generator=generator)
        )
    dataset = open_dataset("shapes", split="train", data_root=Path(), samples=4)
    batches = Batches(dataset, size=256, resize="pad", batch_size=4, seed=0, augment=False)
    config, batch = TrainConfig(data="shapes", modules=("decoder", "refiner")), batches.read(0)
    with ThreadPoolExecutor(1) as pool:
        once, each = (
            training_step(network, batch, config, 0, 2, device, pool, together=together) for together in (True, False)
        )
    assert once.keys() == each.keys()
    for name, loss in once.items():
        torch.testing.assert_close(loss, each[name], rtol=1e-3, atol=1e-5)


def test_accumulation_must_divide_the_batch():
    with pytest.raises(ValueError, match="accumulation is 3, which does not divide batch_size 16; every part"):
        TrainConfig(accumulation=3)


@pytest.mark.cpu_only("on CUDA sums have no fixed order, so that bits differ")
def test_memory_that_runs_out_gives_smaller_parts_and_the_same_weights(runner, tmp_path):
    """Two samples at a time are too many from the start: all is as with accumulation 4, bit by bit."""

    def full(found, interaction):
        if len(found) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")

    expected = runner.train(train={"batch_size": 4, "gamma": 0.9, "accumulation": 4})
    stage = runner.build(train={"batch_size": 4, "gamma": 0.9}).stage("train")
    with watching(full):
        (out,) = runner.run_stages([stage], root=tmp_path)
    assert metrics(out)["accumulation"] == 4
    assert same(weights(out), weights(expected))


@pytest.mark.cpu_only("on CUDA rounding moves clicks, and the curve with them")
def test_a_step_that_runs_out_in_its_last_backward_is_made_again(runner, tmp_path, caplog):
    """Gradients of the first part were there already; nothing of them is left in the step that counts."""
    backwards = []

    def full(found, interaction):
        def fail(gradient):
            backwards.append(len(found))
            if len(backwards) == 6:  # step 2, its second part of two
                raise torch.OutOfMemoryError("CUDA out of memory")

        if torch.is_grad_enabled():
            interaction.result_B1MM.register_hook(fail)

    settings = {"batch_size": 4, "gamma": 0.9, "accumulation": 2}
    expected = runner.train(train=settings)
    with watching(full):
        (out,) = runner.run_stages([runner.build(train=settings).stage("train")], root=tmp_path)
    assert backwards == [2, 2, 2, 2, 2, 2] + [1, 1, 1, 1] * 4
    assert metrics(out)["accumulation"] == 4
    assert losses(out)[:2] == losses(expected)[:2]
    assert losses(out) == pytest.approx(losses(expected), rel=1e-4)
    assert "out of memory at step 2: CUDA out of memory" in caplog.text
    assert "step 2 again, and on, with accumulation 4" in caplog.text


@pytest.mark.cpu_only("on CUDA sums have no fixed order, so that bits differ")
def test_a_killed_training_goes_on_with_the_parts_that_fitted(tmp_path, runner):
    def full(found, interaction):
        if len(found) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    settings = {"batch_size": 4, "steps": 8}
    expected = runner.train(train={**settings, "accumulation": 2})
    with watching(full):
        interrupt(runner, runner.build(train=settings), tmp_path, at=4)
    out = go_on(runner, runner.build(train=settings), tmp_path)
    assert metrics(out)["accumulation"] == 2
    assert same(weights(out), weights(expected))


@pytest.mark.parametrize(("batch_size", "tried"), [(16, [16, 8, 4, 2]), (3, [3, 1, 1])])
def test_it_gives_up_after_three_halvings_or_at_one_sample(runner, tmp_path, batch_size, tried):
    sizes = []

    def full(found, interaction):
        sizes.append(len(found))
        raise torch.OutOfMemoryError("CUDA out of memory")

    planned = runner.build(train={"batch_size": batch_size})
    runner.train()  # the embeddings
    message = r"out of memory at step 0 with \d of \d+ samples at a time, after train.accumulation 1 became"
    with watching(full), pytest.raises(train_module.TrainingError, match=message):
        runner.run_stages([planned.stage("train")], root=tmp_path)
    assert sizes == tried
