"""Networks of Hugging Face's transformers: the library's own masks, ids of their contents, and nothing of a network.

Real classes of every family at a small size, with random weights.
"""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from small_networks import NETWORKS, save

import samref
from samref import backbones, contents, plugins, testing
from samref.backbones import hugging_face_files
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.errors import UserError
from samref.protocol import protocol


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A family's folder, network and image processor."""
    made = {}

    def of(family):
        if family not in made:
            folder = tmp_path_factory.mktemp("weights") / family
            made[family] = (folder, *save(family, folder))
        return made[family]

    return of


@pytest.mark.parametrize("start", [None, "box"])
@pytest.mark.parametrize("family", NETWORKS)
def test_the_loop_s_clicks_get_the_masks_of_the_library_s_own_call(saved, family, start):
    folder, network, processor = saved(family)
    side = network.config.prompt_encoder_config.image_size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    truth = gaussian_filter(rng.standard_normal((side, side)), 4) > 0
    model = samref.model(f"hf:{folder}", refiner="none", embedding_precision="fp32")
    found = samref.evaluate(model, ([image], [truth]), clicks=4, start=start).clicks

    points, labels, previous, masks, boxes = [], [], None, [], {}
    if start == "box":
        (ys, xs), pixels = np.nonzero(truth), processor(images=image, return_tensors="pt")["pixel_values"]
        boxes["input_boxes"] = torch.tensor([[[xs.min(), ys.min(), xs.max(), ys.max()]]], dtype=torch.float32)
        with torch.inference_mode():
            previous = network(pixel_values=pixels, **boxes, multimask_output=False).pred_masks[:, 0]
    for x, y, positive in zip(found["x"], found["y"], found["positive"], strict=True):
        points.append([int(x), int(y)])
        labels.append(int(positive))
        inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            made = network(
                pixel_values=inputs["pixel_values"],
                input_points=torch.tensor([[points]], dtype=torch.float32),
                input_labels=torch.tensor([[labels]]),
                input_masks=previous,
                multimask_output=False,
                **boxes,
            )
        previous = made.pred_masks[:, 0]
        sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        masks.append(processor.post_process_masks(made.pred_masks, *sizes)[0][0, 0].numpy())
    wanted = [(mask & truth).sum() / (mask | truth).sum() for mask in masks]
    assert found["iou"] == pytest.approx(wanted, abs=1e-7)
    assert all(0 < mask.mean() < 1 for mask in masks)


@pytest.mark.parametrize("family", NETWORKS)
def test_each_family_is_what_the_protocol_asks_for_and_takes_the_refiner(saved, family):
    name = f"hf:{saved(family)[0]}"
    testing.check_refines(testing.check_backbone(name))
    backbone = backbones.build(name)
    image_13SS = torch.zeros(1, 3, backbone.image_size, backbone.image_size)
    assert all(each.requires_grad for each in backbone.encode(image_13SS).values())  # its encoder can be trained, too
    trained = [set(map(id, backbone.modules_of(part).parameters())) for part in ("encoder", "decoder")]
    assert not trained[0] & trained[1]


def test_a_baseline_on_it_has_the_protocol_of_published_rows():
    keys = [
        protocol(ModelConfig(backbone=name), EvaluateConfig(), contents=None, objects=None)
        for name in ("hf:x/sam", "sam_vit_h")
    ]
    assert keys[0] == keys[1]


COMMIT = "0a1b" * 10  # of a version in the hub's cache
NAMES = """
import sys
from samref import backbones
for name in sys.argv[1:]:
    try:
        print(backbones.revision(name))
    except ValueError as error:
        print(error)
assert "torch" not in sys.modules
"""


def test_what_it_is_goes_into_ids_wherever_it_lies_and_the_hub_is_never_asked(saved, tmp_path):
    folder, cache = saved("sam")[0], tmp_path / "hub"
    copy = shutil.copytree(folder, cache / "models--lab--net" / "snapshots" / COMMIT)
    (refs := cache / "models--lab--net" / "refs").mkdir()
    (refs / "main").write_text(COMMIT)
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    names = [
        "hf:lab/net",
        f"hf:lab/net@{COMMIT}",
        f"hf:{copy}",
        f"hf:{other}",
        "hf:lab/net@v2",
        "hf:lab/none",
        "hf:no name",
    ]
    done = subprocess.run(
        [sys.executable, "-c", NAMES, *names],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    main, revision, elsewhere, changed, *lacking = done.stdout.splitlines()
    assert main == revision == elsewhere != changed
    assert [re.sub(" fetches .*", "", line) for line in lacking] == [
        "hf:lab/net@v2: the hub's cache on this machine has no lab/net@v2; `hf download lab/net --revision v2`",
        "hf:lab/none: the hub's cache on this machine has no lab/none; `hf download lab/none`",
        "hf:no name: 'no name' can be no network's name; write hf:OWNER/NAME, or a folder, as hf:./weights/mine",
    ]


def test_what_is_wrong_with_a_folder_is_one_line(saved, tmp_path):
    def altered(**files):
        folder = shutil.copytree(saved("sam")[0], tmp_path / str(len(list(tmp_path.iterdir()))))
        for name, content in files.items():
            file = next(folder.glob(f"{name}*"))
            file.unlink() if content is None else file.write_bytes(content)
        return folder

    def use(name):
        backbones.check(name, {})
        backbones.build(name)

    def refused(folder, pattern):
        with pytest.raises(UserError, match=pattern) as refusal:
            use(f"hf:{folder}")
        assert "\n" not in str(refusal.value)

    refused(altered(model=None), "has no weights as .*save_pretrained")
    refused(altered(model=b"1234567890"), "transformers cannot load .*[Hh]eader")
    refused(altered(preprocessor=None), "transformers cannot load .*preprocessor_config.json")
    refused(altered(config=b'{"model_type": "bert"}'), "transformers cannot load .*BertConfig")
    refused(altered(config=b"{"), "transformers cannot load .*line 1 column 2")
    lacking = altered()
    weights = load_file(lacking / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    refused(lacking, "has no weights for 1 tensors, as mask_decoder.iou_token.weight")
    with pytest.raises(ValueError, match=r"model\.options are of a backbone of your own; hf:.* takes none"):
        backbones.check(f"hf:{altered()}", {"width": 3})
    with pytest.raises(UserError, match="has its weights in its folder; leave checkpoint at auto"):
        contents.Contents(Runtime(), None).checkpoint(ModelConfig(backbone=f"hf:{altered()}", checkpoint="none"))


def test_a_folder_beside_the_sweep_file_is_named_by_its_last_part(saved, tmp_path):
    folder = saved("sam")[0]
    assert plugins.beside(f"hf:./{folder.name}", folder.parent) == f"hf:{folder.name}"
    assert hugging_face_files.folder_of(f"hf:{folder.name}") == folder
    assert folder.parent in Runtime().code  # where workers look, too
    other = shutil.copytree(folder, tmp_path / folder.name)
    with pytest.raises(plugins.PluginError, match=f"the name {folder.name} is taken by {folder}; rename {other}"):
        plugins.beside(f"hf:{other}", tmp_path)
    with pytest.raises(plugins.PluginError, match=r"has no config\.json; give a folder that save_pretrained wrote"):
        plugins.beside("hf:./nothing", tmp_path)
