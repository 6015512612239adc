"""The metrics that tables and figures show: label, unit, which way is better, how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
        """The value as text; a dash when it was not measured, more digits than usual where those would say 0."""
        if value is None:
            return "–"
        text = f"{value * self.scale:,.{self.digits}f}"
        return f"{value * self.scale:.1g}" if value and not text.strip("-0.") else text

    def write_summary(self, summary: Summary) -> str:
        """`mean ± std`, or the mean alone when there are no repetitions."""
        text = self.write(summary.mean)
        return text if summary.std is None else f"{text} ± {summary.std * self.scale:.{self.digits}f}"


def _noc(percent: int) -> Metric:
    meaning = f"mean number of clicks until IoU ≥ {percent} % (the most allowed if never)"
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
NOF_95 = _nof(95)
BOUNDARY_5 = Metric(
    key="boundary_miou_at_5",
    label="5-mBIoU",
    meaning="mean boundary IoU after click 5, in percent",
    better="high",
    scale=100,
)
STEPS_PER_SECOND = Metric(key="train_steps_per_second", label="steps / s", meaning="training steps per second")
HEADLINE = (_noc(85), NOC_90, NOC_95, _nof(90), NOF_95, MIOU_5, BOUNDARY_5, SECONDS_PER_CLICK, STEPS_PER_SECOND)
BARRED = (NOC_90, NOC_95, MIOU_5)
"""Those of the headline that get a bar; one under every number would be noise."""

LATENCY = Metric(
    key="sat_latency_seconds",
    label="latency (s)",
    meaning="SAT latency: one encode, then single clicks, one at a time",
    better="low",
)
PARAMETERS = Metric(
    key="parameters_leaf",
    label="params (M)",
    meaning="parameters counted on leaf modules, as the paper does, millions",
    scale=1e-6,
    digits=1,
)
FPS = Metric(key="fps", label="FPS", meaning="images per second, one encode and one click", better="high")
MEMORY = Metric(key="memory_gb", label="memory (G)", meaning="peak memory, GB", better="low", digits=1)
COST = (PARAMETERS, FPS, MEMORY)
"""Table 3."""
COST_DETAIL = (
    Metric(key="parameters", label="all params (M)", meaning="all parameters, millions", scale=1e-6),
    LATENCY,
    Metric(
        key="sat_latency_batched_seconds",
        label="batched latency (s)",
        meaning="SAT latency with the 256 clicks in batches",
        better="low",
    ),
    Metric(key="encode_seconds", label="encode (s)", meaning="encoding one image", better="low", digits=3),
    Metric(key="click_seconds", label="click (s)", meaning="one click on an encoded image", better="low", digits=3),
)
"""What else profile.parquet is known to hold; columns that are not known get `named`."""

PROFILED = frozenset(metric.key for metric in (*COST, *COST_DETAIL))
"""What a profile measured: once for all trials that share it."""
PAPER_CLICKS = 256
"""Of the published SAT latency: 16 prompts along each side."""


def latency_clicks(trials: Iterable[Mapping[str, Any]]) -> str:
    """How many single clicks these trials' SAT latency is of: `256`, or what `profile.prompts_per_side` made of it."""
    sides = {trial.get("profile.prompts_per_side") for trial in trials if trial.get(LATENCY.key) is not None}
    counts = {PAPER_CLICKS if side is None else int(side) ** 2 for side in sides} or {PAPER_CLICKS}
    return " or ".join(map(str, sorted(counts)))


def named(column: str) -> Metric:
    """A metric of a column that this file does not know: its name says what it is."""
    words = column.replace("_", " ")
    if column.endswith("_seconds"):
        return Metric(key=column, label=f"{words.removesuffix(' seconds')} (s)", meaning=words, better="low", digits=4)
    if column.endswith("_gflops"):
        meaning = f"{words}: 10⁹ floating-point operations"
        return Metric(key=column, label=f"{words.removesuffix(' gflops')} (GFLOP)", meaning=meaning, digits=1)
    return Metric(key=column, label=words, meaning=words, digits=3 if column.endswith("_ratio") else 2)
