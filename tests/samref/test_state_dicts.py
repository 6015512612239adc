"""Weights from files as training scripts write them: what is taken off is said, what is wrong is one line."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from samref import backbones
from samref.backbones import state_dicts
from samref.backbones.checkpoints import PACKAGED, CheckpointError, file_digest
from samref.backbones.families import backbones_of
from samref.config import ModelConfig, Runtime
from samref.contents import Contents

STATE = load_file(PACKAGED["tiny"])
FIRST = "image_encoder.pos_embed"


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def file_of(folder: Path, content: Any, name: str = "weights.pth", **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def loaded(path: Path) -> str:
    """What is said of a file that loads to STATE, by its header and when its values are read alike."""
    backbone = backbones.build("tiny", seed=3)
    said = state_dicts.load(backbone, path, "tiny")
    assert all(torch.equal(value, STATE[name].float()) for name, value in backbone.state_dict().items())
    assert state_dicts.compare("tiny", path) == said
    return said


def refused(path: Path, *, by_header: bool = True) -> str:
    """Why a file is refused, in one line that names it; by its header, unless only the values tell."""
    with pytest.raises(CheckpointError) as caught:
        state_dicts.load(backbones.build("tiny"), path, "tiny")
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    if by_header:
        with pytest.raises(CheckpointError) as caught:
            state_dicts.compare("tiny", path)
        assert str(caught.value) == text
    else:
        state_dicts.compare("tiny", path)
    return text


@pytest.mark.parametrize(
    "beside",
    [
        {"best": np.float64(0.9), "step": np.int64(7), "flags": np.array([True, False]), "names": np.array(["a"])},
        {"args": argparse.Namespace(lr=1, device=torch.device("cpu"), out=Path("runs"))},
        {"best": np.float32(0.5), "when": datetime.datetime(2024, 1, 2, 3), "seen": {1, 2}, "shape": range(3)},
        {"seen": collections.defaultdict(int)},
        {
            "history": collections.defaultdict(list, loss=[1.0, 2.0]),
            "last": collections.deque([1]),
            "loss": torch.ones(()),
        },
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}, "epoch": 3},
        {"objects": np.array([{"a": 1}, None], dtype=object), "dtype": np.dtype("float16")},
    ],
)
def test_what_training_scripts_put_beside_the_weights_is_read_over(tmp_path: Path, beside: dict[str, Any]) -> None:
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        path = file_of(tmp_path, {"model": STATE, **beside}, **options)
        assert loaded(path) == "read from its entry model"


def test_numbers_that_an_older_numpy_pickled(tmp_path: Path) -> None:
    """Under numpy 1 the same function is in another module."""
    path = file_of(tmp_path, {"model": STATE, "best": np.float64(0.9)}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert loaded(path) == "read from its entry model"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STATE, ""),
        (collections.OrderedDict(STATE), ""),
        ({"state_dict": STATE}, "read from its entry state_dict"),
        ({"model_state_dict": STATE, "epoch": 1}, "read from its entry model_state_dict"),
        ({"module": STATE}, "read from its entry module"),
        ({"model": "vit_b", "state_dict": STATE}, "read from its entry state_dict"),
        ({"model": None, "state_dict": STATE}, "read from its entry state_dict"),
        ({"model": {}, "net": STATE}, "read from its entry net"),
        ({"model": {"state_dict": STATE}}, "read from its entry model.state_dict"),
        (prefixed("module."), "the prefix module. is taken off all names"),
        (prefixed("_orig_mod."), "the prefix _orig_mod. is taken off all names"),
        (prefixed("module._orig_mod.net."), "the prefix module._orig_mod.net. is taken off all names"),
        (prefixed("sam."), "the prefix sam. is taken off all names"),
        ({**prefixed("module."), "n_averaged": torch.tensor(5)}, "the prefix module. is taken off all names"),
        (
            {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1}},
            "read from its entry state_dict; the prefix model. is taken off all names",
        ),
    ],
)
def test_wrappers_and_prefixes_are_taken_off_and_said(tmp_path: Path, content: Any, said: str) -> None:
    assert loaded(file_of(tmp_path, content)) == said


def test_a_file_is_what_its_bytes_say(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "upper.SAFETENSORS")
    save_file(STATE, tmp_path / "weights.pth")
    for path in (
        tmp_path / "upper.SAFETENSORS",
        tmp_path / "weights.pth",
        file_of(tmp_path, STATE, "pickled.safetensors"),
        file_of(tmp_path, STATE, "OLD.PT", _use_new_zipfile_serialization=False),
        file_of(tmp_path, STATE, "weights"),
    ):
        assert loaded(path) == ""


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_is_read(tmp_path: Path, kind: torch.dtype) -> None:
    path = file_of(tmp_path, {name: value.to(kind) for name, value in STATE.items()})
    state_dicts.compare("tiny", path)
    own = backbones.build("tiny", checkpoint=path).state_dict()
    assert all(torch.equal(value, STATE[name].to(kind).float()) for name, value in own.items())


class Settings:
    """Of somebody's own script."""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: backbones.build("tiny"), "an object of samref.backbones.tiny.TinyBackbone (a whole model"),
        (lambda: {"model": backbones.build("tiny")}, "where it was made, save the weights alone: torch.save(model.sta"),
        (lambda: {"model": STATE, "config": Settings()}, "an object of tests.samref.test_state_dicts.Settings"),
        (lambda: [STATE], "holds no state dict but a list of 1; save one: torch.save(model.state_dict(), 'weights.pt"),
        (lambda: {}, "holds no state dict but an empty dict"),
        (lambda: {"epoch": 3, "ema": STATE}, "holds no state dict but a dict with 'epoch', 'ema'"),
        (lambda: {"model": {}}, "holds no state dict but a dict with 'model'"),
        (lambda: STATE[FIRST], "holds no state dict but of type Tensor"),
        (lambda: {"model": STATE, "state_dict": STATE}, "holds several state dicts, under model and state_dict"),
        (lambda: {**STATE, FIRST: "text"}, f"{FIRST} is the text 'text', and no tensor"),
        (lambda: {**STATE, FIRST: STATE[FIRST].numpy()}, f"{FIRST} is of type ndarray, and no tensor"),
        (lambda: {**STATE, FIRST: STATE[FIRST].to_sparse()}, f"{FIRST} is float16 in a sparse layout"),
        (lambda: {**STATE, FIRST: STATE[FIRST].to("meta")}, f"{FIRST} is without values"),
        (lambda: {**STATE, FIRST: STATE[FIRST].int()}, f"{FIRST} is int32, and not of plain floating-point numbers"),
        (lambda: {**STATE, FIRST: STATE[FIRST].cfloat()}, f"{FIRST} is complex64"),
        (lambda: {**STATE, FIRST: STATE[FIRST][0]}, f"{FIRST} has shape [16, 16, 96], needed is [1, 16, 16, 96]"),
        (lambda: {f"{name}.lora_A": value for name, value in STATE.items()}, "200 names are missing"),
        (lambda: {**prefixed("a."), **prefixed("b.")}, "200 names are missing"),
    ],
)
def test_all_else_is_one_line_that_says_what_was_found(tmp_path: Path, content: Callable[[], Any], text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of sparse tensors
        assert text in refused(file_of(tmp_path, content()))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "it is a Git LFS pointer"),
        (b"<html>", "it is a web page"),
        (b"\x80\x02garbage", "it is cut off, or another kind of file"),
        (b"PK\x03\x04" + bytes(100), "it is cut off, or another kind of file"),
        ((40).to_bytes(8, "little") + b'{"a": 1', "it is cut off, or another kind of file"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert text in refused(path)


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    for path in (file_of(tmp_path, STATE), tmp_path / "a.safetensors"):
        whole = path.read_bytes()
        for length in (9, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert "it is cut off, or another kind of file; fetch it again" in refused(path)


def test_values_that_are_no_numbers_are_refused_where_they_are_read(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = STATE[FIRST].clone()
        broken.view(-1)[17] = value
        said = refused(file_of(tmp_path, {**STATE, FIRST: broken}), by_header=False)
        assert f"1 of 200 tensors hold NaN or infinity (first {FIRST})" in said
    too_large = {**STATE, FIRST: torch.full(STATE[FIRST].shape, 1e300, dtype=torch.float64)}
    assert "hold NaN or infinity" in refused(file_of(tmp_path, too_large), by_header=False)


def test_another_backbones_file_is_named(tmp_path: Path) -> None:
    """A part of another's state dict is enough to tell; SAM 2.0 and 2.1 have the same names for still images."""
    trunk = {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7)}
    small = {**trunk, "image_encoder.trunk.blocks.12.norm1.weight": torch.zeros(2)}
    old = {"model": {**small, "maskmem_tpos_enc": torch.zeros(7)}}
    new = {"model": {**trunk, "maskmem_tpos_enc": torch.zeros(7), "no_obj_embed_spatial": torch.zeros(1)}}
    large = {"module.image_encoder.patch_embed.proj.weight": torch.zeros(1024, 3, 16, 16)}
    for content, asked, found in (
        (old, "sam2.1_hiera_s", "sam2_hiera_s"),
        (new, "sam2_hiera_t", "sam2.1_hiera_t"),
        (new, "sam2.1_hiera_s", "sam2.1_hiera_t"),
        (large, "sam_vit_b", "sam_vit_l"),
        (large, "sam2.1_hiera_t", "sam_vit_l"),
        (STATE, "sam_vit_b", "tiny"),
    ):
        path = file_of(tmp_path, content)
        with pytest.raises(CheckpointError) as caught:
            state_dicts.compare(asked, path)
        assert str(caught.value) == (
            f"{path} holds {found}, not {asked}: set model.backbone to {found}, or give a file of {asked}"
        )


@pytest.mark.slow
def test_every_backbone_is_known_by_its_public_names() -> None:
    from sam2.build_sam import build_sam2

    for name in backbones.names():
        with torch.device("meta"), state_dicts._RealRates():
            state = backbones.build(name).state_dict()
            if name.startswith("sam2"):
                family = name.partition("_")[0]
                whole = build_sam2(f"configs/{family}/{name}.yaml", device="meta").state_dict()
                assert backbones_of(whole) == (name,)
                both = {f"{version}_{name.partition('_')[2]}" for version in ("sam2", "sam2.1")}
                assert set(backbones_of(state)) == both  # what only video needs tells them apart
            else:
                assert backbones_of(state) == (name,)


def test_the_plan_looks_at_a_file_once_for_each_content(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"model": STATE})
    model = ModelConfig(backbone="tiny", checkpoint=str(path))
    runtime = Runtime(data_root=tmp_path, device="cpu")

    def said() -> list[str]:
        contents = Contents(runtime, tmp_path / "fingerprints")
        contents.checkpoint(model)
        return list(contents.said.values())

    assert said() == [f"{path}: read from its entry model"]
    (marker,) = (tmp_path / "fingerprints").iterdir()
    marker.write_text(marker.read_text().replace("entry model", "entry that was noted"))
    assert said() == [f"{path}: read from its entry that was noted"]
    file_of(tmp_path, {"state_dict": STATE})
    assert said() == [f"{path}: read from its entry state_dict"]
    file_of(tmp_path, {"state_dict": {}})
    with pytest.raises(CheckpointError, match="holds no state dict but a dict with 'state_dict'"):
        said()


def test_the_check_before_a_run_reads_the_values(tmp_path: Path) -> None:
    broken = {**STATE, FIRST: torch.full_like(STATE[FIRST], float("nan"))}
    model = ModelConfig(backbone="tiny", checkpoint=str(file_of(tmp_path, broken)))
    contents = Contents(Runtime(data_root=tmp_path, device="cpu"), tmp_path / "fingerprints")
    contents.checkpoint(model)
    with pytest.raises(CheckpointError, match="hold NaN or infinity"):
        contents.check([model])


def test_a_stage_logs_what_was_taken_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file_of(tmp_path, {"model": STATE})
    backbones.build("tiny", checkpoint=path)
    assert caplog.messages == [f"{path}: read from its entry model"]


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_no_code_is_run(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    for content in (Attack(), {"model": STATE, "args": [Attack()]}, {**STATE, FIRST: Attack()}):
        path = file_of(tmp_path, content, f"weights{suffix}", **options)
        assert "it holds an object of posix.mkdir" in refused(path)
    assert not (tmp_path / "attacked").exists()


def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pt")
    assert "it is a TorchScript program; where it was made, save the weights alone" in refused(tmp_path / "program.pt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_end_in_one_line_or_in_weights(tmp_path: Path, suffix: str) -> None:
    path, rng, said = tmp_path / f"weights{suffix}", random.Random(0), []
    save_file(STATE, path) if suffix == ".safetensors" else file_of(tmp_path, {"model": STATE, "best": np.float64(1)})
    whole = path.read_bytes()
    for _ in range(20):
        damaged = bytearray(whole)
        end = rng.choice([300, 20_000, len(whole)])
        for place in rng.choices(range(end), k=4):
            damaged[place] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            state_dicts.load(backbones.build("tiny"), path, "tiny")
        except CheckpointError as error:
            said.append(str(error))
    assert said
    assert all(str(path) in each and "\n" not in each for each in said)


def test_a_flipped_bit_among_the_weights_is_told(tmp_path: Path) -> None:
    """torch.load reads it as another number."""
    torch.serialization.set_crc32_options(False)
    try:
        unsummed = file_of(tmp_path, STATE, "unsummed.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    path = file_of(tmp_path, STATE)
    for each in (path, unsummed):
        file_digest(each)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights.pth is damaged: the checksum of its entry weights/data/\d+"):
        file_digest(path)
