"""Backbones against the packages they wrap.

The packages are imported within the tests: segment_anything takes two seconds, which every process would pay that
collects this file (samref.backbones.packages).
"""

from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from samref import backbones, embed
from samref.backbones import checkpoints, decoder, sam
from samref.backbones.backbone import resize_image
from samref.config import ModelConfig


def with_random_positions(encoder):
    """The package's relative positions are 0 before they are trained, and a mistake in them would not be seen."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return encoder


def plain_encoder_of_tiny(state):
    """segment-anything's own, with its own attention; the strict loading says that no name differs."""
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=256, patch_size=16, embed_dim=96, depth=4, num_heads=4, mlp_ratio=2, out_chans=64,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=8, global_attn_indexes=(1, 3),
    )  # fmt: skip
    encoder.load_state_dict(state)
    return encoder.eval()


@pytest.fixture
def encoders():
    ours = with_random_positions(backbones.build("tiny", seed=3).image_encoder)
    return ours, plain_encoder_of_tiny(ours.state_dict())


@pytest.mark.parametrize("heads_at_once", [1, 3, 1000])
def test_the_fused_encoder_equals_segment_anythings_gradients_too(encoders, monkeypatch, heads_at_once):
    monkeypatch.setattr(sam, "_LARGEST_BIAS", heads_at_once * 256**2)  # 256 tokens: the global blocks
    images = torch.randn(2, 3, 256, 256, generator=torch.manual_seed(0))
    outputs = [encoder(images) for encoder in encoders]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    weights = torch.randn(outputs[0].shape, generator=torch.manual_seed(1))
    for output in outputs:
        (output * weights).sum().backward()
    ours, theirs = (dict(encoder.named_parameters()) for encoder in encoders)
    for name, parameter in theirs.items():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(ours[name].grad, parameter.grad, atol=1e-2, rtol=1e-3, msg=name)


@torch.inference_mode()
def test_in_bf16_the_fused_encoder_is_as_close_as_segment_anythings(encoders):
    """Equal to float32 within bf16's tolerance, 2⁻⁸ a rounding: no more than the package itself, doubled."""
    images = torch.randn(2, 3, 256, 256, generator=torch.manual_seed(0))
    exact = encoders[1](images)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (float((encoder(images) - exact).abs().mean()) for encoder in encoders)
    assert 0 < ours < 2 * theirs < 0.05 * float(exact.abs().mean())


@pytest.mark.slow
@torch.inference_mode()
def test_at_full_size_outputs_equal_sam_predictors():
    """ViT-B at 1024 px, of its twelve blocks the first three: two in padded windows, one global."""
    from segment_anything import SamPredictor, sam_model_registry

    theirs = sam_model_registry["vit_b"]().eval()
    ours = sam_model_registry["vit_b"]().eval()
    for each in (theirs, ours):
        each.image_encoder.blocks = each.image_encoder.blocks[:3]
    with_random_positions(theirs.image_encoder)
    ours.load_state_dict(theirs.state_dict())
    backbone = sam.SamBackbone(ours).eval()
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    predictor = SamPredictor(theirs)
    predictor.set_image(image)
    features = backbone.encode(torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float())
    torch.testing.assert_close(features["embedding"], predictor.features, atol=1e-4, rtol=1e-4)
    point, label = np.array([[300.0, 400.0]]), np.array([1])
    _, _, low_res = predictor.predict(point, label, multimask_output=False, return_logits=True)
    logits = backbone.decode(features, torch.from_numpy(point)[None].float(), torch.from_numpy(label)[None], None)
    np.testing.assert_allclose(logits[0].numpy(), low_res, atol=1e-4)


def assert_clicks_equal(backbone, features, predictor, points, labels, multimask):
    """Our logits are those of the package's predictor after each click, the last ones fed back; gives them."""
    previous = None
    for count in (1, 2, 3):
        three = multimask == "always" or (multimask == "first" and count == 1)
        _, quality, low_res = predictor.predict(
            points[:count],
            labels[:count],
            mask_input=None if previous is None else previous[0].numpy(),
            multimask_output=three,
            return_logits=True,
        )
        ours = backbone.decode(
            features,
            torch.from_numpy(points[:count])[None].float(),
            torch.from_numpy(labels[:count])[None],
            previous,
            multimask=multimask,
        )
        np.testing.assert_allclose(ours[0, 0].numpy(), low_res[int(quality.argmax())], atol=1e-4)
        previous = ours
    return previous


def predictor_and_features(backbone):
    """The package's predictor with an image, and ours of it."""
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    # The predictor's own resize is by a factor of 1 here: the input is already of the network's size.
    encoder = plain_encoder_of_tiny(with_random_positions(backbone.image_encoder).state_dict())
    predictor = SamPredictor(Sam(encoder, backbone.prompt_encoder, backbone.mask_decoder))
    predictor.set_image(image)
    features = backbone.encode(torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float())
    return predictor, features


@pytest.mark.parametrize("multimask", ["never", "always", "first"])
@torch.inference_mode()
def test_outputs_equal_sam_predictors(multimask):
    """Three clicks with the logits fed back, as a user of segment-anything would make them."""
    backbone = backbones.build("tiny", seed=3)
    predictor, features = predictor_and_features(backbone)
    points, labels = np.array([[30.0, 40.0], [200.0, 100.0], [128.0, 250.0]]), np.array([1, 0, 1])
    assert_clicks_equal(backbone, features, predictor, points, labels, multimask)


@torch.inference_mode()
def test_boxes_equal_sam_predictors():
    """The box alone, then with one click and the logits fed back."""
    backbone = backbones.build("tiny", seed=3)
    predictor, features = predictor_and_features(backbone)
    box = np.array([20.0, 30.0, 200.0, 99.0])
    assert_boxes_equal(backbone, features, predictor, box, np.array([[130.0, 40.0]]))


def assert_boxes_equal(backbone, features, predictor, box, point):
    """Hold a backbone's boxes against a predictor of segment-anything's or SAM2's."""
    given = {"box": box, "multimask_output": False, "return_logits": True}
    _, _, alone = predictor.predict(**given)
    none = torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long)
    boxes_B4 = torch.from_numpy(box)[None].float()
    ours = backbone.decode(features, *none, None, boxes_B4=boxes_B4)
    np.testing.assert_allclose(ours[0].numpy(), alone, atol=1e-4)
    _, _, low_res = predictor.predict(point, np.array([1]), mask_input=alone, **given)
    clicked = torch.from_numpy(point)[None].float(), torch.ones(1, 1, dtype=torch.long)
    both = backbone.decode(features, *clicked, ours, boxes_B4=boxes_B4)
    np.testing.assert_allclose(both[0].numpy(), low_res, atol=1e-4)
    assert np.abs(backbone.decode(features, *clicked, ours)[0].numpy() - low_res).max() > 1e-3  # the box counts


def test_random_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (backbones.build("tiny", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    name = "mask_decoder.mask_tokens.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_resize():
    image = torch.arange(3 * 40 * 80, dtype=torch.float32).remainder(255).byte().view(3, 40, 80)
    assert resize_image(image, 32, "stretch").shape == (3, 32, 32)
    padded = resize_image(image, 32, "pad")
    assert padded.shape == (3, 32, 32)
    assert (padded[:, 16:] == 0).all()
    assert (padded[:, :16] > 0).any()


def test_an_unknown_backbone_names_those_that_exist():
    with pytest.raises(ValueError, match=r"there is no backbone 'sam_vit_x'; there are tiny, .*sam_vit_b"):
        backbones.build("sam_vit_x")


class TestCheckpoints:
    def test_round_trip(self, tmp_path):
        source = backbones.build("tiny", seed=1)
        for file in ("weights.safetensors", "weights.pth"):
            path = tmp_path / file
            state = source.state_dict()
            save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
            loaded = backbones.build("tiny", checkpoint=path, seed=2)
            assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())

    def test_each_defect_is_one_line_that_names_the_file(self, tmp_path):
        state = backbones.build("tiny").state_dict()
        html, truncated, missing, shape = (tmp_path / f"{name}.pth" for name in ("html", "cut", "missing", "shape"))
        html.write_text("<html>Not found</html>")
        torch.save(state, truncated)
        truncated.write_bytes(truncated.read_bytes()[:5000])
        torch.save({name: value for name, value in state.items() if "iou_token" not in name}, missing)
        torch.save({**state, "mask_decoder.iou_token.weight": torch.zeros(1, 7)}, shape)
        for path, text in [
            (html, "cannot be read"),
            (truncated, "cannot be read"),
            (missing, "1 names are missing (first ['mask_decoder.iou_token.weight'])"),
            (shape, "mask_decoder.iou_token.weight has shape [1, 7], needed is [1, 64]"),
        ]:
            with pytest.raises(checkpoints.CheckpointError) as caught:
                backbones.build("tiny", checkpoint=path)
            assert str(path) in str(caught.value)
            assert text in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_fingerprints(self, tmp_path):
        path = tmp_path / "a.pth"
        path.write_bytes(b"abc")

        def of(**settings):
            return checkpoints.fingerprint(ModelConfig(**settings), tmp_path)

        assert of(backbone="tiny", checkpoint="none") == "random:0"
        assert of(backbone="tiny").startswith("sha256:")  # comes with the package
        assert of(backbone="sam_vit_b") == "sam_vit_b_01ec64.pth"
        assert of(backbone="sam_vit_b", checkpoint="none", seed=3) == "random:3"
        first = of(checkpoint=str(path))
        assert first.startswith("sha256:ba7816bf")
        path.write_bytes(b"abcd")
        assert of(checkpoint=str(path)) != first
        with pytest.raises(checkpoints.CheckpointError, match="is not a file"):
            of(checkpoint=str(tmp_path / "nowhere.pth"))
        with pytest.raises(checkpoints.CheckpointError, match=r"sam_vit_b_01ec64\.pth is not in"):
            checkpoints.locate(ModelConfig(backbone="sam_vit_b"), tmp_path)


def test_state_dicts_have_the_public_checkpoints_names():
    """As segment-anything's own loader, which is strict, asks for them; on `meta`, so that it costs nothing."""
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        ours, theirs = backbones.build("sam_vit_b").state_dict(), sam_model_registry["vit_b"]().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_encoding_goes_on_with_fewer_images_where_memory_runs_out():
    backbone = backbones.build("tiny", seed=0)
    encode, asked = backbone.encode, []

    def with_room_for_two(images):
        asked.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    images = torch.randint(0, 256, (5, 3, 256, 256), dtype=torch.uint8, generator=torch.manual_seed(0))
    with torch.inference_mode():
        whole = encode(images.float())
        backbone.encode = with_room_for_two
        parts, at_once = embed.encode(backbone, images, 8)
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
        assert (asked, at_once) == ([5, 2, 2, 1], 2)
        backbone.encode = lambda images: with_room_for_two(images.repeat(3, 1, 1, 1))
        with pytest.raises(torch.OutOfMemoryError):
            embed.encode(backbone, images, 2)


@pytest.mark.parametrize("multimask", ["never", "always"])
@torch.inference_mode()
def test_a_decoder_by_tokens_gives_the_masks_of_the_package(multimask):
    """Features channels last, as batches on a GPU have them."""
    backbone, generator = backbones.build("tiny", seed=0), torch.Generator().manual_seed(0)
    embedding = torch.randn(3, 64, 16, 16, generator=generator)
    points, labels = 256 * torch.rand(3, 4, 2, generator=generator), torch.tensor([[1, 0, 1, -1]] * 3)
    for previous in (None, torch.randn(3, 1, 64, 64, generator=generator)):
        expected, found = (
            backbone.decode({"embedding": each}, points, labels, previous, multimask=multimask)
            for each in (embedding, embedding.contiguous(memory_format=torch.channels_last))
        )
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(9, 50), (50, 9), (9, 9)])
def test_attention_in_few_passes_is_the_packages(queries, keys):
    from segment_anything.modeling.transformer import Attention

    generator = torch.Generator().manual_seed(0)
    plain = Attention(64, num_heads=4, downsample_rate=2)
    q, k, v = (torch.randn(2, count, 64, generator=generator) for count in (queries, keys, keys))
    found = plain.out_proj(decoder.attend(plain.q_proj(q), plain.k_proj(k), plain.v_proj(v), 4))
    torch.testing.assert_close(found, plain(q, k, v), atol=1e-6, rtol=1e-5)
    found.sum().backward()  # in training too, after an evaluation has kept which channels are whose
    assert plain.q_proj.weight.grad is not None
