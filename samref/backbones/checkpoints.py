"""Where a backbone's first weights come from: an official checkpoint, a file, or a seed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samref.config import ModelConfig

if TYPE_CHECKING:
    from samref.backbones.backbone import Backbone

# Official files by backbone; downloading them comes with the backbones' issue, until then they are looked up here.
OFFICIAL = {
    "sam_vit_b": "sam_vit_b_01ec64.pth",
    "sam_vit_l": "sam_vit_l_0b3195.pth",
    "sam_vit_h": "sam_vit_h_4b8939.pth",
    "sam2_hiera_t": "sam2_hiera_tiny.pt",
    "sam2_hiera_s": "sam2_hiera_small.pt",
    "sam2_hiera_b+": "sam2_hiera_base_plus.pt",
    "sam2_hiera_l": "sam2_hiera_large.pt",
    "sam2.1_hiera_t": "sam2.1_hiera_tiny.pt",
    "sam2.1_hiera_s": "sam2.1_hiera_small.pt",
    "sam2.1_hiera_b+": "sam2.1_hiera_base_plus.pt",
    "sam2.1_hiera_l": "sam2.1_hiera_large.pt",
    # As SegNext's own download.py names them: trained on COCO+LVIS. A file fine-tuned on HQSeg-44K is given as a path.
    "segnext_vit_b_sax1": "vitb_sa1_cocolvis_epoch_90.pth",
    "segnext_vit_b_sax2": "vitb_sa2_cocolvis_epoch_90.pth",
}

# Weights that come with this package, made by this project (sweeps/tiny.yaml, pack_tiny.py).
PACKAGED = {"tiny": Path(__file__).with_name("tiny.safetensors")}


class CheckpointError(ValueError):
    """A checkpoint is missing or broken; one line that names the file and says what to do."""


def locate(model: ModelConfig, folder: Path) -> Path | None:
    """The file of a model's first weights; None: random weights.

    Raises:
        CheckpointError: the file is not there.
    """
    if model.checkpoint == "none":
        return None
    if model.checkpoint != "auto":
        path = Path(model.checkpoint).expanduser()
        if not path.is_file():
            raise CheckpointError(
                f"model.checkpoint: {path} is not a file; give a file, auto, or none (random weights)"
            )
        return path
    if model.backbone in PACKAGED:
        return PACKAGED[model.backbone]
    path = folder / OFFICIAL[model.backbone]
    if not path.is_file():
        raise CheckpointError(
            f"{model.backbone}: its checkpoint {path.name} is not in {folder}; put the official file there "
            "(or set SAMREF_CHECKPOINTS), or set model.checkpoint to none for random weights"
        )
    return path


def fingerprint(model: ModelConfig, folder: Path) -> str:
    """What a model's first weights are: `random:SEED`, an official file's name, or a file's SHA-256.

    Raises:
        CheckpointError: `model.checkpoint` names a file that is not there.
    """
    if model.checkpoint == "auto" and model.backbone in OFFICIAL:
        return OFFICIAL[model.backbone]  # the same whether it is here yet or not
    path = locate(model, folder)
    return f"random:{model.seed}" if path is None else f"sha256:{_sha256(path)}"


def load(backbone: Backbone, path: Path) -> None:
    """Load a state dict, a `.pth` or a `.safetensors`, names and shapes checked.

    Raises:
        CheckpointError: unreadable, or not this backbone's.
    """
    import torch
    from safetensors.torch import load_file

    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format fails in its own ways; the user needs the file's name
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is cut off, or another kind of file; fetch it again"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state dict")
    state = state.get("model", state.get("state_dict", state))  # SAM2's wrapping, SegNext's, or none
    unused = getattr(backbone, "unused_in_checkpoint", ())  # SAM2's memory, which images do not need
    state = {name: value for name, value in state.items() if name.partition(".")[0] not in unused}
    own = backbone.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path} is not this backbone's checkpoint: {len(missing)} names are missing (first {missing[:1]}), "
            f"{len(unknown)} are unknown (first {unknown[:1]})"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise CheckpointError(
                f"{path} is another backbone's checkpoint: {name} has shape {list(state[name].shape)}, "
                f"needed is {list(value.shape)}"
            )
    backbone.load_state_dict(state)


def _sha256(path: Path) -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "samref" / "checkpoint-hashes.json"
    stat = path.stat()
    key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            aside = cache.with_name(f"{cache.name}.{os.getpid()}")
            aside.write_text(json.dumps(known))
            aside.replace(cache)
        except OSError:  # a read-only home only costs hashing again
            pass
    return str(known[key])
