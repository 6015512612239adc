"""A backbone's weights from a file, whoever saved it: what stands around them is taken off, and said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from samref.backbones.checkpoints import CheckpointError
from samref.backbones.families import backbones_of
from samref.backbones.pickles import SAVE, read
from samref.plugins import is_plugin

if TYPE_CHECKING:
    from samref.backbones.backbone import Backbone

# Entries under which programs save a state dict: SAM2's, Lightning's and SegNext's, DeepSpeed's, and others'.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params")
# What torch's AveragedModel keeps beside the weights.
_COUNTERS = ("n_averaged",)


def load(backbone: Backbone, path: Path, name: str = "") -> str:
    """Load a file into a backbone: a `.pth` or `.safetensors` with a state dict under the public checkpoint's names.

    By the backbone's `name` another's file is told apart where names and shapes are alike (SAM 2.0, 2.1). Returns what
    was taken off before the names fitted, in one line; empty where nothing was. Raises CheckpointError: it cannot be
    read, is not this backbone's, or its values are no finite floating-point numbers.
    """
    state, said = _fitting(backbone, path, read(path), name)
    backbone.load_state_dict(state)
    bad = [key for key, value in backbone.state_dict().items() if not _is_finite(value)]
    if bad:
        raise CheckpointError(
            f"{path}: {len(bad)} of {len(state)} tensors hold NaN or infinity (first {bad[0]}); give weights of a "
            "training that did not diverge"
        )
    return said


def compare(name: str, path: Path, options: Mapping[str, Any] | None = None) -> str:
    """Say what `load` would say of a file, by names, shapes and types alone: the values are left on disk."""
    from samref.backbones import build

    with torch.device("meta"), _RealRates():
        backbone = build(name, options)
    return _fitting(backbone, path, read(path, lazily=True), name)[1]


class _RealRates(TorchFunctionMode):
    """Hiera reads its stochastic depth's rates with `.item()`, which a meta tensor refuses (sam2 1.1)."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.linspace:
            kwargs = {**(kwargs or {}), "device": "cpu"}
        return function(*args, **(kwargs or {}))


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    return all(bool(torch.isfinite(each)) for each in value.aminmax())


def _fitting(backbone: Backbone, path: Path, content: Any, name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors under the backbone's own names, and what was taken off."""
    own: dict[str, Tensor] = backbone.state_dict()
    found, wrappers = _unwrapped(path, content)
    state, prefix = _without_prefix(found, own)
    if (known := backbones_of(_tensors(state))) and name and not is_plugin(name) and name not in known:
        raise CheckpointError(
            f"{path} holds {' or '.join(known)}, not {name}: set model.backbone to {known[0]}, or give a file of {name}"
        )
    unused = getattr(backbone, "unused_in_checkpoint", ())  # SAM2's memory, which images do not need
    state = {key: value for key, value in state.items() if key.partition(".")[0] not in unused}
    _require_names(path, own, state)
    for key, value in own.items():
        _require_tensor(path, key, value, state[key])
    taken = [f"read from its entry {'.'.join(wrappers)}"] if wrappers else []
    taken += [f"the prefix {prefix} is taken off all names"] if prefix else []
    return _tensors(state), "; ".join(taken)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _unwrapped(path: Path, content: Any) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The state dict in what a file holds, and the entries under which it was."""
    found = list(_state_dicts(content))
    if len(found) > 1:
        places = " and ".join(".".join(wrappers) for wrappers, _ in found)
        raise CheckpointError(f"{path} holds several state dicts, under {places}; save the one that is meant: {SAVE}")
    if not found:
        raise CheckpointError(f"{path} holds no state dict but {_described(content)}; save one: {SAVE}")
    wrappers, state = found[0]
    return state, wrappers


def _state_dicts(content: Any, wrappers: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Mappings with tensors, in wrappers or, where there is none in any, at the top."""
    if not isinstance(content, Mapping):
        return
    # Of DeepSpeed's `module` and the like no more than a few stand in each other.
    inner = [
        each for key in _WRAPPERS if len(wrappers) < 4 for each in _state_dicts(content.get(key), (*wrappers, key))
    ]
    if inner:
        yield from inner
    elif all(isinstance(key, str) for key in content) and _tensors(content):
        yield wrappers, content


def _without_prefix(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Any], str]:
    """Names without what all of them begin with, unless the backbone's begin so too; and what that was."""
    firsts = {key.partition(".")[0] for key in own}
    taken = ""
    while True:
        keys = [key for key in state if key not in _COUNTERS]
        starts = {key.partition(".")[0] for key in keys}
        if len(starts) != 1 or starts & firsts or not all("." in key for key in keys):
            return state, taken
        taken += f"{starts.pop()}."
        state = {key.partition(".")[2]: state[key] for key in keys}


def _require_names(path: Path, own: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path} is not this backbone's checkpoint: {len(missing)} names are missing (first {missing[:1]}), "
            f"{len(unknown)} are unknown (first {unknown[:1]})"
        )


def _require_tensor(path: Path, name: str, own: Tensor, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: {name} is {_described(value)}, and no tensor; save a state dict: {SAVE}")
    if value.shape != own.shape:
        raise CheckpointError(
            f"{path} is another backbone's checkpoint: {name} has shape {list(value.shape)}, needed is "
            f"{list(own.shape)}"
        )
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_meta:
        kind = "without values" if value.is_meta else f"{kind} in a sparse layout"
    elif value.is_floating_point() == own.is_floating_point():
        return
    raise CheckpointError(
        f"{path}: {name} is {kind}, and not of plain floating-point numbers; give the weights as they were trained, "
        "before quantizing or packing"
    )


def _described(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, list(value)[:4]))}" if value else "an empty dict"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}" if not isinstance(value, str) else f"the text {value[:40]!r}"
