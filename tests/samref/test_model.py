"""SAM-REF's refiner on real SAM classes: its size, what it does before it has learned, and batching."""

import numpy as np
import pytest
import torch
from replays import replayed

from samref import backbones
from samref.backbones.backbone import parameter_counts
from samref.click_disks import click_disks
from samref.clicks import Click
from samref.config import ModelConfig, Runtime
from samref.data import open_dataset
from samref.metrics import iou
from samref.refiner import SamRef
from samref.refiner.lfr import paste, sample_boxes
from samref.refiner.recorded import EVERY_CLICK, REFINER, forget, record
from samref.refiner.resample import Frames, Images
from samref.refiner.selector import error_ratio, paste_on_global
from samref.weights import build_model

TINY = ModelConfig(backbone="tiny", refiner_width=16, refiner_blocks=2, patch_size_px=64)


@pytest.fixture(scope="module")
def shapes():
    dataset = open_dataset("shapes", split="val", data_root=None, samples=4)
    images = [torch.from_numpy(dataset.image(s.image_key).transpose(2, 0, 1).copy()) for s in dataset.samples]
    return images, [dataset.truth(sample.key) for sample in dataset.samples]


def prepare(model, images, device):
    images = [image.to(device) for image in images]
    images_B3SS = torch.stack(images)
    return model.prepare(model.backbone.encode(images_B3SS.float()), images_B3SS, images)


def shake(model, seed=0):
    """Random heads, so that the refiner does something."""
    torch.manual_seed(seed)
    for refiner in model.refiner_modules():
        torch.nn.init.normal_(refiner.fusion.heads[-1].weight, std=0.3)
        torch.nn.init.zeros_(refiner.fusion.heads[-1].bias)


def test_parameters_on_vit_h_match_table_3():
    """Paper, Table 3: SAM 635.6 M, SAM-REF 636.3 M, counted on leaf modules; budget of the refiner 0.6 to 0.8 M."""
    with torch.device("meta"):
        bare = SamRef(backbones.build("sam_vit_h"), ModelConfig(refiner="none"))
        refined = SamRef(bare.backbone, ModelConfig())
    leaf, leaf_refined = parameter_counts(bare)[1], parameter_counts(refined)[1]
    assert round(leaf / 1e6, 1) == 635.6
    assert 0.6e6 < leaf_refined - leaf < 0.8e6
    assert abs(leaf_refined / 1e6 - 636.3) < 0.1
    assert parameter_counts(bare)[0] == 641_090_608
    assert not any("high_res" in name for name in refined.state_dict())  # those are SAM2's (test_sam2.py)


@torch.inference_mode()
def test_a_refiner_that_has_learned_nothing_does_not_hurt(shapes, device):
    images, truths = shapes
    model = build_model(TINY, Runtime(device=device), weights=None)
    clicks = [[Click(*map(int, np.argwhere(truth == 1)[0][::-1]), True)] for truth in truths]
    frames = [truth.shape for truth in truths]
    coarse, results = None, None
    context = prepare(model, images, device)
    for _ in range(3):
        interaction = model(context, clicks, coarse, results, frames)
        coarse, results = interaction.coarse_B1MM, [model.paste(interaction, i, None, frames[i]) for i in range(4)]
        plain = torch.nn.functional.interpolate(coarse, frames[0], mode="bilinear", align_corners=False)[:, 0]
        for mask, sam in zip(results, plain, strict=True):
            assert iou((sam > 0).cpu().numpy().astype(np.int8), (mask > 0).cpu().numpy()) > 1 - 1e-4
        clicks = [[*own, Click(own[0].x // 2, own[0].y // 2, False)] for own in clicks]


@torch.inference_mode()
def test_a_batch_gives_what_each_object_gives_alone(shapes, device):
    """Objects whose images differ, also in size, do not see each other."""
    images, _ = shapes
    images = [images[0], images[1], images[2].repeat_interleave(2, 1), images[3].repeat_interleave(3, 2)]
    frames = [tuple(image.shape[1:]) for image in images]
    model = build_model(TINY, Runtime(device=device), weights=None)
    shake(model)
    size = model.backbone.image_size
    images = [image.to(device) for image in images]
    small = torch.stack([torch.nn.functional.interpolate(image[None], (size, size))[0] for image in images])
    context = model.prepare(model.backbone.encode(small.float()), small, images)
    clicks = [[Click(width // 2, height // 3, True), Click(5, 7, False)] for height, width in frames]
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(4, 1, model.backbone.mask_size, model.backbone.mask_size, generator=generator).to(device)
    results = [torch.randn(frame, generator=generator).to(device) for frame in frames]

    together = model(context, clicks, coarse, results, frames)
    assert together.error_area_B.max() > 0
    for i in range(4):
        alone = model(context.select([i]), clicks[i : i + 1], coarse[i : i + 1], results[i : i + 1], frames[i : i + 1])
        assert alone.patch.windows == [together.patch.windows[i]]
        torch.testing.assert_close(alone.result_B1MM[0], together.result_B1MM[i], atol=1e-4, rtol=1e-4)
        pasted = model.paste(alone, 0, results[i], frames[i])
        torch.testing.assert_close(pasted, model.paste(together, i, results[i], frames[i]), atol=1e-4, rtol=1e-4)
        left, top, right, bottom = together.patch.windows[i]
        outside = torch.ones(frames[i], dtype=torch.bool, device=device)
        outside[top:bottom, left:right] = False
        assert torch.equal(pasted[outside], results[i][outside])


@torch.inference_mode()
def test_recorded_clicks_are_the_plain_ones(shapes, device):
    """To the bit also on CUDA, where they are replayed; on a CPU nothing is recorded."""
    image, size = shapes[0][0].to(device), 256
    model = build_model(TINY, Runtime(device=device), weights=None)
    shake(model)
    features = model.backbone.encode(image[None].float())

    def clicked():
        coarse, results, found = None, None, []
        context = model.prepare(features, image[None], [image])
        for count in (1, 2):
            clicks = [Click(100, 100, True), Click(30, 180, False)][:count]
            interaction = model(context, [clicks], coarse, results, [(size, size)])
            coarse, results = interaction.coarse_B1MM, [model.paste(interaction, 0, None, (size, size))]
            found += [interaction.result_B1MM, interaction.patch.change_B1PP, results[0]]
        return found

    plain = clicked()
    record(model, REFINER, after=0)
    for _ in range(2):  # recorded, and replayed
        assert all(torch.equal(own, other) for own, other in zip(clicked(), plain, strict=True))
    assert replayed(model) == ({"lateral", "global_stage", "refine"} if device != "cpu" else set())


def test_recorded_rounds_of_a_batch_are_those_that_are_not(shapes, device):
    """As in a training: what was recorded follows the weights, and what it gives may take part in a gradient."""
    images, _ = shapes
    model = build_model(TINY, Runtime(device=device), weights=None).requires_grad_(False)
    shake(model)
    stacked, size = Images.stack([image.to(device) for image in images[:2]]), model.backbone.image_size
    frames = Frames.of([(size, size), (100, 180)], model.result_size, torch.device(device))
    images_B3SS = torch.stack(images[:2]).to(device)

    @torch.no_grad()
    def clicked():
        context = model.prepare(model.backbone.encode(images_B3SS.float()), images_B3SS, stacked)
        coarse, masks, found = None, None, []
        clicks = [Click(100, 100, True), Click(30, 80, False), Click(60, 40, True)]
        for count in (1, 2, 3):
            interaction = model(context, [clicks[:count]] * 2, coarse, masks, frames)
            coarse, masks = interaction.coarse_B1MM, model.masks(interaction, frames, (0, 1), masks, (True, False))
            found += [interaction.result_B1MM, interaction.patch.change_B1PP, masks]
        return found

    def compare():
        plain = clicked()
        record(model, EVERY_CLICK)
        for _ in range(3):  # plain, recorded, and replayed
            for own, other in zip(clicked(), plain, strict=True):
                torch.testing.assert_close(own, other)
                assert not own.is_inference()
        return plain

    before = compare()
    with torch.no_grad():  # a step of an optimiser
        model.gfr.fusion.heads[-1].bias += 3
    followed = clicked()
    assert replayed(model) == (EVERY_CLICK.keys() if device != "cpu" else set())
    forget(model)
    after = compare()
    for own, other in zip(followed, after, strict=True):
        torch.testing.assert_close(own, other)
    assert not torch.equal(before[0], after[0])


def test_click_disks_are_binary_and_separate():
    disks = click_disks(torch.tensor([[[10.0, 20.0], [0.0, 0.0], [5.0, 5.0]]]), torch.tensor([[1, 0, -1]]), 32, 5)
    assert set(disks.unique().tolist()) == {0.0, 1.0}
    assert disks[0, 0].sum() == 81  # pixels of a disk of radius 5
    assert disks[0, 0, 20, 10] == disks[0, 0, 15, 10] == 1
    assert disks[0, 0, 14, 10] == 0
    assert disks[0, 1, 0, 0] == 1
    assert disks[0, 1, 5, 5] == 0  # a label of -1 draws nothing


def test_sample_boxes_of_the_whole_map_is_the_map():
    maps = torch.rand(2, 3, 16, 16)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    torch.testing.assert_close(sample_boxes(maps, whole, 16), maps, atol=1e-5, rtol=0)


def test_paste_changes_the_window_alone():
    base, refined = torch.zeros(20, 20), torch.full((20, 20), 2.0)
    result = paste(base, refined, torch.full((8, 8), 0.5), (4, 6, 10, 16))
    assert result.sum() == 60 * 2.5
    assert (result[6:16, 4:10] == 2.5).all()
    assert base.sum() == 0


def test_selector():
    ratio = error_ratio(torch.tensor([5, 0, 7]), torch.tensor([4, 0, -1]))
    assert ratio[:2].tolist() == [1.25, 0.0]
    assert paste_on_global(float(ratio[2]), 1.1)  # the first click
    assert not paste_on_global(1.25, 1.25)  # strictly below θ
    assert paste_on_global(1.2, 1.25)
