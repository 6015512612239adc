"""Claims about results: which numbers are expected, within what, and whether they were found.

A claims file is a list. Each entry names one configuration of the results (its mean over seeds is what is judged):

    - claim: Table 1, θ 1.10
      where: {evaluate.data: davis, evaluate.theta: 1.1}
      column: noc_at_90
      expected: 4.54
      tolerance: 0.05          # or `interval: [4.4, 4.6]` in place of both
      protocol: {objects: 345} # what has to agree for the two to be comparable
      source: arXiv 2408.11535, Table 1
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from samref_dashboards import entries
from samref_dashboards.design import Configuration, Design, find_design, is_number
from samref_dashboards.entries import Entry
from samref_dashboards.load import Results, ResultsError
from samref_dashboards.published import differing, protocol_of

REQUIRED = ("claim", "where", "column")
OPTIONAL = ("expected", "tolerance", "interval", "protocol", "source")
Verdict = Literal["pass", "fail", "not comparable"]
PASSED, FAILED, NOT_COMPARABLE = 0, 1, 3
"""Exit codes: all pass; one fails; none fails, but not all could be compared."""


@dataclass(frozen=True)
class Judgement:
    """What became of one claim."""

    claim: str
    verdict: Verdict
    column: str
    low: float
    """Least value that passes."""
    high: float
    """Greatest value that passes."""
    found: float | None
    """Mean over the seeds; None where there is none."""
    n: int
    """Seeds measured."""
    because: str
    """Why it is not comparable; empty where it is."""
    source: str

    @property
    def text(self) -> str:
        """The judgement as a line."""
        expected = f"expected {self.low:g} to {self.high:g}"
        found = f"{self.column} {self.found:.6g} (n {self.n}), " if self.found is not None else ""
        because = f" because {self.because}" if self.because else ""
        return f"{self.verdict:<14} {self.claim}: {found}{expected}{because}"


def judge(results: Results, files: Sequence[Path]) -> list[Judgement]:
    """Judge all claims of some files; ResultsError says what is wrong in which line of which file."""
    design = find_design(results)
    return [_judge(entry, results, design) for file in files for entry in entries.read(file, REQUIRED, OPTIONAL)]


def exit_code(judgements: Sequence[Judgement]) -> int:
    """Give the command's exit code for these judgements."""
    verdicts = {each.verdict for each in judgements}
    return FAILED if "fail" in verdicts else NOT_COMPARABLE if "not comparable" in verdicts else PASSED


def to_json(judgements: Sequence[Judgement]) -> str:
    """Write judgements as JSON, one object each."""
    return json.dumps([asdict(each) for each in judgements], indent=1, ensure_ascii=False)


def _judge(entry: Entry, results: Results, design: Design) -> Judgement:
    column = str(entry.values["column"])
    known = {key for trial in results.trials for key in trial}
    if column not in known:
        raise ResultsError(f"{entry.place}: column {column} is not in these results; docs/results.md lists them")
    low, high = _bounds(entry)
    configuration = _configuration(entry, known, design)
    summary = configuration.summary(column)
    because = "; ".join(_obstacles(entry, configuration, column))
    inside = summary.mean is not None and low <= summary.mean <= high
    verdict: Verdict = "not comparable" if because else "pass" if inside else "fail"
    source = str(entry.values.get("source") or "")
    return Judgement(str(entry.values["claim"]), verdict, column, low, high, summary.mean, summary.n, because, source)


def _bounds(entry: Entry) -> tuple[float, float]:
    """The least and the greatest value that passes."""
    values = entry.values
    ways = {"expected", "tolerance"} & values.keys(), "interval" in values
    if ways not in (({"expected", "tolerance"}, False), (set(), True)):
        raise ResultsError(f"{entry.place}: give expected and tolerance, or interval: [LOW, HIGH]")
    if "interval" in values:
        interval = values["interval"]
        if not isinstance(interval, list) or len(interval) != 2:
            raise ResultsError(f"{entry.place}: interval is {interval!r}; write [LOW, HIGH]")
        low, high = (entries.number(entry.place, "interval", each) for each in interval)
        if low > high:
            raise ResultsError(f"{entry.place}: interval is [{low:g}, {high:g}], which is reversed")
        return low, high
    expected, tolerance = (entries.number(entry.place, key, values[key]) for key in ("expected", "tolerance"))
    if tolerance < 0:
        raise ResultsError(f"{entry.place}: tolerance is {tolerance:g}, less than 0")
    slack = 1e-9 * max(1.0, abs(expected))  # 4.54 + 0.05 is a little less than 4.59
    return expected - tolerance - slack, expected + tolerance + slack


def _configuration(entry: Entry, known: set[str], design: Design) -> Configuration:
    """The one configuration that a claim is about."""
    where = entries.mapping(entry, "where")
    if unknown := [key for key in where if key not in known]:
        raise ResultsError(f"{entry.place}: where names {', '.join(unknown)}, which these results do not have")
    fitting = [each for each in design.configurations if _fits(each.trials[0], where)]
    if len(fitting) != 1:
        told = "; ".join(design.describe(each.values) for each in fitting[:3]) or "the results have others"
        raise ResultsError(f"{entry.place}: where fits {len(fitting)} configurations, not one: {told}")
    return fitting[0]


def _fits(trial: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    for key, wanted in where.items():
        ours = trial.get(key)
        if is_number(ours) and is_number(wanted):
            if abs(ours - wanted) > 1e-9 * max(1.0, abs(wanted)):
                return False
        elif type(ours) is not type(wanted) or ours != wanted:
            return False
    return True


def _obstacles(entry: Entry, configuration: Configuration, column: str) -> Iterator[str]:
    """Why a configuration's number cannot be held against a claim."""
    done, planned = len(configuration.done), len(configuration.trials)
    if done < planned:
        yield f"{done} of its {planned} seeds are done"
    elif configuration.summary(column).mean is None:
        yield f"{column} was not measured"
    # What a model costs does not depend on its weights.
    if configuration.random_weights and column not in configuration.profiled:
        yield "its weights are random"
    stated = entries.mapping(entry, "protocol")
    for trial in configuration.done[:1] if stated else ():
        ours = protocol_of(trial)
        yield from differing(ours, stated) if ours else ("these tables have no protocol: write them again",)
