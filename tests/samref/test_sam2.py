"""SAM2 against the package it wraps, and SAM-REF's refiner on top of it, with random weights."""

import numpy as np
import pytest
import torch
from embedded import embedded
from test_backbones import assert_boxes_equal, assert_clicks_equal
from torch.overrides import TorchFunctionMode

from samref import backbones
from samref.backbones import checkpoints, sam2, state_dicts
from samref.backbones.backbone import parameter_counts
from samref.clicks import Click
from samref.config import ModelConfig
from samref.metrics import iou
from samref.refiner import SamRef

# SAM2.1's own configuration with a thin trunk; the decoder's other sizes are fixed in sam2's code.
SMALL = [
    "model.image_encoder.trunk.embed_dim=16",
    "model.image_encoder.trunk.stages=[1,1,2,1]",
    "model.image_encoder.trunk.global_att_blocks=[3]",
    "model.image_encoder.neck.d_model=64",
    "model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
]
AT_256 = [*SMALL, "model.image_size=256"]


def build_small(overrides, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = sam2.build("sam2.1_hiera_t", overrides)
        torch.nn.init.normal_(backbone.no_mem_embed)  # large enough to be missed
        return backbone.eval()


def random_images(count, size, seed=0):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def backbone():
    return build_small(AT_256)


@pytest.fixture(scope="module", params=["small", pytest.param("sam2.1_hiera_t", marks=pytest.mark.slow)])
def predicted(request):
    """A backbone, one image's features, and SAM2's own predictor with that image set, at the real 1024 px."""
    overrides = [*SMALL, "model.image_encoder.neck.d_model=256"] if request.param == "small" else []
    backbone = build_small(overrides) if overrides else backbones.build(request.param)
    image = random_images(1, 1024)[0]
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    theirs = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", hydra_overrides_extra=overrides)
    for name in ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"):
        setattr(theirs, name, getattr(backbone, name))
    predictor = SAM2ImagePredictor(theirs)
    predictor.set_image(image.permute(1, 2, 0).numpy())
    with torch.inference_mode():
        return backbone, backbone.encode(image[None].float()), predictor


def test_features_equal_the_predictors(predicted):
    backbone, features, predictor = predicted
    shapes = {name: (feature.shape[1], feature.shape[2]) for name, feature in features.items()}
    assert shapes == {"embedding": (256, 64), "high_res_0": (32, 256), "high_res_1": (64, 128)}
    assert backbone.feature_channels == shapes
    theirs = [predictor._features["image_embed"], *predictor._features["high_res_feats"]]
    for name, feature in zip(shapes, theirs, strict=True):
        torch.testing.assert_close(features[name], feature, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_boxes_equal_the_predictors(predicted):
    backbone, features, predictor = predicted
    assert_boxes_equal(backbone, features, predictor, np.array([120.0, 60, 900, 701]), np.array([[700.0, 400]]))


@pytest.mark.parametrize("gain", [1, 300])
@pytest.mark.parametrize("multimask", ["never", "always", "first"])
@torch.inference_mode()
def test_outputs_equal_the_predictors(predicted, multimask, gain):
    """Three clicks with the logits fed back.

    Random weights give logits of under 1, which SAM2 finds unstable, so that it falls back to the best of three; with
    a gain the single mask is stable, and the clamp bites.
    """
    backbone, features, predictor = predicted
    points, labels = np.array([[130.0, 140.0], [800.0, 400.0], [512.0, 1000.0]]), np.array([1, 0, 1])
    last = [mlp.layers[-1] for mlp in backbone.sam_mask_decoder.output_hypernetworks_mlps]
    for layer in last:
        layer.weight.mul_(gain)
        layer.bias.mul_(gain)
    try:
        logits = assert_clicks_equal(backbone, features, predictor, points, labels, multimask)
        assert logits.shape == (1, 1, 256, 256)
        assert (float(logits.abs().max()) == 32) == (gain > 1)
    finally:
        for layer in last:
            layer.weight.div_(gain)
            layer.bias.div_(gain)


@torch.inference_mode()
def test_features_channels_last_give_the_same_masks(backbone):
    """As batches on a GPU have them; several objects, as positions are spread over them."""
    features = backbone.encode(random_images(2, 256).float())
    last = {name: each.contiguous(memory_format=torch.channels_last) for name, each in features.items()}
    points, labels = torch.tensor([[[30.0, 40.0]], [[200.0, 90.0]]]), torch.ones(2, 1, dtype=torch.long)
    expected, found = (backbone.decode(each, points, labels, None) for each in (features, last))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (backbones.build("sam2_hiera_t", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    name = "sam_mask_decoder.mask_tokens.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_a_public_checkpoint_loads_without_its_memory(tmp_path, backbone):
    """The names are those that sam2's own loader, which is strict, asks for."""
    from sam2.build_sam import build_sam2

    state = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", hydra_overrides_extra=AT_256).state_dict()
    path = tmp_path / "sam2.1.pt"
    torch.save({"model": state}, path)
    loaded = build_small(AT_256, seed=7)
    state_dicts.load(loaded, path)
    own = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    dropped = {name.partition(".")[0] for name in state.keys() - own.keys()}
    assert dropped == set(loaded.unused_in_checkpoint)  # nothing more, and no name that does not exist

    torch.save({"model": {**state, "memory_bank.weight": torch.zeros(1)}}, path)
    with pytest.raises(checkpoints.CheckpointError, match="1 are unknown"):
        state_dicts.load(loaded, path)


def test_training_the_decoder_leaves_cached_features_valid(backbone):
    decoder = {id(parameter) for parameter in backbone.modules_of("decoder").parameters()}
    names = {name for name, parameter in backbone.named_parameters() if id(parameter) in decoder}
    everything = {name for name, _ in backbone.named_parameters() if name.startswith("sam_mask_decoder.")}
    convolutions = {f"sam_mask_decoder.conv_s{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert everything - names == convolutions
    with torch.no_grad():
        images = random_images(1, 256).float()
        before = backbone.encode(images)
        for parameter in backbone.modules_of("decoder").parameters():
            parameter.add_(1)
        after = backbone.encode(images)
        for parameter in backbone.modules_of("decoder").parameters():
            parameter.sub_(1)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0), ("fp16", 1e-3), ("bf16", 1e-2)])
@torch.inference_mode()
def test_features_round_trip_through_the_embeddings(tmp_path, backbone, precision, tolerance):
    images = random_images(2, 256).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        features = backbone.encode(images)
    assert {feature.dtype for feature in features.values()} == {torch.float32}
    read = embedded(tmp_path, ["a", "b"], features, precision).read(["b", "a"], "cpu")
    assert read.keys() == features.keys()
    for name, feature in features.items():
        torch.testing.assert_close(read[name], feature.flip(0), atol=tolerance, rtol=tolerance)


def refined(backbone, *, shake):
    torch.manual_seed(0)
    model = SamRef(backbone, ModelConfig(refiner_width=16, refiner_blocks=2, patch_size_px=64)).eval()
    if shake:  # random heads, so that the refiner does something
        for refiner in model.refiner_modules():
            torch.nn.init.normal_(refiner.fusion.heads[-1].weight, std=0.3)
            torch.nn.init.zeros_(refiner.fusion.heads[-1].bias)
    return model


@torch.inference_mode()
def test_a_refiner_that_has_learned_nothing_does_not_hurt(backbone):
    model, images = refined(backbone, shake=False), random_images(3, 256)
    context = model.prepare(backbone.encode(images.float()), images, list(images))
    frames = [(256, 256)] * 3
    clicks, coarse, results = [[Click(40 + 70 * i, 90, True)] for i in range(3)], None, None
    for _ in range(3):
        interaction = model(context, clicks, coarse, results, frames)
        coarse, results = interaction.coarse_B1MM, [model.paste(interaction, i, None, frames[i]) for i in range(3)]
        plain = torch.nn.functional.interpolate(coarse, frames[0], mode="bilinear", align_corners=False)[:, 0]
        for mask, sam in zip(results, plain, strict=True):
            assert iou((sam > 0).numpy().astype(np.int8), (mask > 0).numpy()) > 1 - 1e-4
        clicks = [[*own, Click(own[0].x // 2, own[0].y // 2, False)] for own in clicks]


@torch.inference_mode()
def test_a_batch_gives_what_each_object_gives_alone(backbone):
    model, images = refined(backbone, shake=True), random_images(3, 256)
    own = [images[0], images[1].repeat_interleave(2, 1), images[2].repeat_interleave(3, 2)]
    frames = [tuple(image.shape[1:]) for image in own]
    context = model.prepare(backbone.encode(images.float()), images, own)
    clicks = [[Click(width // 2, height // 3 + 9 * i, True)] for i, (height, width) in enumerate(frames)]
    coarse = torch.randn(3, 1, 64, 64)
    results = [torch.randn(frame) for frame in frames]
    together = model(context, clicks, coarse, results, frames)
    assert together.error_area_B.max() > 0
    for i in range(3):
        alone = model(context.select([i]), clicks[i : i + 1], coarse[i : i + 1], results[i : i + 1], frames[i : i + 1])
        assert alone.patch.windows == [together.patch.windows[i]]
        torch.testing.assert_close(alone.result_B1MM[0], together.result_B1MM[i], atol=1e-4, rtol=1e-4)
        pasted = model.paste(alone, 0, results[i], frames[i])
        torch.testing.assert_close(pasted, model.paste(together, i, results[i], frames[i]), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_every_sum_of_the_refiner_sees_the_high_resolution_features(backbone):
    model, images = refined(backbone, shake=True), random_images(1, 256)
    features = backbone.encode(images.float())
    for name in ("high_res_0", "high_res_1"):
        full = model.gfr.lateral(images, features)
        without = model.gfr.lateral(images, {**features, name: torch.zeros_like(features[name])})
        assert full.skip_BKChw.shape == (1, 2, 16, 64, 64)
        assert not torch.allclose(full.start_BChw, without.start_BChw)
        for skip in range(2):
            assert not torch.allclose(full.skip_BKChw[:, skip], without.skip_BKChw[:, skip])
    assert not torch.allclose(full.skip_BKChw[:, 0], full.skip_BKChw[:, 1])


class OnMeta(TorchFunctionMode):
    """sam2 1.1 reads the rates of Hiera's stochastic depth with `.item()`, and moves rotary positions to a GPU where
    there is one: a meta tensor refuses both."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.to and args[0].is_meta:
            return args[0]
        if function is torch.linspace:
            kwargs = {**(kwargs or {}), "device": "cpu"}
        return function(*args, **(kwargs or {}))


def test_parameters_on_hiera_l_match_table_3():
    """Paper, Table 3, counted on leaf modules: SAM2 216.8 M, SAM2-REF 218.0 M; budget of the refiner 1.1 to 1.3 M.

    The paper's column is without the object-score head, which an image does not use.
    """
    with torch.device("meta"), OnMeta():
        bare = SamRef(backbones.build("sam2.1_hiera_l"), ModelConfig(refiner="none"))
        model = SamRef(bare.backbone, ModelConfig())
    leaf = parameter_counts(bare)[1]
    leaf_refined = parameter_counts(model)[1]
    score_head = parameter_counts(bare.backbone.sam_mask_decoder.pred_obj_score_head)[1]
    assert leaf + score_head == 216_908_337
    assert 1.1e6 < leaf_refined - leaf < 1.3e6
    assert round(leaf / 1e6, 1) == 216.8
    assert abs(leaf_refined / 1e6 - 218.0) < 0.1
