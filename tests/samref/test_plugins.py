"""samref.plugins: names by import path, source in ids, and each mistake in one line with its file and line."""

import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from samref import backbones, data, plugins, testing, trial
from samref.clicks import own_click
from samref.config import EvaluateConfig, ModelConfig, TrialConfig
from samref.plugins import PluginError
from samref.stage import Stage

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NETWORK = """
import torch
from torch import nn
from samref.backbones.backbone import Backbone

class Net(Backbone):
    image_size = 32
    mask_size = 8
    feature_channels = {"embedding": (1, 8)}
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
    def encode(self, images_B3SS):
        return {"embedding": images_B3SS[:, :1, ::4, ::4]}
    def decode(self, features, points, labels, previous, *, multimask="never"):
        return self.layer(features["embedding"][..., None])[..., 0]
    def modules_of(self, name):
        return nn.ModuleList([self.layer] if name == "decoder" else [])
    def drop_encoder(self):
        pass

def build(width=1):
    return Net()
"""


def example(name):
    return plugins.beside(f"./{name}", EXAMPLES)


@pytest.fixture
def written(tmp_path):
    """Writes a plug-in's file; gives the file, and the name by which it is imported."""

    def write(text, attribute):
        file = tmp_path / f"own_{uuid.uuid4().hex}.py"  # a module is imported once a process
        file.write_text(text)
        return file, plugins.beside(f"{file}:{attribute}", tmp_path)

    return write


def test_the_examples_are_what_the_protocols_ask_for():
    for network, options in (("backbone.py:build", {"width": 8}), ("early_fusion.py:build", {"width": 4})):
        testing.check_backbone(example(network), options)
    testing.check_dataset(example("dataset.py:open_pairs?images=3"))
    testing.check_clicker(example("clicker.py:anywhere"))
    assert testing.check_backbone("tiny").image_size == 256  # those that come with the package go by the same door


def test_the_refiner_is_put_on_whatever_has_features_on_a_grid():
    testing.check_refines(backbones.build(example("backbone.py:build")))
    with pytest.raises(PluginError, match=r"Convolutions encodes nothing .* set\s+model.refiner: none"):
        testing.check_refines(backbones.build(example("early_fusion.py:build")))


IDS = """
import sys
from pathlib import Path
from samref import plugins, trial
from samref.config import *
net = plugins.beside("./net.py:build", Path("."))
click = plugins.beside("./click.py:click", Path("."))
made = trial.build(
    TrialConfig(model=ModelConfig(backbone=net, options={"width": 3}), evaluate=EvaluateConfig(clicker=click)),
    trial.NamesAsFingerprints(),
)
print(*[made.id, *(stage.id for stage in made.stages)], "torch" in sys.modules)
"""


def test_changed_code_is_other_work_and_a_comment_or_another_folder_is_not(tmp_path):
    def ids(folder, **files):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        done = subprocess.run([sys.executable, "-c", IDS], cwd=folder, capture_output=True, text=True, check=True)
        *found, needs_torch = done.stdout.split()
        assert needs_torch == "False"  # nothing is imported to know what it is
        return found

    net, helper = "import helper\ndef build(width): return helper.net(width)", "def net(width): return width"
    first = ids(tmp_path / "one", net=net, helper=helper, click="def click(*all): return None")
    assert ids(tmp_path / "other", net=net, helper=f"# new\n{helper}", click="def click(*all): return None") == first
    assert not set(ids(tmp_path / "one", helper=helper.replace("return", "return 2 *"))) & set(first)
    clicked = ids(tmp_path / "other", click="def click(*all): return 0, 0, True")
    assert len(set(clicked) - set(first)) == 2  # the evaluation and the trial; embeddings and profile are shared


def test_a_stage_keeps_its_options_and_is_refused_by_other_code():
    config = TrialConfig(
        model=ModelConfig(backbone=example("backbone.py:build"), options={"width": 8}),
        evaluate=EvaluateConfig(clicker=example("clicker.py:anywhere")),
    )
    planned = trial.build(config, trial.NamesAsFingerprints())
    for stage in planned.stages:
        trial.check_code(stage)
        assert Stage.from_json(stage.to_json()).config["model"]["options"] == {"width": 8}
        other = Stage(stage.kind, {**stage.key, "backbone_revision": "0123456789ab"}, stage.names, stage.needs)
        with pytest.raises(PluginError, match=r"its code here .* is not that of the plan"):
            trial.check_code(other)
    evaluate = planned.stage("evaluate")
    other = Stage("evaluate", {**evaluate.key, "clicker_source": "0123456789ab"}, evaluate.names, evaluate.needs)
    with pytest.raises(PluginError, match="clicker:anywhere: its code here"):
        trial.check_code(other)


def test_what_workers_need_is_the_file_or_the_whole_package(tmp_path):
    name = f"lab_{uuid.uuid4().hex}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "nets.py").write_text("from .parts import build")
    (tmp_path / name / "parts.py").write_text("import numpy, yaml\ndef build(): ...")
    plugins.look_in(tmp_path)
    plugins.source(f"{name}.nets:build")
    plugins.source(example("clicker.py:anywhere"))
    assert {tmp_path / name, EXAMPLES / "clicker.py"} <= set(plugins.roots())
    assert "site-packages" not in str(plugins.roots())  # a distribution, which is named with its version


MISTAKES = [
    ("def build(:", r"{file}:1: SyntaxError"),
    ("import no_such_thing\ndef build(): ...", r"{file}:1: ModuleNotFoundError: No module named 'no_such_thing'"),
    ("def make(): ...", r"{file} has no build that can be called; it has make"),
    ("def build(width):\n    return 1 / 0", r"{file}:2: ZeroDivisionError"),
    ("def build(depth): ...", r"{file}:1: it is called with \(width=…\): missing a required argument: 'depth'"),
    ("def build(width):\n    return width", r"{file}:1: it returns a int; return a subclass of"),
    ("import torch\ntorch.set_default_dtype(torch.float64)\ndef build(width): ...", r"changed torch's default dtype"),
    (NETWORK.replace("image_size = 32", "image_size = None"), r"{file}:6: Net.image_size is None"),
    (NETWORK.replace('"embedding": (1, 8)', '"other": (1, 8)'), r"Net.feature_channels is {{'other': \(1, 8\)}}"),
    (NETWORK.replace("::4, ::4]", "::2, ::4]"), r"{file}:13: encode returned 2×1×16×8 instead of 2×1×8×8 as embedding"),
    (NETWORK.replace("[..., 0]\n", "[..., 0] / 0\n"), r"{file}:15: decode returned NaN or infinity"),
    (NETWORK.replace('features["embedding"][', 'features["other"]['), r"{file}:16: KeyError: 'other'"),
    ("raise SystemExit(3)\ndef build(width): ...", r"{file}:1: SystemExit: 3"),
    (
        NETWORK.replace("nn.ModuleList([self.layer]", "list([self.layer]"),
        r"{file}:17: modules_of returned a list instead",
    ),
    (NETWORK.replace("        pass", "        1 / 0"), r"{file}:20: ZeroDivisionError"),
    (
        NETWORK.replace("return self.layer", "__import__('os').chdir('/'); return self.layer"),
        "changed the current folder",
    ),
    (NETWORK.replace("[..., None])[..., 0]", "[..., None])[..., 0].mean(0, keepdim=True)"), "instead of 2×1×8×8"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_backbone_that_does_not_fit_is_told_in_one_line(written, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, name = written(text, "build")
    before = torch.get_default_dtype()
    try:
        with pytest.raises(PluginError, match=message.format(file=re.escape(str(file)))) as error:
            testing.check_backbone(name, {"width": 1})
    finally:
        torch.set_default_dtype(before)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(name)


def test_a_name_that_leads_nowhere_is_told(tmp_path):
    for name, message in (
        ("./nothing.py:build", "there is no file"),
        ("./not-a-name.py:build", "no name of a module"),
        ("./random.py:build", "the module name random is taken by"),
    ):
        (tmp_path / "not-a-name.py").touch()
        (tmp_path / "random.py").touch()
        with pytest.raises(PluginError, match=message):
            plugins.beside(name, tmp_path)
    with pytest.raises(PluginError, match="there is no module no_such_lab"):
        backbones.build("no_such_lab.nets:build")
    with pytest.raises(ValueError, match=r"model\.options are of a backbone of your own; tiny takes none"):
        backbones.build("tiny", {"width": 3})
    with pytest.raises(PluginError, match="'3' is no option"):
        plugins.load(f"{example('dataset.py:open_pairs')}?3")


def test_what_a_plugin_prints_is_no_output_of_a_command(written, capsys):
    _, name = written("print('loaded')\ndef build(width=1):\n    print('built')", "build")
    plugins.call(name)
    assert capsys.readouterr() == ("", "loaded\nbuilt\n")


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("(48, 0, True)", "it returned"),
        ("(0.5, 1, True)", "it returned"),
        ("7", "it returned"),
        ("1 / 0", "Zero"),
        ("None", "it makes no first click, though 1536"),
    ],
)
def test_a_click_that_is_none_is_told(written, returns, message):
    file, name = written(f"def click(truth, mask, clicks, rng):\n    return {returns}", "click")
    with pytest.raises(PluginError, match=rf"{re.escape(str(file))}:\d: {message}"):
        own_click(name, np.ones((32, 48), np.int8), np.zeros((32, 48), bool), (), np.random.default_rng(0))


def test_a_clicker_works_on_copies_and_draws_from_what_it_is_given(written):
    _, careless = written("def click(truth, mask, clicks, rng):\n    mask[0] = 1\n    return 0, 0, True", "click")
    with pytest.raises(PluginError, match="changes the truth or the mask"):
        testing.check_clicker(careless)
    random = "import random\ndef click(truth, mask, clicks, rng):\n    return random.randrange(30), 0, True"
    with pytest.raises(PluginError, match="draw from rng alone"):
        testing.check_clicker(written(random, "click")[1])


DATASET = """
import numpy as np
from samref.data import Sample
class Images:
    samples = [Sample("a", "a"), Sample("b", "a")]
    def image(self, key):
        return np.zeros((4, 6, 3), np.uint8)
    def truth(self, key):
        return np.ones((4, 6), np.int8)
def open(request, **options):
    return Images()
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("np.ones((4, 6), np.int8)", "np.ones((4, 6))", "truth a is 4×6 float64; give H×W int8"),
        ("np.ones((4, 6), np.int8)", "np.zeros((4, 6), np.int8)", r"truth a has the values \[0\]; give 1 object"),
        ("np.ones((4, 6), np.int8)", "np.ones((6, 4), np.int8)", "they must be of one size"),
        ("(4, 6, 3), np.uint8", "(4, 6, 3)", "image a is 4×6×3 float64; give H×W×3 uint8, RGB"),
        ('Sample("b"', 'Sample("a"', "two samples have one key"),
        ("def truth", "def mask", "it lacks truth"),
        ("return Images()", "raise OSError('gone')", "OSError: gone"),
        ("**options", "part", r"it is called with \(Request\): missing a required argument: 'part'"),
    ],
)
def test_a_dataset_that_does_not_fit_is_told_in_one_line(written, old, new, message):
    assert old in DATASET
    _, name = written(DATASET.replace(old, new), "open")
    with pytest.raises((PluginError, data.DataError), match=message) as error:
        testing.check_dataset(name)
    assert str(error.value).startswith(name)


def test_a_dataset_is_its_pixels_and_its_code(written):
    prints = {
        data.open_dataset(written(text, "open")[1], split="val", data_root=Path()).fingerprint()
        for text in (
            DATASET,
            DATASET.replace("np.zeros", "np.ones"),
        )
    }
    assert len(prints) == 2
    name = written(DATASET, "open")[1]
    some = data.open_dataset(name, split="val", data_root=Path(), samples=1)
    assert [sample.key for sample in some.samples] == ["a"]
