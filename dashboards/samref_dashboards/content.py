"""Everything that a report says, as plain data: one source for the page, the tables' files and the figures' files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samref_dashboards import (
    charts,
    comparisons,
    configuration_tables,
    curves,
    findings,
    iou_levels,
    landscape,
    overview,
    paper_tables,
    pictures,
    published,
    robustness,
    theta_curves,
    trial_tables,
)
from samref_dashboards.design import DATA, Design, find_design
from samref_dashboards.figure_kit import Figure
from samref_dashboards.load import Results
from samref_dashboards.queries import Answers
from samref_dashboards.tables import Table

HARDEST = 12
"""Objects in the table of the hardest; six of each dataset where there are several."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a report says, before it is a page."""

    results: Results
    design: Design
    coverage: overview.Coverage
    findings: list[findings.Finding]
    """The answers, an axis and dataset each; none where nothing is compared."""
    best: list[overview.Best]
    same: tuple[list[tuple[str, str]], list[tuple[str, str]]]
    """What is the same in all trials: what a reader asks for, and the rest."""
    sections: tuple[Figure | Table, ...]
    """What proves the answers, in the order in which a reader asks for it."""
    pictures: list[pictures.Picture]
    provenance: list[tuple[str, list[str]]]

    @property
    def figures(self) -> list[Figure]:
        """The figures among the sections."""
        return [section for section in self.sections if isinstance(section, Figure)]

    @property
    def tables(self) -> list[Table]:
        """The tables among the sections."""
        return [section for section in self.sections if isinstance(section, Table)]

    @property
    def num_random(self) -> int:
        """Trials with random weights."""
        return sum(bool(trial["random_weights"]) for trial in self.results.trials)


def gather(results: Results, *, baseline: Sequence[str] = (), more_published: Sequence[Path] = ()) -> Content:
    """Ask all questions about the results; ResultsError if there is no such baseline, or file of published rows."""
    design = find_design(results)
    answers = Answers(results, design.configurations)
    compared = comparisons.compare(answers, design, baseline)
    hardest = answers.hardest(max(6, HARDEST // len(design.datasets or [""])))
    profiles = answers.profiles()
    over_theta = theta_curves.read(results.sql)
    with charts.unchecked():
        sections = (
            landscape.differences(design, compared),
            configuration_tables.configurations(design, compared),
            configuration_tables.sweeps(results),
            *curves.click_curves(design, answers),
            iou_levels.noc_by_level(design, iou_levels.read(results.sql, design)),
            *(curves.noc_by_axis(design, axis) for axis in design.axes if axis not in (DATA, robustness.NOISE)),
            theta_curves.curves(design, over_theta),
            theta_curves.best(design, over_theta),
            robustness.table(results.sql, design),
            robustness.noise(design),
            landscape.heat_maps(design),
            landscape.tradeoffs(design),
            trial_tables.hardest(hardest),
            paper_tables.theta(design, compared),
            paper_tables.methods(design, compared),
            paper_tables.cost(results, profiles),
            paper_tables.cost_detail(results, profiles),
            curves.training(design, answers.training_curves()),
            trial_tables.differences(design, compared),
            trial_tables.importance(design),
            trial_tables.trials(results, design),
            trial_tables.computing(answers.spent()),
            published.twins(results, more_published),
        )
    return Content(
        results=results,
        design=design,
        coverage=overview.coverage(results),
        findings=findings.findings(design, compared),
        best=overview.best(design),
        same=findings.same_in_all(results, design),
        sections=tuple(filter(None, sections)),
        pictures=pictures.pictures(results.sql, design, compared, hardest),
        provenance=overview.provenance(results, answers.noc_90()),
    )
