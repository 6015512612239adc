"""Backbones by name: an image encoder with a promptable mask decoder, behind one protocol (backbone.py).

Each is what the `build` of some module returns: of one in `_BUILTIN`, or of a plug-in (`mylab.nets:build`); `hf:NAME`
is one of Hugging Face's (hugging_face.py). One more is a file with a `build`, and a line in `_BUILTIN`; where official
weights are published, a line in official.py, too. Importing this package does not import torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from samref import plugins
from samref.backbones import hugging_face_files

if TYPE_CHECKING:
    from samref.backbones.backbone import Backbone

_LOG = logging.getLogger(__name__)


class Builtin(NamedTuple):
    """A backbone that comes with this package."""

    target: str
    """Where its `build` is, as a plug-in's name says it."""
    size: str
    """What `build` is called with."""
    values_per_image: int
    """Values of one image's features (`Backbone.feature_channels`), by which a plan knows what embeddings take."""
    revision: int = 1
    """Raised by hand when a change of code changes what it computes: its stages alone get other ids, where
    `samref.stage.VERSION` gives them to all."""


_SAM, _SAM2, _SEGNEXT = (f"samref.backbones.{module}:build" for module in ("sam", "sam2", "segnext"))
# One image's features: SAM's 256×64×64; SAM2's with two maps of higher resolution, 32×256×256 and 64×128×128;
# SegNext's 768×64×64; tiny's 64×16×16.
_BUILTIN: dict[str, Builtin] = {
    "tiny": Builtin("samref.backbones.tiny:build", "tiny", 2**14),
    "sam_vit_b": Builtin(_SAM, "vit_b", 2**20),
    "sam_vit_l": Builtin(_SAM, "vit_l", 2**20),
    "sam_vit_h": Builtin(_SAM, "vit_h", 2**20),
    "sam2_hiera_t": Builtin(_SAM2, "sam2_hiera_t", 2**22),
    "sam2_hiera_s": Builtin(_SAM2, "sam2_hiera_s", 2**22),
    "sam2_hiera_b+": Builtin(_SAM2, "sam2_hiera_b+", 2**22),
    "sam2_hiera_l": Builtin(_SAM2, "sam2_hiera_l", 2**22),
    "sam2.1_hiera_t": Builtin(_SAM2, "sam2.1_hiera_t", 2**22),
    "sam2.1_hiera_s": Builtin(_SAM2, "sam2.1_hiera_s", 2**22),
    "sam2.1_hiera_b+": Builtin(_SAM2, "sam2.1_hiera_b+", 2**22),
    "sam2.1_hiera_l": Builtin(_SAM2, "sam2.1_hiera_l", 2**22),
    "segnext_vit_b_sax1": Builtin(_SEGNEXT, "sax1", 3 * 2**20, revision=2),
    "segnext_vit_b_sax2": Builtin(_SEGNEXT, "sax2", 3 * 2**20, revision=2),
}


def names() -> list[str]:
    """The names of the backbones that come with this package."""
    return list(_BUILTIN)


def module_of(name: str) -> str:
    """The module that holds the builder of a backbone, by its dotted name."""
    return _target(name, {})[0].partition(":")[0]


def values_per_image(name: str) -> int:
    """How many values one image's features have; 0 of a plug-in, of which it is not known before it is built."""
    return _BUILTIN[name].values_per_image if name in _BUILTIN else 0


def revision(name: str) -> int | str:
    """Which code a backbone is: of those of this package how often, from 1, it came to compute other numbers than
    before; of a plug-in its source (`samref.plugins.source`), of a network `hf:…` what its files hold."""
    if plugins.is_hugging_face(name):
        return hugging_face_files.contents(name)
    if name in _BUILTIN or not plugins.is_plugin(name):
        return _BUILTIN[name].revision if name in _BUILTIN else 1  # `build` refuses what there is not
    return plugins.source(name)


def takes_boxes(name: str) -> bool:
    """Whether a box can be a prompt; of a plug-in it is not known before it is built, hence True."""
    return not name.startswith("segnext_")


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse, without building it, a backbone that cannot be imported, or does not take these options.

    Raises:
        PluginError: in one line with the plug-in's own file and line.
        ValueError: no such backbone, or its files are not on this machine.
    """
    target, arguments = _target(name, options)
    if plugins.is_hugging_face(name):
        hugging_face_files.contents(name)
    elif name not in _BUILTIN:
        plugins.bind(target, **arguments)


def build(
    name: str, options: Mapping[str, Any] | None = None, *, checkpoint: Path | None = None, seed: int = 0
) -> Backbone:
    """A backbone on the CPU, in evaluation mode.

    Args:
        name: one of `names()`; a plug-in's, whose `build` returns a `samref.backbones.backbone.Backbone`; or `hf:…`, a
            network of Hugging Face's.
        options: keyword arguments for a plug-in's `build`.
        checkpoint: file with a state dict under the public checkpoint's names; None: random weights, or of a plug-in
            those with which its `build` returns.
        seed: of the random weights; the global generator is left as it was.

    Raises:
        CheckpointError: the file cannot be read, or is not this backbone's.
        PluginError: the plug-in fails, or what it returns is no backbone.
        ValueError: no such backbone.
    """
    import torch

    from samref.backbones.official import is_official
    from samref.backbones.own import guarded
    from samref.backbones.state_dicts import load

    target, arguments = _target(name, options or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: Backbone = plugins.call(target, **arguments)
    if target == name:
        guarded(backbone, name)
    if checkpoint is not None and (said := load(backbone, checkpoint, name)) and not is_official(name, checkpoint):
        _LOG.warning("%s: %s", checkpoint, said)
    return backbone.eval()


def _target(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The function that builds a backbone, as a plug-in's name, and what it is called with."""
    if options and (name in _BUILTIN or plugins.is_hugging_face(name)):
        raise ValueError(f"model.options are of a backbone of your own; {name} takes none")
    if name in _BUILTIN:
        return _BUILTIN[name].target, {"size": _BUILTIN[name].size}
    if plugins.is_hugging_face(name):
        return "samref.backbones.hugging_face:build", {"name": name}
    if plugins.is_plugin(name):
        return name, dict(options)
    raise ValueError(
        f"there is no backbone {name!r}; there are {', '.join(_BUILTIN)}, hf:NAME_OR_FOLDER, and your own, as "
        "mylab.nets:build"
    )
