"""Backbones by name: an image encoder with a promptable mask decoder, behind one protocol (backbone.py).

Adding one is one file with a builder and one line in `_BUILDERS`. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samref.backbones.backbone import Backbone

_LOG = logging.getLogger(__name__)

# name → (module, argument of its `build`)
_BUILDERS: dict[str, tuple[str, str]] = {
    "tiny": ("samref.backbones.tiny", "tiny"),
    "sam_vit_b": ("samref.backbones.sam", "vit_b"),
    "sam_vit_l": ("samref.backbones.sam", "vit_l"),
    "sam_vit_h": ("samref.backbones.sam", "vit_h"),
    "sam2_hiera_t": ("samref.backbones.sam2", "sam2_hiera_t"),
    "sam2_hiera_s": ("samref.backbones.sam2", "sam2_hiera_s"),
    "sam2_hiera_b+": ("samref.backbones.sam2", "sam2_hiera_b+"),
    "sam2_hiera_l": ("samref.backbones.sam2", "sam2_hiera_l"),
    "sam2.1_hiera_t": ("samref.backbones.sam2", "sam2.1_hiera_t"),
    "sam2.1_hiera_s": ("samref.backbones.sam2", "sam2.1_hiera_s"),
    "sam2.1_hiera_b+": ("samref.backbones.sam2", "sam2.1_hiera_b+"),
    "sam2.1_hiera_l": ("samref.backbones.sam2", "sam2.1_hiera_l"),
    "segnext_vit_b_sax1": ("samref.backbones.segnext", "sax1"),
    "segnext_vit_b_sax2": ("samref.backbones.segnext", "sax2"),
}

# Raised by hand when a change of code changes what one backbone computes: the stages of that backbone alone get other
# ids, where `samref.stage.VERSION` gives them to all. Those that are not named here are at 1.
_REVISIONS = {"segnext_vit_b_sax1": 2, "segnext_vit_b_sax2": 2}


def names() -> list[str]:
    """The names that `build` knows."""
    return list(_BUILDERS)


def module_of(name: str) -> str:
    """The module that holds the builder of a backbone, by its dotted name."""
    return _BUILDERS[name][0]


def revision(name: str) -> int:
    """How often, from 1, the code of a backbone came to compute other numbers than before."""
    return _REVISIONS.get(name, 1)


def build(name: str, *, checkpoint: Path | None = None, seed: int = 0) -> Backbone:
    """A backbone on the CPU, in evaluation mode.

    Args:
        name: one of `names()`.
        checkpoint: file with a state dict under the public checkpoint's names; None: random weights.
        seed: of the random weights; the global generator is left as it was.

    Raises:
        CheckpointError: the file cannot be read, or is not this backbone's.
        ValueError: no such backbone.
    """
    import torch

    from samref.backbones.official import is_official
    from samref.backbones.state_dicts import load

    if name not in _BUILDERS:
        raise ValueError(f"there is no backbone {name!r}; there are {', '.join(_BUILDERS)}")
    module, argument = _BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: Backbone = importlib.import_module(module).build(argument)
    if checkpoint is not None and (said := load(backbone, checkpoint, name)) and not is_official(name, checkpoint):
        _LOG.warning("%s: %s", checkpoint, said)
    return backbone.eval()
