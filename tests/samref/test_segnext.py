"""SegNext against its released code's names, pixels and loop, PyTorch's own layers and the protocol; random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samref import backbones, pixel_loops
from samref.backbones import checkpoints, segnext, state_dicts
from samref.backbones.backbone import parameter_counts
from samref.click_disks import click_disks
from samref.clicks import Click, next_click
from samref.config import ModelConfig
from samref.refiner import Interaction, SamRef

NAMES = Path(__file__).parents[1] / "golden" / "segnext_names.txt"
SIZE, SIDE, WINDOW, WIDTH, DEPTH, HEADS = 128, 8, 4, 48, 5, 3


def build_small(fusion_blocks=1, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = segnext.SegNextBackbone(
            fusion_blocks, image_size=SIZE, width=WIDTH, depth=DEPTH, heads=HEADS, window=WINDOW
        )
        torch.nn.init.normal_(backbone.backbone.pos_embed)  # large enough to be missed
        return backbone.eval()


def random_images(count, seed=0):
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def backbone():
    return build_small()


def released_names(fusion_blocks):
    rows = [line.split() for line in NAMES.read_text().splitlines() if line[0] != "#"]
    blocks = [f"backbone.blocks.{i}." for i in range(12)] + [f"fusion_blocks.{i}." for i in range(fusion_blocks)]
    return {
        prefix + name.removeprefix("*."): tuple(map(int, shape))
        for name, *shape in rows
        for prefix in (blocks if name.startswith("*.") else [""])
    }


@pytest.mark.parametrize(
    ("name", "fusion_blocks", "parameters"),
    [("segnext_vit_b_sax1", 1, 106_701_761), ("segnext_vit_b_sax2", 2, 113_789_633)],
)
def test_the_released_networks(name, fusion_blocks, parameters):
    """All names, shapes and sides on `meta`, and SegNext's 106.70 M and 113.79 M: all parameters, positions too."""
    with torch.device("meta"):
        backbone = backbones.build(name)
        features = backbone.encode(torch.zeros(1, 3, 1024, 1024))
    names = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert names == released_names(fusion_blocks)
    assert parameter_counts(backbone)[0] == parameters
    assert features["embedding"].shape == (1, 768, 64, 64)
    assert (backbone.image_size, backbone.mask_size) == (1024, 256)
    assert torch.tensor(backbone.threshold).sigmoid().item() == pytest.approx(0.49)


def pytorch_block(block, *, eps):
    """PyTorch's own transformer layer with a block's weights."""
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", layer_norm_eps=eps, batch_first=True, norm_first=True
    )
    names = {
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj.": "self_attn.out_proj.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
    }
    state = {}
    for name, value in block.state_dict().items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), "")
        state[names.get(prefix, "") + name.removeprefix(prefix)] = value
    layer.load_state_dict(state)
    return layer.eval()


@torch.no_grad()
def test_the_encoder_equals_pytorchs_layers(backbone):
    """Blocks 3 and 5 (the last) of 5 attend globally, the others in windows, here cut out one by one."""
    encoder, images = backbone.backbone, random_images(2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (images.permute(0, 2, 3, 1) / 255 - mean) / std
    patches = normal.unfold(1, 16, 16).unfold(2, 16, 16).flatten(3)  # B×G×G×768
    kernel = encoder.patch_embed.proj
    x = patches @ kernel.weight.flatten(1).T + kernel.bias + encoder.pos_embed[0, 1:].view(SIDE, SIDE, WIDTH)
    for count, block in enumerate(encoder.blocks, start=1):
        layer, out = pytorch_block(block, eps=1e-6), torch.empty_like(x)
        window = SIDE if count in (3, 5) else WINDOW
        for top in range(0, SIDE, window):
            for left in range(0, SIDE, window):
                cut = (slice(None), slice(top, top + window), slice(left, left + window))
                out[cut] = layer(x[cut].flatten(1, 2)).view(x[cut].shape)
        x = out
    features = backbone.encode(images)
    assert backbone.feature_channels == {"embedding": (WIDTH, SIDE)}
    torch.testing.assert_close(features["embedding"], x.permute(0, 3, 1, 2), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_prompt_and_its_fusion():
    """Channels in order: the previous mask's probability, positive disks, negative disks; added, then attended to."""
    backbone = build_small(fusion_blocks=2)
    features = backbone.encode(random_images(2))
    points = torch.tensor([[[40.0, 90.0], [100.0, 20.0]], [[64.0, 64.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, -1]])
    previous = torch.rand(2, 1, SIZE, SIZE, generator=torch.manual_seed(0))
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: (inputs[0], out)}))
        for name, module in backbone.named_children()
    ]
    backbone.decode(features, points, labels, None)
    assert (seen["visual_prompts_encoder"][0][:, 0] == 0).all()
    backbone.decode(features, points, labels, previous)
    for hook in hooks:
        hook.remove()
    dense = seen["visual_prompts_encoder"][0]
    assert torch.equal(dense[:, 1:], click_disks(points, labels, SIZE, 5))
    assert dense[0, 1, 90, 40] == dense[0, 2, 20, 100] == dense[0, 2, 25, 100] == 1
    assert dense[0, 2, 26, 100] == dense[1, 2].sum() == 0
    assert torch.equal(dense[:, :1], previous)

    x = features["embedding"].flatten(2).mT + backbone.visual_prompts_encoder(dense)
    for block in backbone.fusion_blocks:
        x = pytorch_block(block, eps=1e-5)(x)
    torch.testing.assert_close(seen["neck"][0].flatten(2).mT, x, atol=1e-4, rtol=1e-4)
    assert [level.shape[1:] for level in seen["neck"][1]] == [
        (128, 4 * SIDE, 4 * SIDE),
        (256, 2 * SIDE, 2 * SIDE),
        (512, SIDE, SIDE),
        (1024, SIDE // 2, SIDE // 2),
    ]


@torch.inference_mode()
def test_decoding_repeats_and_objects_do_not_see_each_other(backbone):
    features = backbone.encode(random_images(2))
    points = torch.tensor([[[40.0, 90.0], [100.0, 20.0]], [[64.0, 64.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, -1]])
    first = backbone.decode(features, points, labels, None)
    previous = backbone.feedback(first, [(50, 70), (70, 50)])
    second = backbone.decode(features, points, labels, previous)
    assert first.shape == second.shape == (2, 1, backbone.mask_size, backbone.mask_size)
    assert torch.equal(first, backbone.decode(features, points, labels, None, multimask="always"))
    again = build_small()
    assert torch.equal(first, again.decode(again.encode(random_images(2)), points, labels, None))
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, backbone.decode(features, points, 1 - labels.abs(), None))
    alone = {name: feature[1:] for name, feature in features.items()}
    torch.testing.assert_close(
        backbone.decode(alone, points[1:, :1], labels[1:, :1], previous[1:]), second[1:], atol=1e-5, rtol=1e-5
    )


PIXELS = json.loads((Path(__file__).parents[1] / "golden" / "segnext_pixels.json").read_text())


@pytest.mark.parametrize("case", PIXELS["cases"], ids=lambda case: f"{case['height']}x{case['width']}")
@torch.inference_mode()
def test_pixels_are_handled_as_the_released_code_does(case):
    """Values that the released code gave: from an image its network's input, from its head's logits mask and prompt."""
    i, height, width = (case[name] for name in ("i", "height", "width"))
    y, x = np.mgrid[:height, :width]
    image = np.stack([(7 * x + 3 * y + 11 * i) % 256, (x * y // (5 + i)) % 256, ((x - y) * (x + y) // (9 + i)) % 256])
    y, x = np.mgrid[:256, :256].astype(np.float64)
    head = 6 * np.sin((x + 3 * i) / 17) * np.cos(y / (11 + i)) + 2 * np.sin(x * y / 997)
    backbone = segnext.SegNextBackbone(1, width=48, depth=1, heads=HEADS)
    logits = torch.from_numpy(head.astype(np.float32))[None, None]

    resized = backbone.resize(torch.from_numpy(image.astype(np.uint8)), "stretch")
    network_input = (resized / 255 - backbone.pixel_mean) / backbone.pixel_std
    for row, column, *rgb in case["network_input"]:
        assert network_input[:, row, column].tolist() == pytest.approx(rgb, abs=1e-4)
    interaction = Interaction(logits, backbone.upscale(logits), None, None, None)
    model = SamRef(backbone, ModelConfig(refiner="none"))
    in_frame = model.paste(interaction, 0, None, (height, width))
    for row, column, value in case["logits"]:
        assert in_frame[row, column].item() == pytest.approx(value, abs=1e-4)
    assert (in_frame > backbone.threshold).sum().item() == pytest.approx(case["mask_pixels"], abs=2)
    previous = backbone.feedback(logits, [(height, width)])
    for row, column, value in case["previous_mask"]:
        assert previous[0, 0, row, column].item() == pytest.approx(value, abs=1e-4)


def released_loop(backbone, image_HW3, truth, count):
    """Probabilities after each click, by a plain loop: RITM's protocol around the network, all in torch."""
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    frame = truth.shape

    def bilinear(maps, size, align_corners=False):
        return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)

    normal = (torch.from_numpy(image_HW3).permute(2, 0, 1).float() / 255 - mean) / std
    tokens = backbone.backbone(bilinear(normal[None], SIZE))
    previous, mask, clicks = torch.zeros(1, 1, *frame), np.zeros(frame, np.uint8), []
    for _ in range(count):
        clicks.append(next_click(truth, mask, clicks))
        disks = torch.zeros(1, 2, SIZE, SIZE)
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        for click in clicks:
            at_x, at_y = int(click.x * SIZE / frame[1] + 0.5), int(click.y * SIZE / frame[0] + 0.5)
            disks[0, 0 if click.positive else 1][(x - at_x) ** 2 + (y - at_y) ** 2 <= 25] = 1
        prompt = backbone.visual_prompts_encoder(torch.cat([bilinear(previous, SIZE), disks], dim=1))
        fused = backbone.fusion_blocks(tokens.flatten(2).mT + prompt).mT.reshape(tokens.shape)
        logits = bilinear(bilinear(backbone.head(backbone.neck(fused)), SIZE, align_corners=True), frame)
        previous = logits.sigmoid()
        mask = (previous[0, 0] > 0.49).numpy()
        yield clicks[-1], mask


@pytest.mark.parametrize("frame", [(90, 120), (128, 128), (300, 170)])
@torch.inference_mode()
def test_a_whole_loop_clicks_as_the_released_code_does(frame):
    """Frames that are smaller than the network's input, as large, and larger; the masks agree but for rounding."""
    backbone = build_small()
    backbone.head.seg_conv.weight.mul_(200)  # random weights say next to nothing; so masks change with the clicks
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: frame[0], : frame[1]]
    truth = ((y - frame[0] * 0.4) ** 2 + (x - frame[1] * 0.6) ** 2 < (0.3 * min(frame)) ** 2).astype(np.int8)
    image = rng.integers(0, 256, (*frame, 3), np.uint8)
    expected = list(released_loop(backbone, image, truth, 5))
    assert len({mask.tobytes() for _, mask in expected}) > 2

    model = SamRef(backbone, ModelConfig(refiner="none")).eval()
    image_3HW = torch.from_numpy(image.transpose(2, 0, 1).copy())
    input_1SS = backbone.resize(image_3HW, "stretch")[None]
    context = model.prepare(backbone.encode(input_1SS), input_1SS, [image_3HW])
    coarse, clicks = None, []
    for click, mask in expected:
        clicks.append(click)
        interaction = model(context, [clicks], coarse, None, [frame])
        coarse = interaction.coarse_B1MM
        ours = (model.paste(interaction, 0, None, frame) > backbone.threshold).numpy()
        compared = pixel_loops.above(interaction.result_B1MM[0, 0].numpy(), *frame, backbone.threshold)
        assert np.count_nonzero(ours != mask) <= 3
        assert np.count_nonzero(compared != mask) <= 3


@pytest.mark.parametrize("refiner", ["none", "gfr+lfr"])
@torch.inference_mode()
def test_interactions_of_the_whole_model(backbone, refiner):
    """SegNext itself; and the refiner, which nothing trains with it, finds what it needs."""
    images = random_images(2)
    config = ModelConfig(refiner=refiner, refiner_width=16, refiner_blocks=2, patch_size_px=64)
    model = SamRef(backbone, config).eval()
    own = [images[0], images[1].repeat_interleave(2, 1)]
    frames = [tuple(image.shape[1:]) for image in own]
    context = model.prepare(backbone.encode(images.float()), images, own)
    clicks = [[Click(40, 90, True)], [Click(100, 20, True)]]
    interaction = model(context, clicks, None, None, frames)
    results = [model.paste(interaction, i, None, frames[i]) for i in range(2)]
    assert [tuple(result.shape) for result in results] == frames
    clicks = [[*each, Click(5, 5, False)] for each in clicks]
    following = model(context, clicks, interaction.coarse_B1MM, results, frames)
    assert following.coarse_B1MM.shape == (2, 1, SIZE // 4, SIZE // 4)
    assert not torch.equal(following.coarse_B1MM, interaction.coarse_B1MM)
    assert (following.error_B1MM is None) == (refiner == "none")
    assert following.result_B1MM.shape[-1] == model.result_size == (SIZE if refiner == "none" else SIZE // 4)


def test_parts():
    backbone = build_small()
    encoder, decoder = (
        {id(parameter) for parameter in backbone.modules_of(name).parameters()} for name in ("encoder", "decoder")
    )
    assert not encoder & decoder
    assert encoder | decoder == {id(parameter) for parameter in backbone.parameters()}
    features = backbone.encode(random_images(1))
    backbone.drop_encoder()
    assert {id(parameter) for parameter in backbone.parameters()} == decoder
    backbone.decode(features, torch.zeros(1, 1, 2), torch.ones(1, 1), None)


def test_a_released_file_loads_and_another_does_not(tmp_path):
    """SegNext's files hold the weights under `state_dict`, next to the configuration (RITM's format)."""
    path, state = tmp_path / "released.pth", build_small(seed=1).state_dict()
    torch.save({"state_dict": state, "config": {"class": "PlainVitModel"}}, path)
    loaded = build_small()
    state_dicts.load(loaded, path)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(checkpoints.CheckpointError, match="12 names are missing"):
        state_dicts.load(build_small(fusion_blocks=2), path)
    with pytest.raises(checkpoints.CheckpointError, match=r"vitb_sa2_cocolvis_epoch_90\.pth is not in"):
        checkpoints.locate(ModelConfig(backbone="segnext_vit_b_sax2"), tmp_path)
