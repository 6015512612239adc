"""Backbones of a person's own: what each call gives is held against the protocol, and what it raises told in one line.

Legend as in backbone.py.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samref.backbones.backbone import Backbone
from samref.plugins import PluginError, place_of, told, unchanged

_SIZES = ("image_size", "mask_size")


def guarded(backbone: Any, name: str) -> None:
    """Check what a plug-in's `build` returned, and from now on what its `encode`, `decode` and `upscale` return.

    Raises PluginError: it is no backbone; what the protocol asks for is missing, or not what it should be.
    """
    if not isinstance(backbone, Backbone):
        raise PluginError(
            f"{name}: {place_of(name)}: it returns a {type(backbone).__name__}; return a subclass of "
            "samref.backbones.backbone.Backbone"
        )
    own = f"{name}: {place_of(type(backbone))}: {type(backbone).__name__}"
    for size in _SIZES:
        if type(value := getattr(backbone, size, None)) is not int or value < 1:
            raise PluginError(f"{own}.{size} is {value!r}; set it to a side in px, as {size} = 1024")
    channels = getattr(backbone, "feature_channels", None)
    if not (isinstance(channels, dict) and all(map(_is_shape, channels.values())) and "embedding" in channels):
        raise PluginError(
            f"{own}.feature_channels is {channels!r}; name each feature with its channels and side, as "
            "{'embedding': (256, 64)}"
        )
    if not math.isfinite(backbone.threshold):
        raise PluginError(f"{own}.threshold is {backbone.threshold}; set it to the logit above which a pixel is object")
    side, cells = backbone.mask_size, backbone.upscaled_size

    def features_fit(found: Any, batch: int) -> str:
        if not isinstance(found, dict) or found.keys() != channels.keys():
            return f"a {type(found).__name__} instead of a dict of {', '.join(channels)}"
        problems = (_unlike(found[key], (batch, count, size, size)) for key, (count, size) in channels.items())
        return next((f"{problem} as {key}" for key, problem in zip(channels, problems, strict=True) if problem), "")

    _watch(backbone, "encode", name, features_fit)
    _watch(backbone, "decode", name, lambda found, batch: _unlike(found, (batch, 1, side, side)))
    _watch(backbone, "upscale", name, lambda found, batch: _unlike(found, (batch, 1, cells, cells)))
    _watch(backbone, "feedback", name, lambda found, batch: "")
    _watch(backbone, "drop_encoder", name, lambda found, batch: "")
    _watch(backbone, "modules_of", name, lambda found, batch: _no_modules(found))


def _watch(backbone: Backbone, method: str, name: str, problem_with: Callable[[Any, int], str]) -> None:
    """Put a check around a method: `problem_with` says what is wrong with what it returns for so many objects."""
    function = getattr(backbone, method)

    def watched(*arguments: Any, **more: Any) -> Any:
        with unchanged(name), told(name):
            found = function(*arguments, **more)
        first = next(iter(arguments), ())
        if problem := problem_with(found, len(first["embedding"] if isinstance(first, dict) else first)):
            raise PluginError(f"{name}: {place_of(function)}: {method} returned {problem}")
        return found

    setattr(backbone, method, watched)


def _no_modules(found: Any) -> str:
    return "" if isinstance(found, nn.Module) else f"a {type(found).__name__} instead of an nn.ModuleList"


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(each) is int and each > 0 for each in value)


def _unlike(value: Any, shape: tuple[int, ...]) -> str:
    """What is wrong with a tensor that should have this shape and finite values; empty if nothing is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__} instead of a tensor"
    if tuple(value.shape) != shape:
        return f"{'×'.join(map(str, value.shape))} instead of {'×'.join(map(str, shape))}"
    return "" if value.is_meta or bool(torch.isfinite(value).all()) else "NaN or infinity"
