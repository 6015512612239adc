"""The record of a sweep: eight Parquet tables, rebuilt from the store whenever they are written.

    trials.parquet     one row per trial: status, every setting, every headline metric
    clicks.parquet     one row per click of every trial: keep the trajectory, metrics are queries
    masks.parquet      the last masks of each evaluation's hardest objects
    curves.parquet     metrics over every θ of an interval, where a trial asked for them
    photographs.parquet
                       those objects' photographs and truths, each once
    training.parquet   what each training reported while it ran
    profile.parquet    what each model costs
    stages.parquet     what each stage took: time, rate, memory

A metric that was not measured is null.
"""

import filecmp
import io
import json
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from samref import path_files, theta_curves
from samref.errors import masked
from samref.measures import MEASURES
from samref.part import as_json
from samref.path_files import PathTable
from samref.stage import Stage
from samref.trial import Trial
from samref_sweep.failures import Failure
from samref_sweep.planning.decisions import decided
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.planning.redo import other_code
from samref_sweep.record.rows import Reader, profile_rows, stage_rows, trial_row
from samref_sweep.record.schemas import NUMBER, SCHEMAS, VERSION, column
from samref_sweep.store.bucket import QUICK, Bucket
from samref_sweep.store.opening import is_uri, local
from samref_sweep.store.store import Store

BYTES_PER_GROUP = 32 << 20
"""In memory, of a table's row groups: half a million clicks, or ten thousand masks."""
PASTED_ON = ("global", "previous")
Table = pa.Table


def write(
    plan: Plan,
    store: Store,
    failures: Mapping[str, Failure],
    folder: Path,
    command: str,
    notes: Iterable[str] = (),
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[Outcome, ...]:
    """Write all tables of a plan's trials from what the store holds now; gives what became of each trial.

    A stage whose files turn out to be damaged is not done, and its trial failed. `notes` are sentences on the data and
    checkpoints, which the tables keep for the page. A metric of a person's own that fails is left out, and why is told
    to `warn` and kept, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": plan.sweep.name,
        "purpose": plan.sweep.purpose,
        "file": str(plan.sweep.file),
        "overrides": list(plan.sweep.overrides),
        "command": masked(command),
        "axes": as_json(plan.sweep.axes),
        "planned": len(plan.trials),
    }
    reader = Reader(store)
    for trial in plan.trials:
        for leaf in leaves(trial):
            reader.summary(leaf)
    done, stages = store.done(), plan.stages.values()
    outcomes = plan.outcomes(done, {**failures, **reader.damaged})
    sweep["decisions"] = [each.text for each in decided(plan, done, store)]
    sweep["other_code"] = other_code(stages, done, store.codes.all()).text
    own, more = OwnMetrics(plan.sweep, store), plan.sweep.derived
    rows = [
        trial_row(plan.sweep.name, trial, outcome, reader, own)
        for trial, outcome in zip(plan.trials, outcomes, strict=True)
    ]
    failed = [f"metrics: {why}; what it fails on is left empty" for why in own.failed.values()]
    sweep["notes"] = [masked(text) for text in (*notes, *failed)]
    for text in failed:
        warn(text)
    columns = (column(each.name, each.meaning, NUMBER, each.unit, each.better) for each in more)
    about = json.dumps(sweep, ensure_ascii=False).encode(errors="replace")  # a file's name may be any bytes
    trials = pa.schema([*SCHEMAS["trials"], *columns], {"samref.sweep": about})
    # All of them, or the ones before: on a full disk the new trials would else stand beside old clicks.
    with _named(folder), tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        aside = Path(name)
        _write(aside, "trials", iter([pa.Table.from_pylist(rows, schema=trials)]), trials)
        _write(aside, "clicks", (table for trial in plan.trials for table in _clicks(trial, reader)))
        _write(aside, "masks", (table for stage in stages for table in _masks(stage, reader)))
        _write(aside, "curves", (table for trial in plan.trials for table in _curves(trial, reader)))
        _write(aside, "photographs", _photographs(stages, reader))
        _write(aside, "training", (table for stage in stages for table in _training(stage, reader)))
        _write(aside, "profile", _batches("profile", profile_rows(stages, reader)))
        _write(aside, "stages", _batches("stages", stage_rows(stages, reader)))
        for path in aside.iterdir():
            if not _equal(path, folder / path.name):  # whoever shows them sees by its time what is new
                path.replace(folder / path.name)
    return outcomes


def _equal(new: Path, old: Path) -> bool:
    return old.is_file() and filecmp.cmp(new, old, shallow=False)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Name the folder in what the system refuses meanwhile, as Arrow does not."""
    try:
        yield
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(folder)) from error


def read(where: str, name: str) -> Table:
    """Read one table of a folder or URI of results.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the URI does not answer.
    """
    file = f"{name}.parquet"
    return pq.read_table(io.BytesIO(Bucket(where, QUICK).read(file)) if is_uri(where) else local(where) / file)


def taken(plan: Plan, folder: Path) -> str | None:
    """Say whose tables a folder holds, if those of a plan would replace finished trials of another sweep; else None.

    The same sweep is the same file with the same `--set`, whatever was edited in it; any other may add to its trials.
    """
    file = folder / "trials.parquet"
    try:
        before = json.loads(pq.read_schema(file).metadata[b"samref.sweep"])
        rows = pq.read_table(file, columns=["trial", "status"]).to_pylist()
    except (OSError, ValueError, KeyError, TypeError):  # none, or none that can be read
        return None
    sweep = plan.sweep
    same_file = Path(before["file"]).absolute() == sweep.file.absolute()
    if same_file and before.get("overrides", list(sweep.overrides)) == list(sweep.overrides):
        return None
    lost = {row["trial"] for row in rows if row["status"] == "done"} - {trial.id for trial in plan.trials}
    options = "".join(f" --set {shlex.quote(text)}" for text in before.get("overrides", ()))
    text = f"{folder} holds {len(lost)} finished trials of {before['file']}{options} that this sweep has not; name it "
    text += f"with --set name=NAME, or say where its tables go with --results ({folder}: in place of those)"
    return text if lost else None


def curve_sentences(curves: Table) -> dict[str, str]:
    """Trial id → what its curve of NoC90 over θ says, of the rows of curves.parquet."""
    rows: dict[str, list[dict[str, float]]] = {}
    for row in curves.filter(pc.field("metric") == "noc_at_90").to_pylist():
        rows.setdefault(row["trial"], []).append(row)
    found = {}
    for trial, pieces in rows.items():
        names = ("theta_from", "theta_to", "value", "excess_low")
        above, upto, value, excess_low = (np.array([row[name] for row in pieces]) for name in names)
        found[trial] = theta_curves.sentence("NoC90", theta_curves.Curve(above, upto, value), excess_low)
    return found


def _clicks(trial: Trial, reader: Reader) -> Iterator[pa.Table]:
    stage = trial.stage("evaluate")
    if stage is None or reader.summary(stage) is None:
        return
    samples = np.array(json.loads(reader.store.file(stage.id, "samples.json").read_text()), dtype=object)
    with np.load(reader.store.file(stage.id, "clicks.npz")) as arrays:
        count = len(arrays["click"])
        error_ratio, pasted_on = (arrays["error_ratio"], arrays["pasted_on"].astype(np.int8))
        yield pa.table(
            {
                "trial": pa.repeat(trial.id, count),
                "dataset": pa.repeat(trial.config.evaluate.data, count),
                "sample": pa.array(samples[arrays["sample"]], pa.string()),
                **{name: pa.array(arrays[name]) for name in ("click", "x", "y", "positive", "iou")},
                "pasted_on": pa.DictionaryArray.from_arrays(
                    pa.array(pasted_on - 1, pa.int8(), mask=pasted_on == 0), pa.array(PASTED_ON)
                ),
                "error_ratio": pa.array(error_ratio, pa.float32(), mask=np.isnan(error_ratio)),
            }
        ).cast(SCHEMAS["clicks"])


def _masks(stage: Stage, reader: Reader) -> Iterator[pa.Table]:
    if stage.kind != "evaluate" or reader.summary(stage) is None:
        return
    samples = np.array(json.loads(reader.store.file(stage.id, "samples.json").read_text()), dtype=object)
    with np.load(reader.store.file(stage.id, "masks.npz")) as arrays:
        yield pa.table(
            {
                "stage": pa.repeat(stage.id, len(arrays["sample"])),
                "sample": pa.array(samples[arrays["sample"]], pa.string()),
                **{name: pa.array(arrays[name]) for name in ("height", "width")},
                "counts": pa.ListArray.from_arrays(arrays["offsets"], arrays["counts"]),
            },
            schema=SCHEMAS["masks"],
        )


def _curves(trial: Trial, reader: Reader) -> Iterator[pa.Table]:
    stage = trial.stage("evaluate")
    if stage is None or "curve" not in stage.key or reader.summary(stage) is None:
        return
    paths = PathTable.read(reader.store.file(stage.id, path_files.FILE))
    pieces = paths.sample_P, paths.above_P, paths.upto_P
    for name, values in paths.metrics.items():
        intervals: dict[str, Any] = {}
        if name.startswith("noc_"):
            curve, band = theta_curves.band(*pieces, values)
            intervals = {key.removesuffix("_P"): column for key, column in band._asdict().items()}
        else:
            curve = theta_curves.curve(*pieces, values, mean=MEASURES[name].unit != "samples")
        count = len(curve.value_P)
        columns = {"trial": pa.repeat(trial.id, count), "metric": pa.repeat(name, count), **intervals}
        columns |= dict(zip(("theta_from", "theta_to", "value"), curve, strict=True))
        empty = pa.nulls(count, pa.float64())
        schema = SCHEMAS["curves"]
        yield pa.table({each.name: columns.get(each.name, empty) for each in schema}, schema=schema)


def _photographs(stages: Iterable[Stage], reader: Reader) -> Iterator[pa.Table]:
    """The photographs and truths that evaluations kept, each object of a dataset once."""
    seen: set[tuple[str, str]] = set()
    for stage in stages:
        if stage.kind != "evaluate" or reader.summary(stage) is None:
            continue
        try:
            file = reader.store.file(stage.id, "photographs.npz")
        except FileNotFoundError:  # the sweep wanted none, or an older version ran it
            continue
        samples = json.loads(reader.store.file(stage.id, "samples.json").read_text())
        data, rows = stage.key["data"], []
        with np.load(file) as arrays:
            jpeg, counts = arrays["jpeg"], arrays["counts"]
            ends, jpeg_ends = arrays["offsets"], arrays["jpeg_offsets"]
            for place, (sample, height, width) in enumerate(
                zip(arrays["sample"], arrays["height"], arrays["width"], strict=True)
            ):
                if (key := (data, samples[sample])) not in seen:
                    seen.add(key)
                    row = {"data": data, "sample": samples[sample], "height": height, "width": width}
                    row["counts"] = counts[ends[place] : ends[place + 1]]
                    rows.append({**row, "jpeg": jpeg[jpeg_ends[place] : jpeg_ends[place + 1]].tobytes()})
        yield pa.Table.from_pylist(rows, schema=SCHEMAS["photographs"])


def _training(stage: Stage, reader: Reader) -> Iterator[pa.Table]:
    if stage.kind == "train" and reader.summary(stage):
        lines = reader.store.file(stage.id, "training.jsonl").read_text().splitlines()
        rows = [{"stage": stage.id, **json.loads(line)} for line in lines if line]
        yield pa.Table.from_pylist(rows, schema=SCHEMAS["training"])


def _batches(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    yield pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])


def _write(folder: Path, name: str, tables: Iterator[pa.Table], schema: pa.Schema | None = None) -> None:
    schema = schema or SCHEMAS[name]
    schema = schema.with_metadata({b"samref.schema": VERSION.encode(), **(schema.metadata or {})})
    with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        size = 0
        for table in tables:
            waiting.append(table)
            size += table.nbytes
            if size >= BYTES_PER_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
