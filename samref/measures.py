"""The one table of what stages measure: each number's name, unit, meaning, and which way is better.

A search's goals, the columns of the Parquet tables, MLflow's metrics, the terminal's headings and docs/results.md are
made of it. Who adds a number to what a stage returns adds its row here; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from samref.stage import Kind, Stage
from samref.summary import Summary
from samref.trial import Trial

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Measure:
    """A number that a stage measures."""

    name: str
    """Column of the tables, metric of MLflow, and what a sweep's `metric` names."""
    unit: str
    """Empty for a plain number."""
    better: Better | None
    """None: neither by itself; a search has to say which it wants."""
    meaning: str
    kind: Kind
    type: type[int] | type[float] = float
    heading: str = ""
    """Short words for it on the terminal; its name where there are none."""
    stored: str = ""
    """The name by which its stage's summary has it, where that is another."""
    in_trials: bool = True
    """Whether trials.parquet has it; what a profile measures stands in profile.parquet, and some of it in both."""

    @property
    def key(self) -> str:
        """The name by which its stage's summary has it: a training's have no prefix there."""
        return self.stored or (self.name.removeprefix("train_") if self.kind == "train" else self.name)


def _evaluation() -> Iterator[Measure]:
    evaluated = partial(Measure, kind="evaluate")
    yield evaluated("num_samples", "samples", None, "objects evaluated", type=int)
    for percent in (85, 90, 95):
        meaning = f"NoC: mean over samples of the first click (from 1) with IoU ≥ {percent / 100:.2f}; "
        meaning += "the most clicks allowed if none"
        yield evaluated(f"noc_at_{percent}", "clicks", "lower", meaning, heading=f"NoC{percent}")
    for percent in (85, 90, 95):
        meaning = f"NoF: samples that did not reach IoU {percent / 100:.2f} before the last click allowed"
        yield evaluated(f"nof_at_{percent}", "samples", "lower", meaning, heading=f"NoF{percent}")
    meaning = "mean IoU before the first click, where clicks correct the masks that `evaluate.start` names"
    yield evaluated("miou_at_0", "0 to 1", "higher", meaning, heading="0-mIoU")
    for click in (1, 3, 5, 10, 20):
        meaning = f"mean IoU after click {click}"
        yield evaluated(f"miou_at_{click}", "0 to 1", "higher", meaning, heading=f"{click}-mIoU")
    for click in (1, 5, 20):
        meaning = f"mean boundary IoU (Cheng et al. 2021; 2 % of the image diagonal) after click {click}"
        yield evaluated(f"boundary_miou_at_{click}", "0 to 1", "higher", meaning, heading=f"{click}-mBIoU")
    for where, what in (("global", "the global result G_t"), ("previous", "the previous mask M_{t−1}")):
        yield evaluated(f"clicks_on_{where}", "clicks", None, f"clicks per sample whose patch was pasted on {what}")
    meaning = "wall time of the click loop over the clicks made, of all evaluations that ran in one go "
    meaning += "and so shared calls of the decoder; null where an older version ran it"
    yield evaluated("seconds_per_click", "s", "lower", meaning, stored="seconds_per_click_made")


def _profile() -> Iterator[Measure]:
    profiled = partial(Measure, kind="profile", in_trials=False)
    both = partial(Measure, kind="profile")
    yield both("parameters", "", "lower", "all parameters of the model", type=int)
    meaning = "parameters counted on leaf modules, as the paper does; SAM2's without its object-score head"
    yield both("parameters_leaf", "", "lower", meaning, type=int)
    yield both("fps", "1/s", "higher", "images per second: one encode and one click", heading="FPS")
    meaning = "distance between the quartiles of the repetitions' images per second"
    yield profiled("fps_spread", "1/s", "lower", meaning)
    meaning = "the weights, and the most that one encode and one click take beside them, on the GPU or in the process"
    yield both("memory_gb", "GB", "lower", meaning)
    meaning = "processes that ran on its machine or waited to, mean of a minute: before or after, whichever is more"
    yield profiled("load_average", "", None, meaning)
    yield profiled("encode_seconds", "s", "lower", "encoding one image")
    yield profiled("prepare_seconds", "s", "lower", "what the refiner computes once an image")
    yield profiled("decode_seconds", "s", "lower", "the backbone's decoder at one click")
    yield profiled("refine_seconds", "s", "lower", "one refinement: GFR, the window, LFR")
    meaning = "the first click on an encoded image: prepare, decode, refine, and the mask at the image's size"
    yield profiled("click_seconds", "s", "lower", meaning)
    meaning = "SPC: one encode and a loop of 20 clicks, each placed by the mask before, divided by 20"
    yield profiled("loop_seconds_per_click", "s", "lower", meaning)
    meaning = "95th percentile of the seconds of one click of that loop, the next one's place included"
    yield profiled("loop_seconds_per_click_p95", "s", "lower", meaning)
    meaning = "SAT latency: one encode, then `profile.prompts_per_side`² single clicks"
    yield profiled("sat_latency_seconds", "s", "lower", f"{meaning}, one at a time")
    yield profiled("sat_latency_batched_seconds", "s", "lower", f"{meaning}, in batches")
    meaning = "floating-point operations of one encode; a multiplication and an addition are two"
    yield profiled("encode_gflops", "10⁹", "lower", meaning)
    meaning = "floating-point operations of what the refiner computes once an image"
    yield profiled("prepare_gflops", "10⁹", "lower", meaning)
    yield profiled("decode_gflops", "10⁹", "lower", "floating-point operations of the decoder at one click")
    yield profiled("refine_gflops", "10⁹", "lower", "floating-point operations of one refinement")
    meaning = "against the same model without its refiner, in the same repetitions"
    yield profiled("refiner_fps_ratio", "", "higher", f"`fps` {meaning}")
    yield profiled("refiner_memory_ratio", "", "lower", f"`memory_gb` {meaning}")


def _training() -> Iterator[Measure]:
    trained = partial(Measure, kind="train")
    yield trained("train_steps_per_second", "1/s", "higher", "optimiser steps of its training per second")
    meaning = "parts of a batch at the training's end; more than `train.accumulation` where memory ran out"
    yield trained("train_accumulation", "", None, meaning, type=int)
    yield trained("train_peak_memory_gb", "GB", "lower", "most memory that its training's process took")
    meaning = "most memory that its training took on its GPU; null on a CPU"
    yield trained("train_device_peak_memory_gb", "GB", "lower", meaning)


MEASURES: Mapping[str, Measure] = {each.name: each for each in (*_evaluation(), *_profile(), *_training())}
"""Every measure by its name, in the order of the tables' columns."""


def measured(summary: Summary) -> dict[str, float | int]:
    """What a stage measured, by the names of MEASURES; what it did not measure is left out."""
    took = {name: getattr(summary, name) for name in ("peak_memory_gb", "device_peak_memory_gb")}
    values = {**took, **summary.metrics}
    own = (each for each in MEASURES.values() if each.kind == summary.stage.kind)
    return {each.name: values[each.key] for each in own if values.get(each.key) is not None}


def measured_of(
    trial: Trial,
    summary_of: Callable[[Stage], Summary | None],
    more: Callable[[Stage], Mapping[str, float]] = lambda stage: {},
) -> dict[str, float | int]:
    """What a trial's training, evaluation and profile measured, by the names of MEASURES.

    `summary_of` gives a stage's summary, or None of a stage that is not done, or is not asked for; `more` gives other
    metrics of a stage that is.
    """
    stages = (trial.stage(kind) for kind in ("evaluate", "profile", "train"))
    summaries = (summary for stage in stages if stage and (summary := summary_of(stage)))
    return {name: value for each in summaries for name, value in {**measured(each), **more(each.stage)}.items()}


def kind_of(name: str) -> Kind:
    """Kind of the stage that a metric is of; those that are no MEASURES are made of an evaluation's clicks."""
    return MEASURES[name].kind if name in MEASURES else "evaluate"


def heading(name: str) -> str:
    """A metric's short words, such as `NoC90`; its name where it has none."""
    return (MEASURES[name].heading if name in MEASURES else "") or name
