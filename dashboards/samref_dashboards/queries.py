"""What is asked of the clicks and the training curves, in SQL: only aggregates leave DuckDB.

A sample may make fewer clicks than the others (`evaluate.stop_at`, or nothing left to correct); its last IoU
then stands for the clicks that it did not make.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from samref_dashboards.design import Configuration
from samref_dashboards.load import Results

CURVE_POINTS = 150
"""Points of one training curve; more are averaged in buckets."""

_NUMBERS = itertools.count()
"""Each object of `Answers` has a table of its own, so that one database can have several."""

Curve = list[tuple[float, float]]
"""(x, y) in order of x."""


class HardObject(NamedTuple):
    """One object, and how all configurations fared on it."""

    dataset: str
    sample: str
    noc_90: float
    final_iou: float
    """Mean IoU after the last click, 0 to 1."""
    worst_iou: float
    reached: int
    """Trials that reached IoU 0.9."""
    trials: int
    curve: Curve
    """Mean IoU after each click."""


Contrast = Mapping[str, float]
"""Trial -> its weight in a sum over trials; the weights of two sides are positive and negative, and each sum to 1."""

PER_OBJECT = {
    **{f"noc_at_{percent}": f"coalesce(first_{percent}, max_clicks)" for percent in (85, 90, 95)},
    # RITM's rule: who succeeds at the last click has failed.
    **{f"nof_at_{percent}": f"(coalesce(first_{percent}, max_clicks) = max_clicks)::INT" for percent in (85, 90, 95)},
    "miou_at_5": "iou_5",
}
"""The metrics that are means (or sums) over objects -> one object's value, of a trial's objects."""


class Spent(NamedTuple):
    """What the finished stages of one kind took on one kind of machine."""

    kind: str
    hardware: str
    stages: int
    device_hours: float
    per_second: float | None
    """Median over the stages: images, steps or clicks."""
    memory_gb: float | None
    """The most that one took: on its GPU where it had one."""


class Answers:
    """The answers to all questions about results; one pass over the clicks makes what most of them read."""

    def __init__(self, results: Results, configurations: Iterable[Configuration]) -> None:
        """Trials of none of the configurations are left out."""
        self._configurations = list(configurations)
        self._sql = results.sql
        self._objects = f"objects_{next(_NUMBERS)}"
        done = [(index, each, trial) for index, each in enumerate(self._configurations) for trial in each.done]
        grouped = {
            "trial": pa.array([trial["trial"] for _, _, trial in done], pa.string()),
            "grp": pa.array([index for index, _, _ in done], pa.int64()),
            "max_clicks": pa.array([trial["evaluate.max_clicks"] for _, _, trial in done], pa.int64()),
            "random": pa.array([each.random_weights for _, each, _ in done], pa.bool_()),
        }
        self._sql.register("grouped", pa.table(grouped))
        firsts = ", ".join(f"min(click) FILTER (iou >= {at / 100}) AS first_{at}" for at in (85, 90, 95))
        self._sql.execute(f"""
            CREATE TEMP TABLE {self._objects} AS
            SELECT trial, dataset, sample, max(click) AS clicks, arg_max(iou, click) AS final_iou,
                   {firsts}, coalesce(any_value(iou) FILTER (click = 5), arg_max(iou, click)) AS iou_5,
                   any_value(max_clicks) AS max_clicks, any_value(grp) AS grp, any_value(random) AS random
            FROM clicks JOIN grouped USING (trial) GROUP BY trial, dataset, sample""")

    def noc_90(self) -> dict[str, float]:
        """Compute every trial's NoC90 from its clicks: the first click with IoU ≥ 0.9, else the most clicks allowed."""
        query = f"SELECT trial, avg(coalesce(first_90, max_clicks)) FROM {self._objects} GROUP BY trial"
        return dict(self._sql.execute(query).fetchall())

    def contrasts(self, wanted: Sequence[Contrast]) -> list[NDArray[np.float64] | None]:
        """Sum each object's values over trials: N×K, by dataset and name, K in the order of PER_OBJECT.

        None where the trials of a contrast do not have the same objects.
        """
        weights = [(index, trial, weight) for index, each in enumerate(wanted) for trial, weight in each.items()]
        columns = [list(column) for column in zip(*weights, strict=True)] or [[], [], []]
        types = (pa.int64(), pa.string(), pa.float64())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        self._sql.register("weights", pa.table(arrays, names=["contrast", "trial", "weight"]))
        sums = ", ".join(f"sum(weight * {value})::DOUBLE AS {name}" for name, value in PER_OBJECT.items())
        rows = self._sql.execute(f"""
            SELECT contrast, count(*) AS trials, {sums} FROM {self._objects} JOIN weights USING (trial)
            GROUP BY contrast, dataset, sample ORDER BY contrast, dataset, sample""").fetchnumpy()
        found: list[NDArray[np.float64] | None] = []
        for index, each in enumerate(wanted):
            start, end = np.searchsorted(rows["contrast"], [index, index + 1])
            whole = end > start and (rows["trials"][start:end] == len(each)).all()
            found.append(np.stack([rows[name][start:end] for name in PER_OBJECT], axis=1) if whole else None)
        return found

    def miou_curves(self) -> dict[int, Curve]:
        """Compute each configuration's (its index) mean IoU after each click, over objects, then over repetitions."""
        rows = self._sql.execute(f"""
            WITH made AS (SELECT trial, click, sum(iou) AS total FROM clicks GROUP BY trial, click),
                 whole AS (SELECT trial, any_value(grp) AS grp, count(*) AS n FROM {self._objects} GROUP BY trial),
                 ended AS (SELECT trial, clicks, sum(final_iou) AS total FROM {self._objects} GROUP BY trial, clicks),
                 curve AS (
                    SELECT made.trial, click, any_value(grp) AS grp,
                           (any_value(made.total) + coalesce(sum(ended.total), 0)) / any_value(n) AS miou
                    FROM made JOIN whole USING (trial)
                    LEFT JOIN ended ON ended.trial = made.trial AND ended.clicks < made.click
                    GROUP BY made.trial, click)
            SELECT grp, click, avg(miou) FROM curve GROUP BY grp, click ORDER BY grp, click""").fetchall()
        return _curves(rows)

    def success_curves(self) -> dict[int, Curve]:
        """Compute each configuration's share of objects that reached IoU 0.9 after each click, over repetitions."""
        rows = self._sql.execute(f"""
            WITH clicks_allowed AS (SELECT grp, unnest(range(1, max(max_clicks) + 1)) AS click FROM {self._objects}
                    GROUP BY grp),
                 reached AS (SELECT grp, first_90, count(*) AS n FROM {self._objects} GROUP BY ALL)
            SELECT grp, click, coalesce(sum(n) FILTER (first_90 <= click), 0) / sum(n)
            FROM clicks_allowed JOIN reached USING (grp) GROUP BY ALL ORDER BY grp, click""").fetchall()
        return _curves(rows)

    def by_object(self, configurations: Sequence[int]) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Read configurations' (their indices) IoU, and whether 0.9 was reached, N×T each: objects after each click.

        Means over repetitions.
        """
        rows = self._sql.execute(
            f"""
            WITH made AS (SELECT *, unnest(range(1, max_clicks + 1)) AS click FROM {self._objects}
                    WHERE list_contains(?, grp))
            SELECT grp, avg(coalesce(iou, final_iou))::DOUBLE AS iou,
                   avg((coalesce(first_90, max_clicks + 1) <= click)::INT)::DOUBLE AS reached
            FROM made LEFT JOIN clicks USING (trial, dataset, sample, click)
            GROUP BY grp, dataset, sample, click ORDER BY grp, dataset, sample, click""",
            [list(configurations)],
        ).fetchnumpy()
        objects = {}
        for index in configurations:
            own = rows["grp"] == index
            most = {each["evaluate.max_clicks"] for each in self._configurations[index].done}
            if own.any() and len(most) == 1:
                shape = (-1, int(most.pop()))
                objects[index] = rows["iou"][own].reshape(shape), rows["reached"][own].reshape(shape)
        return objects

    def hardest(self, limit: int) -> list[HardObject]:
        """Find each dataset's objects that need most clicks; random weights count only where there are no others."""
        rows = self._sql.execute(
            f"""
            WITH counted AS (
                    SELECT * FROM {self._objects}
                    WHERE NOT random OR (SELECT bool_and(random) FROM {self._objects})),
                 hard AS (
                    SELECT dataset, sample, avg(coalesce(first_90, max_clicks)) AS noc, avg(final_iou) AS final,
                           min(final_iou) AS worst, count(first_90) AS reached, count(*) AS trials
                    FROM counted GROUP BY dataset, sample
                    QUALIFY row_number() OVER (PARTITION BY dataset ORDER BY noc DESC, final, sample) <= ?),
                 curve AS (
                    SELECT dataset, sample, click, avg(iou) AS iou
                    FROM clicks JOIN (SELECT trial, dataset, sample FROM counted) USING (trial, dataset, sample)
                    WHERE (dataset, sample) IN (SELECT (dataset, sample) FROM hard)
                    GROUP BY dataset, sample, click)
            SELECT dataset, sample, noc, final, worst, reached, trials, list((click, iou) ORDER BY click)
            FROM hard JOIN curve USING (dataset, sample) GROUP BY ALL
            ORDER BY noc DESC, final, dataset, sample""",
            [limit],
        ).fetchall()
        return [HardObject(*row) for row in rows]

    def training_curves(self) -> dict[str, dict[str, Curve]]:
        """Read metric -> stage -> (step, value), the losses first; long curves averaged to CURVE_POINTS points."""
        rows = self._sql.execute(
            """
            WITH finite AS (SELECT stage, metric, step, value FROM training WHERE isfinite(value)),
                 bounds AS (SELECT stage, metric, min(step) AS lo, max(step) AS hi FROM finite GROUP BY ALL)
            SELECT metric, stage, avg(step) AS x, avg(value)
            FROM finite JOIN bounds USING (stage, metric)
            GROUP BY metric, stage, ((step - lo) * $points) // (hi - lo + 1)
            ORDER BY metric NOT LIKE '%loss%', metric, stage, x""",
            {"points": CURVE_POINTS},
        ).fetchall()
        curves: dict[str, dict[str, Curve]] = {}
        for metric, stage, step, value in rows:
            curves.setdefault(metric, {}).setdefault(stage, []).append((step, value))
        return curves

    def profiles(self) -> dict[str, dict[str, object]]:
        """Read the row of profile.parquet of every profile stage."""
        made = self._sql.sql("SELECT * EXCLUDE (folder) FROM profile ORDER BY model, refiner, device, stage")
        return {row["stage"]: row for row in made.to_arrow_table().to_pylist()}

    def spent(self) -> list[Spent]:
        """Sum up what computing cost, each stage once, in the stages' order."""
        rows = self._sql.execute("""
            SELECT kind, coalesce(hardware, '–'), count(*), coalesce(sum(device_seconds), 0) / 3600, median(per_second),
                   max(coalesce(device_peak_memory_gb, peak_memory_gb))
            FROM stages GROUP BY kind, hardware
            ORDER BY list_position(['embed', 'train', 'evaluate', 'profile'], kind::VARCHAR), hardware""").fetchall()
        return [Spent(*row) for row in rows]


def _curves(rows: Iterable[tuple[int, float, float]]) -> dict[int, Curve]:
    curves: dict[int, Curve] = {}
    for configuration, click, value in rows:
        curves.setdefault(configuration, []).append((click, value))
    return curves
