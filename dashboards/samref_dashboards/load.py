"""Reads results folders: checks them, joins several into one, and opens them to SQL.

A results folder holds `trials.parquet` and beside it `clicks`, `masks`, `photographs`, `curves`, `training`, `profile`
and `stages` (docs/results.md explains every column). Trials become plain dictionaries; clicks and training curves may
be millions of rows and stay in Parquet, where DuckDB reads them. Knows nothing of tables, figures or HTML.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from samref.errors import masked

SCHEMA = 1
"""The newest `samref.schema` that this package reads."""

COPIED = ".copied-from"
"""A file with the URI that a folder of results was copied from."""

COLUMNS = {
    "trials": "sweep trial status reason stage_train stage_profile device_seconds hardware commit versions "
    "random_weights started model.backbone model.refiner train.data evaluate.data evaluate.theta "
    "evaluate.max_clicks num_samples noc_at_90 noc_at_95 clicks_on_global clicks_on_previous",
    "clicks": "trial dataset sample click x y positive iou pasted_on error_ratio",
    "masks": "stage sample height width counts",
    "photographs": "data sample height width counts jpeg",
    "curves": "trial metric theta_from theta_to value low high excess_low excess_high",
    "training": "stage step metric value",
    "stages": "stage kind hardware device_seconds per_second peak_memory_gb device_peak_memory_gb",
    "profile": "stage model refiner device parameters parameters_leaf fps memory_gb encode_seconds click_seconds",
}
"""The columns without which a file cannot be shown; others are shown when present."""

Database = duckdb.DuckDBPyConnection
Trial = dict[str, Any]
"""One row of trials.parquet; lists are tuples, NaN is None, `folder` is the index of its results folder."""


class ResultsError(ValueError):
    """The results cannot be read; the message is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a results folder says about itself."""

    name: str
    purpose: str
    file: str
    command: str
    axes: dict[str, tuple[Any, ...]]
    """Axis -> its values, in the sweep file's order; none where the file only names the axes."""
    planned: int
    recorded: int
    """Rows in trials.parquet."""
    place: str
    """The folder of its results, or the URI that they were copied from."""
    decisions: tuple[str, ...] = ()
    """A sentence for each difference that `seeds: {until: …}` was to decide."""
    other_code: str = ""
    """A sentence on stages that were reused though other code made them; empty where there are none."""
    notes: tuple[str, ...] = ()
    """A sentence for each thing that is odd about the data or a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """One or several results folders, joined: every trial once."""

    sweeps: tuple[Sweep, ...]
    trials: tuple[Trial, ...]
    sql: Database
    """Holds the views `clicks` and `curves` (of done trials), and those of all other tables but `trials`."""
    fields: Mapping[str, Mapping[str, str]]
    """Column of trials.parquet or profile.parquet -> its `meaning`, `unit` and `better`; older files say nothing."""
    profiled: frozenset[str]
    """The columns that a profile measures, which its trials have from profile.parquet."""


def load(paths: Sequence[Path]) -> Results:
    """Read results folders, or folders of them; ResultsError says what is wrong with which file."""
    folders = _all_folders(paths)
    found = [_read_trials(folder) for folder in folders]
    sweeps = _told_apart([sweep for sweep, _ in found])
    trials = [
        {**row, "sweep": sweep.name, "folder": index}
        for index, (sweep, (_, rows)) in enumerate(zip(sweeps, found, strict=True))
        for row in rows
    ]
    unique = _one_row_per_trial(trials)
    sql = _open(folders, unique)
    costs = sql.sql("SELECT * EXCLUDE (folder, model, refiner, device) FROM profile")
    measured = {row["stage"]: row for row in map(_row, costs.to_arrow_table().to_pylist())}
    return Results(
        sweeps=sweeps,
        trials=tuple(_with_costs(trial, measured.get(trial["stage_profile"], {})) for trial in unique),
        sql=sql,
        fields=_fields(folders),
        profiled=frozenset(costs.columns),
    )


def read(*paths: str | Path) -> dict[str, pa.Table]:
    """The tables of results folders, or of folders of them, joined: every trial, and every stage, once.

    Their columns are those of docs/results.md, `clicks` and `curves` of done trials alone; a folder of an older
    version, which lacks a column, has nulls there. `read("results/theta")["trials"].to_pandas()` is a data frame.
    Raises ResultsError: a file cannot be read; one line that names it.
    """
    results = load([Path(path) for path in paths])
    trials = []
    for index, folder in enumerate(_all_folders(paths)):
        own = {trial["trial"] for trial in results.trials if trial["folder"] == index}
        table = pq.read_table(folder / "trials.parquet")
        trials.append(table.filter([each in own for each in table["trial"].to_pylist()]))
    others = {kind: f"SELECT * EXCLUDE (folder) FROM {kind}" for kind in COLUMNS if kind != "trials"}
    return {
        "trials": pa.concat_tables(trials, promote_options="permissive"),
        **{kind: results.sql.sql(query).to_arrow_table() for kind, query in others.items()},
    }


def _all_folders(paths: Iterable[str | Path]) -> list[Path]:
    return list(dict.fromkeys(folder for path in paths for folder in _results_folders(Path(path))))


def _fields(folders: Sequence[Path]) -> dict[str, dict[str, str]]:
    fields: dict[str, dict[str, str]] = {}
    for file in (folder / f"{kind}.parquet" for folder in folders for kind in ("trials", "profile")):
        for field in pq.read_schema(file) if file.is_file() else ():
            about = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
            if kept := {name: text for name, text in about.items() if name in ("meaning", "unit", "better")}:
                fields[field.name] = kept
    return fields


def _results_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise ResultsError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    if (path / "trials.parquet").is_file():
        return [path]
    below = sorted(file.parent for file in path.glob("*/trials.parquet"))
    if not below:
        raise ResultsError(f"{path}: no trials.parquet in it; name a folder that samref-sweep --results wrote")
    return below


def _open_parquet(file: Path, kind: str) -> pa.Schema:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ResultsError(f"{file}: not a whole Parquet file ({reason}); run the sweep's command again") from error
    missing = [name for name in COLUMNS[kind].split() if name not in schema.names]
    version = (schema.metadata or {}).get(b"samref.schema", b"0").decode()
    if not version.isdecimal() or int(version) > SCHEMA:
        raise ResultsError(f"{file}: has schema {version}, this samref-dashboard reads up to {SCHEMA}; upgrade it")
    if missing:
        raise ResultsError(f"{file}: columns are missing: {', '.join(missing)}")
    return schema


def _read_trials(folder: Path) -> tuple[Sweep, list[Trial]]:
    file = folder / "trials.parquet"
    metadata = _open_parquet(file, "trials").metadata or {}
    if b"samref.schema" not in metadata or b"samref.sweep" not in metadata:
        raise ResultsError(f"{file}: not written by samref-sweep (its metadata has no samref.schema, samref.sweep)")
    try:
        about = json.loads(metadata[b"samref.sweep"])
        rows = [_row(row) for row in pq.read_table(file).to_pylist()]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
    sweep = Sweep(
        name=about.get("name") or folder.name,
        **{key: masked(about.get(key) or "") for key in ("purpose", "file", "command", "other_code")},
        decisions=tuple(about.get("decisions") or ()),
        notes=tuple(map(masked, about.get("notes") or ())),
        axes=_axes(about.get("axes", ())),
        planned=about.get("planned", len(rows)),
        recorded=len(rows),
        place=masked((folder / COPIED).read_text()) if (folder / COPIED).exists() else str(folder),
    )
    return sweep, rows


def _told_apart(sweeps: Sequence[Sweep]) -> tuple[Sweep, ...]:
    """Sweeps of one name (the same file, run into two folders) have their folders' names beside."""
    names = [each.name for each in sweeps]
    return tuple(replace(s, name=f"{s.name} ({s.place})") if names.count(s.name) > 1 else s for s in sweeps)


def _axes(written: Any) -> dict[str, tuple[Any, ...]]:
    values = written if isinstance(written, dict) else dict.fromkeys(written, ())
    return {axis: tuple(_setting(value) for value in listed) for axis, listed in values.items()}


def _row(written: Mapping[str, Any]) -> Trial:
    return {key: _setting(value) if "." in key else _plain(value) for key, value in written.items()}


def _setting(value: Any) -> Any:
    """The value of a setting, where infinity is a name beside numbers: no chart has a place for it on an axis."""
    return "∞" if value in (math.inf, "inf") else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _one_row_per_trial(trials: Sequence[Trial]) -> list[Trial]:
    """Equal ids are equal work: keep the done one, and name every sweep that has it."""
    kept: dict[str, Trial] = {}
    for trial in trials:
        other = kept.get(trial["trial"])
        if other is None:
            kept[trial["trial"]] = trial
            continue
        better = trial if trial["status"] == "done" and other["status"] != "done" else other
        names = dict.fromkeys([*other["sweep"].split(" + "), trial["sweep"]])
        kept[trial["trial"]] = {**better, "sweep": " + ".join(names)}
    return list(kept.values())


def _with_costs(trial: Trial, costs: Mapping[str, Any]) -> Trial:
    """A trial with what its profile measured, so that costs are metrics like the others; its own values come first."""
    own = {key: value for key, value in trial.items() if value is not None or key not in costs}
    return {key: value for key, value in costs.items() if key != "stage"} | own


def _open(folders: Sequence[Path], trials: Sequence[Trial]) -> Database:
    sql = duckdb.connect()
    for kind in ("clicks", "masks", "photographs", "curves", "training", "profile", "stages"):
        parts = []
        for index, folder in enumerate(folders):
            if (file := folder / f"{kind}.parquet").is_file():
                _open_parquet(file, kind)
                # An Arrow dataset, because DuckDB's own reader takes `[` and `*` in a path for a glob.
                sql.register(f"{kind}_{index}", ds.dataset(file))
                # Profiles may have more columns than are required, and each folder others.
                columns = "*" if kind == "profile" else ", ".join(COLUMNS[kind].split())
                parts.append(f"SELECT {index}::BIGINT AS folder, {columns} FROM {kind}_{index}")
        if not parts:
            columns = ", ".join(f"NULL AS {name}" for name in COLUMNS[kind].split())
            parts.append(f"SELECT 0::BIGINT AS folder, {columns} WHERE false")
        sql.execute(f"CREATE VIEW all_{kind} AS {' UNION ALL BY NAME '.join(parts)}")
    done = [trial for trial in trials if trial["status"] == "done"]
    ids = pa.array([trial["trial"] for trial in done], pa.string())
    sql.register("kept", pa.table({"trial": ids, "folder": pa.array([trial["folder"] for trial in done], pa.int64())}))
    for kind in ("clicks", "curves"):
        sql.execute(f"CREATE VIEW {kind} AS SELECT c.* FROM all_{kind} c JOIN kept USING (trial, folder)")
    sql.execute("CREATE VIEW photographs AS SELECT DISTINCT ON (data, sample) * FROM all_photographs")
    for kind in ("masks", "training", "profile", "stages"):
        first = f"(SELECT stage, min(folder) AS folder FROM all_{kind} GROUP BY stage)"
        sql.execute(f"CREATE VIEW {kind} AS SELECT a.* FROM all_{kind} a JOIN {first} USING (stage, folder)")
    return sql
