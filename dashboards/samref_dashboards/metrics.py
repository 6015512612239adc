"""The metrics that tables and figures show: their labels and digits; their meaning stands in the files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from samref.repetitions import Repetitions

Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One numeric column of trials.parquet or profile.parquet, and how it is shown."""

    key: str
    label: str
    digits: int = 2
    scale: float = 1.0
    """Shown value = stored value × scale: 100 shows percent, 10⁻⁶ millions."""
    meaning: str = ""
    """What the files say that it is (`described`); empty where an older version wrote them."""
    unit: str = ""
    """Unit of the stored value, as the files say."""
    better: Better | None = None
    """Which way is better, as the files say."""

    @property
    def title(self) -> str:
        """The longer words for a heading: the meaning with the unit as shown, and the column's name."""
        unit = {100: "percent", 1e-6: "millions"}.get(self.scale, self.unit)
        return f"{', in '.join(filter(None, [self.meaning, unit]))} ({self.key})" if self.meaning else self.key

    @property
    def timed(self) -> bool:
        """Whether a clock measured it, so that a busy machine changes it."""
        return self.key == FPS.key or "seconds" in self.key.split("_")

    def write(self, value: float | None) -> str:
        """Write a value as text; a dash when it was not measured, more digits than usual where those would say 0."""
        if value is None:
            return "–"
        text = f"{value * self.scale:,.{self.digits}f}"
        return f"{value * self.scale:.1g}" if value and not text.strip("-0.") else text

    def write_summary(self, summary: Repetitions) -> str:
        """Write `mean ± std`, or the mean alone when there are no repetitions."""
        text = self.write(summary.mean)
        return text if summary.std is None else f"{text} ± {summary.std * self.scale:.{self.digits}f}"


def described(shown: Iterable[Metric], fields: Mapping[str, Mapping[str, str]]) -> tuple[Metric, ...]:
    """Give metrics the meaning, unit and better way that `fields` (column → metadata, `Results.fields`) say.

    Where they say nothing, because an older version wrote the files, the column's name says which way is better.
    """
    # The metadata's keys are the names of the attributes.
    return tuple(replace(each, **fields.get(each.key, {"better": _better(each.key)})) for each in shown)


def _better(key: str) -> Better | None:
    if key.startswith(("noc_", "nof_", "memory_")) or "seconds" in key.split("_"):
        return "lower"
    return "higher" if "miou" in key or key == "fps" else None


NOC_85, NOC_90, NOC_95 = (Metric(key=f"noc_at_{percent}", label=f"NoC{percent}") for percent in (85, 90, 95))
COMPARED = (NOC_90, NOC_95)
"""What differences, and figures of clicks, are about: the paper's own measures, which every object has."""
NOF_90, NOF_95 = (Metric(key=f"nof_at_{percent}", label=f"NoF{percent}", digits=0) for percent in (90, 95))
ON_GLOBAL = Metric(key="clicks_on_global", label="on Gₜ")
ON_PREVIOUS = Metric(key="clicks_on_previous", label="on Mₜ₋₁")
SECONDS_PER_CLICK = Metric(key="seconds_per_click", label="s / click", digits=3)
MIOU_5 = Metric(key="miou_at_5", label="5-mIoU", scale=100)
BOUNDARY_5 = Metric(key="boundary_miou_at_5", label="5-mBIoU", scale=100)
STEPS_PER_SECOND = Metric(key="train_steps_per_second", label="steps / s")
HEADLINE = (NOC_85, NOC_90, NOC_95, NOF_90, NOF_95, MIOU_5, BOUNDARY_5, SECONDS_PER_CLICK, STEPS_PER_SECOND)
BARRED = ("noc_at_90", "noc_at_95", "miou_at_5")
"""The headline metrics that get a bar; one under every number would be noise."""

LATENCY = Metric(key="sat_latency_seconds", label="latency (s)")
PARAMETERS = Metric(key="parameters_leaf", label="params (M)", scale=1e-6, digits=1)
FPS = Metric(key="fps", label="FPS")
MEMORY = Metric(key="memory_gb", label="memory (G)", digits=1)
CLICK = Metric(key="click_seconds", label="click (s)", digits=3)
COST_DETAIL = (
    Metric(key="parameters", label="all params (M)", scale=1e-6),
    LATENCY,
    Metric(key="sat_latency_batched_seconds", label="batched latency (s)"),
    Metric(key="encode_seconds", label="encode (s)", digits=3),
    CLICK,
)
"""What else profile.parquet is known to hold beside the paper's Table 3; columns that are not known get `named`."""
PAPER_CLICKS = 256
"""The clicks of the published SAT latency: 16 prompts along each side."""


def latency_clicks(trials: Iterable[Mapping[str, Any]]) -> str:
    """Say how many single clicks these trials' SAT latency is of: `256`, or `profile.prompts_per_side` squared."""
    sides = {trial.get("profile.prompts_per_side") for trial in trials if trial.get(LATENCY.key) is not None}
    counts = {PAPER_CLICKS if side is None else int(side) ** 2 for side in sides} or {PAPER_CLICKS}
    return " or ".join(map(str, sorted(counts)))


def named(column: str) -> Metric:
    """Make a metric of a column that this file does not know: its name is its label."""
    words = column.replace("_", " ")
    if column.endswith("_seconds"):
        return Metric(key=column, label=f"{words.removesuffix(' seconds')} (s)", digits=4)
    if column.endswith("_gflops"):
        return Metric(key=column, label=f"{words.removesuffix(' gflops')} (GFLOP)", digits=1)
    return Metric(key=column, label=words, digits=3 if column.endswith("_ratio") else 2)
