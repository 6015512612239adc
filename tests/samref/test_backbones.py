"""Backbones against the packages they wrap."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from samref import backbones
from samref.backbones import checkpoints
from samref.backbones.backbone import resize_image
from samref.config import ModelConfig


@pytest.mark.parametrize("multimask", ["never", "always", "first"])
@torch.inference_mode()
def test_outputs_equal_sam_predictors(multimask):
    """Three clicks with the logits fed back, as a user of segment-anything would make them."""
    backbone = backbones.build("tiny", seed=3)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    # The predictor's own resize is by a factor of 1 here: the input is already of the network's size.
    sam = Sam(backbone.image_encoder, backbone.prompt_encoder, backbone.mask_decoder)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    features = backbone.encode(torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float())
    points, labels = np.array([[30.0, 40.0], [200.0, 100.0], [128.0, 250.0]]), np.array([1, 0, 1])
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
    with pytest.raises(ValueError, match="there is no backbone 'sam_vit_x'; there are tiny, sam_vit_b"):
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
    with torch.device("meta"):
        ours, theirs = backbones.build("sam_vit_b").state_dict(), sam_model_registry["vit_b"]().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
