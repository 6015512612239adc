"""The tables: declared columns and types, from stage folders that the real store holds."""

import json
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toys import NamedContents, summary_text, toy_plan, toy_sweep, write_toy_stage

from samref.config import Runtime, TrainConfig, TrialConfig
from samref.measures import measured
from samref.stage import Stage
from samref.summary import Summary
from samref.trial import build
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Plan
from samref_sweep.record import rows, schemas
from samref_sweep.record import tables as results
from samref_sweep.store.store import Store


@pytest.fixture
def tables(finished: tuple[Plan, Store], tmp_path: Path) -> Path:
    planned, store = finished
    results.write(
        planned,
        store,
        {},
        tmp_path / "results",
        "samref-sweep toy.yaml --mlflow http://ann:pa55@host --data-root caf\udce9",
        ["mine: 2 of 3 masks are inverted"],
    )
    return tmp_path / "results"


def test_every_table_has_its_declared_schema_and_version(tables: Path) -> None:
    assert {path.name for path in tables.iterdir()} == {f"{name}.parquet" for name in schemas.SCHEMAS}
    for name, schema in schemas.SCHEMAS.items():
        written = pq.read_schema(tables / f"{name}.parquet")
        assert written.equals(schema), name
        assert written.metadata[b"samref.schema"] == schemas.VERSION.encode()


def test_every_column_says_what_it_means_and_a_metric_which_way_is_better(tables: Path) -> None:
    for name in schemas.SCHEMAS:
        assert all(field.metadata[b"meaning"] for field in pq.read_schema(tables / f"{name}.parquet"))
    trials, profile = (pq.read_schema(tables / f"{name}.parquet") for name in ("trials", "profile"))
    noc = trials.field("noc_at_90").metadata
    assert (noc[b"unit"], noc[b"better"]) == (b"clicks", b"lower")
    assert b"better" not in trials.field("clicks_on_global").metadata
    assert profile.field("fps").metadata[b"better"] == b"higher"


def test_a_summary_of_an_older_or_newer_version_can_be_read() -> None:
    written = json.loads(summary_text("train-1", loss=0.5))
    old = Summary.from_json({name: value for name, value in written.items() if name != "peak_memory_gb"})
    assert (old.peak_memory_gb, old.metrics) == (None, {"loss": 0.5})
    assert Summary.from_json({**written, "unheard_of": 1}).to_json() == written
    with pytest.raises(ValueError, match=r"summary\.json lacks device_seconds"):
        Summary.from_json({name: value for name, value in written.items() if name != "device_seconds"})


def test_a_rate_that_an_older_version_measured_by_other_rules_is_missing() -> None:
    evaluation = Stage("evaluate", key={}, names={})
    now, before = (
        measured(Summary.from_json(json.loads(summary_text("evaluate-1", evaluation, **{name: 0.25}))))
        for name in ("seconds_per_click_made", "seconds_per_click")
    )
    assert (now["seconds_per_click"], before.get("seconds_per_click")) == (0.25, None)


def test_a_finished_trial_has_its_settings_metrics_and_origin(tables: Path) -> None:
    rows = pq.read_table(tables / "trials.parquet").to_pylist()
    assert [(row["train.gamma"], row["evaluate.theta"]) for row in rows] == [
        (0.6, 1.05), (0.6, 1.1), (0.9, 1.05), (0.9, 1.1),
    ]  # fmt: skip
    row = rows[0]
    assert row["status"] == "done"
    assert row["reason"] is None
    assert row["train.modules"] == "decoder,refiner"
    assert row["noc_at_90"] == 1.05
    assert row["parameters"] == 7
    assert row["noc_at_95"] is None  # not measured, so not 0
    assert row["device_seconds"] == 1.5 * 5  # two embeddings would be shared, shapes has two splits
    assert row["random_weights"] is True
    assert row["checkpoint_fingerprint"] == "random:0"
    assert (row["train_data_fingerprint"], row["evaluate_data_fingerprint"]) == ("shapes/train/None", "shapes/val/None")
    assert row["started"] == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert row["stage_train"] == rows[1]["stage_train"] != rows[2]["stage_train"]


def test_what_stages_took_is_a_row_each_and_a_training_s_stands_with_its_trials(tables: Path) -> None:
    rows = pq.read_table(tables / "stages.parquet").to_pylist()
    assert sorted(row["kind"] for row in rows) == ["embed"] * 2 + ["evaluate"] * 4 + ["profile"] + ["train"] * 2
    rates = {row["kind"]: row["per_second"] for row in rows}
    assert rates == {"embed": None, "train": 4.0, "evaluate": 4.0, "profile": None}
    assert {row["accumulation"] for row in rows if row["kind"] == "train"} == {2}
    assert {row["peak_memory_gb"] for row in rows} == {0.75}
    assert {row["device_peak_memory_gb"] for row in rows} == {None}  # no GPU
    for trial in pq.read_table(tables / "trials.parquet").to_pylist():
        assert (trial["train_steps_per_second"], trial["train_accumulation"]) == (4.0, 2)
        assert (trial["train_peak_memory_gb"], trial["train_device_peak_memory_gb"]) == (0.75, None)


def test_the_sweep_is_in_the_metadata(tables: Path) -> None:
    sweep = json.loads(pq.read_schema(tables / "trials.parquet").metadata[b"samref.sweep"])
    assert sweep.pop("decisions") == []
    assert sweep == {
        "name": "toy",
        "purpose": "a toy",
        "file": "toy.yaml",
        "overrides": [],
        "command": "samref-sweep toy.yaml --mlflow http://ann:***@host --data-root caf?",
        "axes": {"train.gamma": [0.6, 0.9], "evaluate.theta": [1.05, 1.1]},
        "planned": 4,
        "notes": ["mine: 2 of 3 masks are inverted"],
        "other_code": None,
    }


def test_a_theta_of_infinity_is_a_number_in_the_table_and_a_text_where_json_is(store: Store, tmp_path: Path) -> None:
    results.write(toy_plan(store, gammas=(0.6,), thetas=(1.1, math.inf)), store, {}, tmp_path, "")
    table = pq.read_table(tmp_path / "trials.parquet")
    assert table["evaluate.theta"].to_pylist() == [1.1, math.inf]
    assert json.loads(table.schema.metadata[b"samref.sweep"])["axes"]["evaluate.theta"] == [1.1, "inf"]
    config = TrialConfig(train=TrainConfig(init=TrainConfig(theta=math.inf)))
    assert json.loads(rows.settings_row(config)["train.init"])["theta"] == "inf"


def test_clicks_keep_the_trajectory(tables: Path) -> None:
    rows = pq.read_table(tables / "clicks.parquet").to_pylist()
    assert len(rows) == 4 * 3
    assert [(row["sample"], row["click"], row["pasted_on"], row["error_ratio"]) for row in rows[:3]] == [
        ("a", 1, "global", None), ("a", 2, "previous", 1.25), ("b", 1, None, None),
    ]  # fmt: skip
    assert rows[0]["dataset"] == "shapes"
    assert rows[0]["iou"] == 0.5


def test_a_curve_is_a_row_a_piece_and_a_sentence(store: Store, tmp_path: Path) -> None:
    planned = toy_plan(store, gammas=(0.6,), thetas=(1.1,), curve=(1.0, 1.5))
    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    results.write(planned, store, {}, tmp_path / "curve", "")
    table = pq.read_table(tmp_path / "curve" / "curves.parquet")
    rows = [list(row.values())[1:] for row in table.to_pylist()]
    assert [row[:4] for row in rows] == [
        ["noc_at_90", 1.0, 1.2, 3.0],
        ["noc_at_90", 1.2, 1.5, 2.5],
        ["nof_at_90", 1.0, 1.2, 1.0],
        ["nof_at_90", 1.2, 1.5, 0.0],
        ["miou_at_1", 1.0, 1.2, 0.75],
        ["miou_at_1", 1.2, 1.5, 0.875],
    ]
    assert [row[4:] for row in rows] == [[2.0, 4.0, 0.0, 1.0], [2.0, 3.0, 0.0, 0.0], *[[None] * 4] * 4]
    (sentence,) = results.curve_sentences(table).values()
    assert sentence.startswith("NoC90 is lowest, 2.50, for θ in (1.2, 1.5]; in [1, 1.5] it changes by at most 0.50, ")
    assert planned.trials[0].id in results.curve_sentences(table)
    row = pq.read_table(tmp_path / "curve" / "trials.parquet").to_pylist()[0]
    assert row["evaluate.curve"] == "1.0,1.5"


def test_masks_stand_once_an_evaluation(tables: Path) -> None:
    rows = pq.read_table(tables / "masks.parquet").to_pylist()
    stages = [row["stage_evaluate"] for row in pq.read_table(tables / "trials.parquet").to_pylist()]
    assert [row["stage"] for row in rows] == [stage for stage in stages for _ in range(2)]
    assert [(row["sample"], row["height"], row["width"], row["counts"]) for row in rows[:2]] == [
        ("b", 2, 4, [5, 1, 2]), ("a", 3, 3, [0, 9]),
    ]  # fmt: skip


def test_photographs_stand_once_however_many_evaluations_kept_them(tables: Path) -> None:
    rows = pq.read_table(tables / "photographs.parquet").to_pylist()
    assert [(row["data"], row["sample"], row["height"], row["width"], row["counts"], row["jpeg"]) for row in rows] == [
        ("shapes/val/None", "b", 2, 4, [6, 1, 1], b"JPEG b"), ("shapes/val/None", "a", 3, 3, [0, 9], b"JPEG a..."),
    ]  # fmt: skip


def test_trainings_and_profiles_stand_once(tables: Path) -> None:
    training = pq.read_table(tables / "training.parquet").to_pylist()
    assert len(training) == 2 * 500
    profile = pq.read_table(tables / "profile.parquet").to_pylist()
    assert [(row["model"], row["refiner"], row["parameters"], row["click_seconds"]) for row in profile] == [
        ("tiny", "gfr+lfr", 7, None)
    ]


def test_tables_of_another_sweep_are_not_replaced(finished: tuple[Plan, Store], tmp_path: Path) -> None:
    def asked(planned: Plan, **changed: object) -> str | None:
        return results.taken(replace(planned, sweep=replace(planned.sweep, **changed)), folder)

    planned, store = finished
    folder = tmp_path / "toy"
    assert results.taken(planned, folder) is None
    results.write(planned, store, {}, folder, "")
    fewer, more = toy_plan(store, thetas=(1.1,)), toy_plan(store, thetas=(1.05, 1.1, 1.5))
    assert results.taken(fewer, folder) is None  # the file was edited
    assert asked(more, file=Path("other/toy.yaml")) is None  # nothing is lost
    for change in ({"file": Path("other/toy.yaml")}, {"overrides": ("evaluate.theta=1.1",)}):
        said = asked(fewer, **change)
        assert said is not None
        assert said.startswith(f"{folder} holds 2 finished trials of toy.yaml that this sweep has not; name it ")
    results.write(replace(more, sweep=replace(more.sweep, overrides=("seeds=[1, 2]",))), store, {}, folder, "")
    assert "of toy.yaml --set 'seeds=[1, 2]' that" in (asked(fewer) or "")
    (folder / "trials.parquet").write_bytes(b"no table")
    assert asked(fewer) is None


def test_what_failed_and_what_did_not_run_are_rows_with_a_reason(store: Store, tmp_path: Path) -> None:
    planned = toy_plan(store, thetas=(1.1,))
    train = planned.trials[0].stage("train")
    assert train is not None
    results.write(planned, store, {train.id: Failure("boom at s3://b?secret_key=x", "x.log")}, tmp_path, "")
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["failed", "not run"]
    assert rows[0]["reason"] == "train: boom at s3://b?secret_key=*** (log: x.log)"
    assert rows[0]["noc_at_90"] is None
    assert rows[0]["device_seconds"] is None
    assert pq.read_table(tmp_path / "clicks.parquet").num_rows == 0


def test_a_damaged_stage_has_no_numbers(finished: tuple[Plan, Store], tmp_path: Path) -> None:
    planned, store = finished
    evaluate = planned.trials[0].stage("evaluate")
    assert evaluate is not None
    (store.folder(evaluate.id) / "clicks.npz").write_bytes(b"")
    results.write(planned, store, {}, tmp_path, "")
    row = pq.read_table(tmp_path / "trials.parquet").to_pylist()[0]
    assert (row["status"], row["noc_at_90"]) == ("failed", None)
    assert "clicks.npz has 0 bytes" in row["reason"]
    assert not store.has(evaluate.id)


def test_every_setting_is_a_column_also_with_a_chain_of_trainings_or_none() -> None:
    config = toy_sweep().configs[0]
    chain = TrialConfig(model=config.model, train=TrainConfig(init=TrainConfig(modules=("decoder",))))
    row = rows.settings_row(chain)
    assert json.loads(row["train.init"])["modules"] == ["decoder"]
    assert set(row) | {"profile.repeats"} <= set(schemas.SCHEMAS["trials"].names)
    assert not any(name.startswith("train.") for name in rows.settings_row(TrialConfig()))


def test_weights_are_random_until_a_training_changes_the_encoder() -> None:
    frozen = build(toy_sweep().configs[0], NamedContents())
    trained = build(toy_sweep(freeze_backbone=False).configs[0], NamedContents())
    official = build(TrialConfig(), NamedContents())
    assert [rows.random_weights(trial) for trial in (frozen, trained, official)] == [True, False, False]


def test_a_full_disk_leaves_the_tables_as_they_were(finished: tuple[Plan, Store], small_disk: Path) -> None:
    planned, store = finished
    folder = small_disk / "results"
    results.write(planned, store, {}, folder, "the first time")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(left - 2 * 4096 - len(before["trials.parquet"])))
    with pytest.raises(OSError, match=f"No space left on device: '{folder}"):
        results.write(planned, store, {}, folder, "the second time")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_tables_that_say_nothing_new_are_not_written_again(finished: tuple[Plan, Store], tmp_path: Path) -> None:
    planned, store = finished

    def write(command: str) -> dict[str, int]:
        results.write(planned, store, {}, tmp_path, command)
        return {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}

    before, again, other = write("one"), write("one"), write("other")
    assert again == before
    assert {name for name in other if other[name] != before[name]} == {"trials.parquet"}
