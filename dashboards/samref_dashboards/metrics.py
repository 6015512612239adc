"""The metrics that tables and figures show: label, unit, which way is better, how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samref_dashboards.statistics import Summary


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One numeric column of trials.parquet or profile.parquet."""

    key: str
    label: str
    meaning: str
    better: Literal["low", "high"] | None = None
    digits: int = 2
    scale: float = 1.0
    """Shown value = stored value × scale."""

    def write(self, value: float | None) -> str:
        """The value as text; a dash when it was not measured."""
        return "–" if value is None else f"{value * self.scale:,.{self.digits}f}"

    def write_summary(self, summary: Summary) -> str:
        """`mean ± std`, or the mean alone when there are no repetitions."""
        text = self.write(summary.mean)
        return text if summary.std is None else f"{text} ± {summary.std * self.scale:.{self.digits}f}"


def _noc(percent: int) -> Metric:
    meaning = f"mean number of clicks until IoU ≥ {percent} % (20 if never)"
    return Metric(key=f"noc_at_{percent}", label=f"NoC{percent}", meaning=meaning, better="low")


def _nof(percent: int) -> Metric:
    meaning = f"samples that did not reach IoU {percent} % before the last click"
    return Metric(key=f"nof_at_{percent}", label=f"NoF{percent}", meaning=meaning, better="low", digits=0)


def _miou(click: int) -> Metric:
    meaning = f"mean IoU after click {click}, in percent"
    return Metric(key=f"miou_at_{click}", label=f"{click}-mIoU", meaning=meaning, better="high", scale=100)


NOC_90, NOC_95 = _noc(90), _noc(95)
ON_GLOBAL = Metric(key="clicks_on_global", label="on Gₜ", meaning="clicks pasted on the global result")
ON_PREVIOUS = Metric(key="clicks_on_previous", label="on Mₜ₋₁", meaning="clicks pasted on the previous mask")
SECONDS_PER_CLICK = Metric(
    key="seconds_per_click", label="s / click", meaning="seconds per click", better="low", digits=3
)
MIOU_5 = _miou(5)
HEADLINE = (_noc(85), NOC_90, NOC_95, _nof(90), _nof(95), MIOU_5, SECONDS_PER_CLICK)
BARRED = (NOC_90, NOC_95, MIOU_5)
"""Those of the headline that get a bar; one under every number would be noise."""
COST = (
    Metric(key="parameters", label="params (M)", meaning="all parameters, millions", scale=1e-6),
    Metric(
        key="parameters_leaf",
        label="leaf params (M)",
        meaning="parameters counted on leaf modules, as the paper does, millions",
        scale=1e-6,
        digits=1,
    ),
    Metric(key="fps", label="FPS", meaning="images per second, one encode and one click", better="high"),
    Metric(key="memory_gb", label="memory (GB)", meaning="peak memory", better="low", digits=1),
    Metric(key="encode_seconds", label="encode (s)", meaning="encoding one image", better="low", digits=3),
    Metric(
        key="click_seconds",
        label="click (s)",
        meaning="one click on an encoded image",
        better="low",
        digits=3,
    ),
)
