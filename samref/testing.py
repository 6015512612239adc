"""Checks of a person's own backbone, dataset or clicker, for their tests: what is wrong is one line.

Legend as in `samref.backbones.backbone`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samref import backbones, clicks, data
from samref.backbones.backbone import Backbone
from samref.clicks import Click
from samref.config import ModelConfig
from samref.plugins import PluginError
from samref.refiner import SamRef

_TOLERANCE = 1e-3
"""How far, relative to the largest logit, an object's may be from those that it has alone: batches round."""


def check_backbone(name: str, options: Mapping[str, Any] | None = None) -> Backbone:
    """Build a backbone (`mylab.nets:build`) and hold it against the protocol; returns it.

    On two random images: shapes and finite values of features and logits, at a first and a second click; that an
    object's logits do not depend on the objects beside it; that training has parameters to change; that the decoder
    needs no encoder. Raises PluginError: in one line, what is not as `samref.backbones.backbone.Backbone` says.
    """
    backbone = backbones.build(name, options)
    side = backbone.image_size
    generator = torch.Generator().manual_seed(0)
    images_B3SS = torch.randint(0, 256, (2, 3, side, side), generator=generator).float()
    points_BN2 = torch.tensor([[[0.3, 0.4], [0.7, 0.6]], [[0.5, 0.5], [0.2, 0.8]]]) * side
    labels_BN = torch.tensor([[1, 0], [1, 1]])
    with torch.inference_mode():
        features = backbone.encode(images_B3SS)
        first = backbone.decode(features, points_BN2[:, :1], labels_BN[:, :1], None)
        previous = backbone.feedback(first, [(side // 2, side // 3)] * 2)
        both = backbone.decode(features, points_BN2, labels_BN, previous)
        alone = backbone.decode(
            {key: each[1:] for key, each in features.items()}, points_BN2[1:], labels_BN[1:], previous[1:]
        )
        _require_alike(name, both[1:], alone, "the logits of an object change with the objects beside it in a batch")
        backbone.decode(features, points_BN2, torch.tensor([[1, -1], [1, 0]]), None)  # a click too few, padded
        backbone.upscale(both)
        for part in ("encoder", "decoder"):
            of_part = backbone.modules_of(part)
            own = set(map(id, backbone.parameters()))
            if not all(id(each) in own for each in of_part.parameters()):
                raise PluginError(
                    f"{name}: modules_of({part!r}) has parameters that the backbone has not; register them"
                )
        if not any(True for _ in backbone.modules_of("decoder").parameters()):
            raise PluginError(
                f"{name}: modules_of('decoder') has no parameters; give the parts that a training changes"
            )
        backbone.drop_encoder()
        after = backbone.decode(features, points_BN2, labels_BN, previous)
        _require_alike(name, after, both, "drop_encoder changes the logits")
    return backbone


def check_refines(backbone: Backbone, name: str = "the backbone") -> None:
    """Refuse a backbone on which SAM-REF's refiner cannot be put; says why.

    Raises PluginError: its features are no grid that the refiner can bring to its own.
    """
    try:
        SamRef(backbone, ModelConfig(backbone="tiny"))
    except ValueError as error:
        raise PluginError(f"{name}: {error}") from None


def check_dataset(name: str, data_root: Path = Path("data"), split: data.Split = "val") -> data.Dataset:
    """Open a dataset (`mylab.data:open`), read all of it, and fingerprint it twice; returns it.

    Raises DataError, PluginError: in one line, what is not as `samref.data.Dataset` says.
    """
    dataset = data.open_dataset(name, split=split, data_root=data_root)
    data.check(dataset)
    again = data.open_dataset(name, split=split, data_root=data_root)
    if dataset.fingerprint() != again.fingerprint():
        raise PluginError(f"{name}: opened twice it has two fingerprints; give one that depends on its contents alone")
    return dataset


def check_clicker(name: str) -> None:
    """Let a clicker (`mylab.clicks:next_click`) click 20 times on a drawn object that no click ever segments.

    Raises PluginError: in one line: it fails, clicks outside, changes what it is given, or depends on more than that.
    """
    truth_HW = np.zeros((48, 64), np.int8)
    truth_HW[10:30, 20:50] = 1
    truth_HW[40:, :] = -1
    mask_HW = np.zeros(truth_HW.shape, bool)
    mask_HW[5:15, 15:30] = True
    given = truth_HW.copy(), mask_HW.copy()
    made: list[Click] = []
    for number in range(20):
        found, again = (clicks.own_click(name, *given, made, np.random.default_rng([0, number])) for _ in range(2))
        if found != again:
            raise PluginError(f"{name}: asked twice it clicks on {found} and {again}; draw from rng alone")
        if any((before != after).any() for before, after in zip((truth_HW, mask_HW), given, strict=True)):
            raise PluginError(f"{name}: it changes the truth or the mask that it is given; work on a copy")
        if found is None:
            return
        made.append(found)


def _require_alike(name: str, found: Tensor, wanted: Tensor, problem: str) -> None:
    apart, largest = float((found - wanted).abs().max()), float(wanted.abs().max())
    if apart > _TOLERANCE * max(1.0, largest):
        raise PluginError(f"{name}: {problem} (by {apart:.3g}, of {largest:.3g})")
