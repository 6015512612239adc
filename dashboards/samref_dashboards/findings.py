"""What was found, in a sentence for each axis that was asked about, and what all trials have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from samref_dashboards import metrics
from samref_dashboards.comparisons import Comparisons, Effect
from samref_dashboards.design import DATA, PARTS, Design, show
from samref_dashboards.load import Results

MAX_FINDINGS = 8
MAIN_SETTINGS = (
    *("model.backbone", "model.checkpoint", "model.refiner", "train.data", "train.samples", "train.modules"),
    *("train.steps", "train.batch_size", "train.learning_rate", "train.gamma", "evaluate.data", "evaluate.samples"),
    *("evaluate.theta", "evaluate.max_clicks", "evaluate.clicker"),
)
"""The settings that say what a sweep is about; the others are folded."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one axis does on one dataset."""

    what: str
    """The answer: `refiner gfr+lfr: 0.38 fewer clicks to 90 % than none`."""
    sure: bool
    how: str
    """How sure it is: interval, objects, seeds."""
    data: str

    @property
    def verdict(self) -> str:
        return "distinguishable" if self.sure else "not distinguishable"


def findings(design: Design, comparisons: Comparisons) -> list[Finding]:
    """Answer for each axis and dataset what its best value does against its baseline, in clicks to IoU 90 %."""
    groups: dict[tuple[str, str], list[Effect]] = {}
    for effect in comparisons.effects:
        groups.setdefault((effect.axis, effect.data), []).append(effect)
    return [_finding(design, effects, len(comparisons.effects)) for effects in groups.values()]


def _finding(design: Design, effects: Sequence[Effect], num_compared: int) -> Finding:
    of = {metric: [one for one in effects if one.metric == metric.key] for metric in metrics.COMPARED}
    lowest = min(of[metrics.NOC_90], key=lambda one: one.interval.mean)
    sure = [one for one in of[metrics.NOC_90] if one.significant]
    if lowest.interval.mean >= 0 and sure:  # the baseline is best; the one that is surely worse says so
        lowest = max(sure, key=lambda one: one.interval.mean)
    first, base = lowest, design.show(lowest.axis, lowest.baseline)
    name = f"{design.label(first.axis)} {design.show(first.axis, first.value)}"
    what = f"{name}: {_clicks(first, base)}"
    if len(of[metrics.NOC_90]) > 1:
        what += f", of {len(of[metrics.NOC_90]) + 1} values"
    if len(design.datasets) > 1:
        what += f", on {first.data}"
    (at_95,) = (one for one in of[metrics.NOC_95] if one.value == first.value)
    if at_95.significant and not first.significant:
        what += f" ({_clicks(at_95, base)}, {_interval(at_95)}, distinguishable)"
    same = first.interval.low == first.interval.high == 0
    objects = design.objects(first.data) or str(first.num_objects)
    parts = ["no object needs more or fewer" if same else _interval(first)]
    if first.interval.low * first.interval.high > 0 and not first.significant:
        parts[0] += f", p = {first.adjusted_p:.2f} among {num_compared} comparisons (Holm)"
    parts += [f"{objects} objects of {first.data}", f"{first.seeds} seed{'' if first.seeds == '1' else 's'}"]
    if first.num_pairs > 1:
        parts.append(f"mean of {first.num_pairs} pairs")
    if first.along:
        parts.append(f"{', '.join(map(design.label, first.along))} changes with the {design.label(first.axis)}")
    return Finding(what=what, sure=first.significant, how="; ".join(parts), data=first.data)


def _clicks(effect: Effect, baseline: str) -> str:
    """`0.38 fewer clicks to 90 % than none`, without a direction where there is none."""
    text, goal = f"{abs(effect.interval.mean):.2f}", f"clicks to {effect.metric[-2:]} %"
    if not text.strip("0."):
        return f"as many {goal} as with {baseline}"
    return f"{text} {'fewer' if effect.interval.mean < 0 else 'more'} {goal} than {baseline}"


def _interval(effect: Effect) -> str:
    ends = (f"{end:+.2f}".replace("-", "−") for end in (effect.interval.low, effect.interval.high))
    return f"95 % interval {' to '.join(ends)} clicks"


def same_in_all(results: Results, design: Design) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """List (setting, value) of all that is the same in every trial: those that a reader asks for, and all others."""
    names = dict.fromkeys(key for trial in results.trials for key in trial if key.startswith(PARTS))
    shared = {}
    for name in names:
        values = {trial.get(name) for trial in results.trials}
        if len(values) == 1 and name not in design.axes and not name.endswith(".seed") and None not in values:
            (value,) = values
            shared[name] = design.counted(str(value)) if name == DATA else show(value)
    headlines = [(name, shared.pop(name)) for name in MAIN_SETTINGS if name in shared]
    return headlines, list(shared.items())
