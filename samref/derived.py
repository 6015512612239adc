"""Metrics by the pattern of their name, of the clicks that an evaluation wrote: nothing is evaluated again.

noc_at_80            mean clicks to IoU 0.80; noc_at_80_in_10: of the first 10; failures count as the most clicks, or,
                     noc_at_80_else_21, as another number
nof_at_80            samples that did not reach IoU 0.80 before the last click; nof_at_80_in_10
success_at_85_in_5   share of samples that reach IoU 0.85 within 5 clicks
iou_auc_20           area under the IoU over clicks 1 to 20, by trapezoids, over its width: 0 to 1
miou_at_7            mean IoU after click 7
noc_at_90@COIFT      any of these of one group of samples alone: those whose key begins with COIFT/
mylab.metrics:fn     a function of one's own, of the clicks as columns
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samref import plugins
from samref.config import EvaluateConfig
from samref.measures import MEASURES, Better, Measure

_NOC = re.compile(r"noc_at_([1-9]\d)(?:_in_([1-9]\d*))?(?:_else_(\d+))?")
_NOF = re.compile(r"nof_at_([1-9]\d)(?:_in_([1-9]\d*))?")
_SUCCESS = re.compile(r"success_at_([1-9]\d)_in_([1-9]\d*)")
_AUC = re.compile(r"iou_auc_(\d+)")
_MIOU = re.compile(r"miou_at_(\d+)")
_PATTERNS = (_NOC, _NOF, _SUCCESS, _AUC, _MIOU)
NAMES = f"^(({'|'.join(each.pattern for each in _PATTERNS)})(@[^@:]+)?|.+:.+)$"
"""A regular expression that the names fit."""
PATTERNS = (
    "noc_at_80, noc_at_80_in_10, noc_at_80_else_21, nof_at_80, success_at_85_in_5, iou_auc_20, miou_at_7, "
    "noc_at_80@GROUP, ./mine.py:metric"
)


def measure(name: str) -> Measure | None:
    """What a metric of such a name is; None where no pattern fits. Raises PluginError for one that cannot be called."""
    if name in MEASURES:
        return MEASURES[name]
    if plugins.is_plugin(name):
        plugins.bind(name, {})
        return Measure(name, "", None, "what this function makes of the clicks", "evaluate")
    described: tuple[str, Better, str] | None = None
    whole, (name, at, group) = name, name.partition("@")
    if found := _NOC.fullmatch(name):
        level, most, failed = found.groups()
        text = (
            f"mean over samples of the first click with IoU ≥ 0.{level:0>2}, of the first {most or 'that were allowed'}"
        )
        described = "clicks", "lower", f"{text}; {failed or 'the most clicks'} if none"
    elif found := _NOF.fullmatch(name):
        level, most = found.groups()
        described = "samples", "lower", f"samples below IoU 0.{level:0>2} before click {most or 'the last one allowed'}"
    elif found := _SUCCESS.fullmatch(name):
        level, most = found.groups()
        described = "0 to 1", "higher", f"share of samples with IoU ≥ 0.{level:0>2} within {most} clicks"
    elif found := _AUC.fullmatch(name):
        described = "0 to 1", "higher", f"mean area under the IoU over clicks 1 to {found[1]}"
    elif found := _MIOU.fullmatch(name):
        described = "0 to 1", "higher", f"mean IoU after click {found[1]}"
    if described is None or bool(at) != bool(group):
        return None
    unit, better, meaning = described
    return Measure(whole, unit, better, meaning + (f"; of the samples {group}/… alone" if group else ""), "evaluate")


def values(names: Iterable[str], file: Callable[[str], Path], config: EvaluateConfig) -> dict[str, float]:
    """Metrics of an evaluation, `file` giving each of its files by name; what its clicks do not tell is left out."""
    with np.load(file("clicks.npz")) as arrays:
        clicks = dict(arrays)
    return of_clicks(names, clicks, json.loads(file("samples.json").read_text()), config)


def of_clicks(
    names: Iterable[str], clicks: Mapping[str, NDArray[Any]], samples: Sequence[str], config: EvaluateConfig
) -> dict[str, float]:
    """Metrics by their names, of the columns of clicks.npz, which have each sample's clicks in their order.

    `samples` are all samples' keys, by index; a function of one's own gets them as the column `sample_key`. Raises
    PluginError: such a function fails, or returns no finite number.
    """
    ious: list[list[float]] = [[] for _ in samples]
    for sample, iou in zip(clicks["sample"].tolist(), clicks["iou"].tolist(), strict=True):
        ious[sample].append(iou)
    if config.stop_at is None:  # else a loop ends before its time only where no error is left
        ious = [own + [own[-1] if own else 1.0] * (config.max_clicks - len(own)) for own in ious]
    found: dict[str, float] = {}
    for name in names:
        if plugins.is_plugin(name):
            found[name] = _own(name, {**clicks, "sample_key": np.array(samples)[clicks["sample"]]})
        else:
            pattern, _, group = name.partition("@")
            start = f"{group}/" if group else ""
            own = [each for key, each in zip(samples, ious, strict=True) if key.startswith(start)]
            if own and (value := _value(pattern, own, config)) is not None:
                found[name] = value
    return found


def is_told(name: str, samples: Sequence[str], config: EvaluateConfig) -> bool:
    """Whether an evaluation of samples of these keys tells a metric, whatever comes of its clicks."""
    one_each = list({key.partition("/")[0] if "/" in key else "": key for key in samples}.values())
    clicks = {"sample": np.empty(0, int), "iou": np.empty(0)}
    return name in of_clicks([name], clicks, one_each, config)


def _value(name: str, ious: Sequence[Sequence[float]], config: EvaluateConfig) -> float | None:
    from samref import metrics  # of OpenCV, which to know a name does without

    match = next(filter(None, (each.fullmatch(name) for each in _PATTERNS)), None)
    if match is None:
        return None
    if match.re in (_AUC, _MIOU):
        least, most = 2 if match.re is _AUC else 1, int(match[1])
        if config.stop_at is not None or not least <= most <= config.max_clicks:
            return None
        if match.re is _MIOU:
            return metrics.mean_iou_at(ious, most)
        return float(np.mean([np.trapezoid(own[:most]) / (most - 1) for own in ious]))
    level, most = int(match[1]) / 100, int(match[2] or config.max_clicks)
    if most > config.max_clicks or (config.stop_at is not None and level > config.stop_at):
        return None
    first = metrics.noc(ious, level, most)
    reached = np.array([max(own[:most], default=0.0) >= level for own in ious])
    if match.re is _SUCCESS:
        return float(np.mean(reached))
    if match.re is _NOF:
        return float(np.count_nonzero(first == most))
    return float(np.mean(np.where(reached, first, int(match[3] or most))))


def _own(name: str, clicks: Mapping[str, NDArray[Any]]) -> float:
    function, options = plugins.ready(name)
    with plugins.told(name):
        value = float(function(clicks, **options))
    if not np.isfinite(value):
        raise plugins.PluginError(f"{name}: {plugins.place_of(function)}: it returned {value}; return a finite number")
    return value
