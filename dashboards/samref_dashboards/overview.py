"""What a report says first and last: coverage, the best configurations, provenance. Plain data."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from samref_dashboards import metrics
from samref_dashboards.design import DATA, Design
from samref_dashboards.load import SCHEMA, Results, Trial

STATUSES = ("done", "failed", "stopped", "not run")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of what was planned is there."""

    counts: dict[str, int]
    """Trials of each status, in the order of STATUSES; statuses that nobody has are left out."""
    reasons: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(status, reason, ids of the trials) of all that is not done."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Best:
    """The configuration with the lowest NoC90 on one dataset."""

    data: str
    value: str
    configuration: str
    """The configuration, or how many share the lowest."""
    n: str


def coverage(results: Results) -> Coverage:
    """Count statuses and gather reasons; trials that a plan names and no row records are `not run`."""
    counts = Counter(trial["status"] for trial in results.trials)
    unrecorded = sum(max(0, sweep.planned - sweep.recorded) for sweep in results.sweeps)
    counts["not run"] += unrecorded
    reasons: dict[tuple[str, str], list[str]] = {}
    for trial in results.trials:
        if trial["status"] != "done":
            reason = trial["reason"] or "no reason recorded"
            reasons.setdefault((trial["status"], reason), []).append(trial["trial"])
    if unrecorded:
        reasons["not run", f"{unrecorded} planned, not in the results"] = []
    order = {status: index for index, status in enumerate(STATUSES)}
    ranked = sorted(reasons.items(), key=lambda item: (order.get(item[0][0], 9), -len(item[1])))
    return Coverage(
        counts={status: counts[status] for status in sorted(+counts, key=lambda status: order.get(status, 9))},
        reasons=tuple((status, reason, tuple(ids)) for (status, reason), ids in ranked),
    )


def best(design: Design) -> list[Best]:
    """Find the best configuration of every dataset; random weights never win."""
    winners = []
    for data in design.datasets:
        measured = [
            # A mean that lacks a seed wins only where all do; numbers that read alike are equally good.
            (not summary.whole, round(summary.mean, metrics.NOC_90.digits), each)
            for each in design.configurations
            if each.data == data and not each.random_weights
            if (summary := each.summary(metrics.NOC_90.key)).mean is not None
        ]
        if measured:
            lowest = min(rank for *rank, _ in measured)
            top = [each for *rank, each in measured if rank == lowest]
            summary = top[0].summary(metrics.NOC_90.key)
            alone = len(top) == 1
            value = metrics.NOC_90.write_summary(summary) if alone else metrics.NOC_90.write(summary.mean)
            name = design.describe(top[0].values, leave_out=[DATA]) if alone else f"{len(top)} configurations alike"
            winners.append(Best(data, value, name, f"n = {summary.count}"))
    return winners


def provenance(results: Results, noc_90: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """List (name, values) of all that is needed to make the results again; `noc_90` is recomputed, by trial."""
    trials = results.trials
    fingerprints = sorted({name for trial in trials for name in trial if name.endswith("_fingerprint")})
    started = sorted(trial["started"] for trial in trials if trial["started"] is not None)
    rows = [
        ("sweep file", [sweep.file for sweep in results.sweeps]),
        ("command", [sweep.command for sweep in results.sweeps]),
        ("results", [sweep.place for sweep in results.sweeps]),
        ("commit", _distinct(trials, "commit")),
        ("other code", [sweep.other_code for sweep in results.sweeps]),
        ("hardware", _distinct(trials, "hardware")),
        ("training data", _distinct(trials, "train.data")),
        ("evaluation data", _distinct(trials, "evaluate.data")),
        ("notes", [note for sweep in results.sweeps for note in sweep.notes]),
        ("checkpoint", _distinct(trials, "model.checkpoint")),
        *((name.replace("_", " "), _distinct(trials, name)) for name in fingerprints),
        ("clicker", _distinct(trials, "evaluate.clicker")),
        ("versions", _versions(trials)),
        ("started", [f"{started[0]:%Y-%m-%d %H:%M} to {started[-1]:%Y-%m-%d %H:%M} UTC"] if started else []),
        ("check", [_checked(results, noc_90)]),
        ("schema", [str(SCHEMA)]),
    ]
    return [(name, kept) for name, values in rows if (kept := [value for value in dict.fromkeys(values) if value])]


def _distinct(trials: Iterable[Trial], column: str) -> list[str]:
    return sorted({str(trial[column]) for trial in trials if trial.get(column) is not None})


def _versions(trials: Iterable[Trial]) -> list[str]:
    found: dict[str, set[str]] = {}
    for text in {trial["versions"] for trial in trials if trial["versions"]}:
        for package, version in json.loads(text).items():
            found.setdefault(package, set()).add(str(version))
    return [f"{package} {', '.join(sorted(versions))}" for package, versions in sorted(found.items())]


def _checked(results: Results, recomputed: Mapping[str, float]) -> str:
    """NoC90 from the clicks beside NoC90 as recorded: a reader should not have to trust the headline."""
    recorded = {trial["trial"]: trial["noc_at_90"] for trial in results.trials if trial["noc_at_90"] is not None}
    both = [trial for trial in recomputed if trial in recorded]
    differ = [trial for trial in both if abs(recomputed[trial] - recorded[trial]) > 5e-3]
    if not both:
        return ""
    if differ:
        return f"NoC90 recomputed from the clicks differs in {len(differ)} trials: {', '.join(differ[:5])}"
    return f"NoC90 recomputed from the clicks equals the recorded one in all {len(both)} trials that have both"
