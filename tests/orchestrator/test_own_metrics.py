"""Metrics that a sweep makes of clicks: functions that fail, and names that no evaluation can answer."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toys import NamedContents, write_toy_stage

from samref.config import EvaluateConfig, Runtime
from samref_sweep.execution.unit import perform
from samref_sweep.planning.own_metrics import unmeasured
from samref_sweep.planning.plan import plan
from samref_sweep.record.tables import write
from samref_sweep.spec.sweep import Sweep, read
from samref_sweep.store.store import Store

MINE = """
def share(clicks):
    return sum(clicks["positive"]) / 4

def broken(clicks):
    return {}[
        "iou"]

def text(clicks):
    return "a"

def ends(clicks):
    raise SystemExit(3)
"""


def sweep(folder: Path, *metrics: str) -> Sweep:
    (folder / "mine.py").write_text(MINE)
    file = folder / "s.yaml"
    trial = "{model: {backbone: tiny, checkpoint: none}, train: null, profile: null, evaluate: {data: shapes}}"
    file.write_text(f"trial: {trial}\nmetrics: [{', '.join(metrics)}]\n")
    return read(file)


def test_a_function_that_fails_costs_its_own_column_alone(tmp_path: Path, store: Store) -> None:
    made = sweep(tmp_path, *(f"./mine.py:{name}" for name in ("broken", "share", "text", "ends")), "noc_at_70")
    planned = plan(made, NamedContents(), ())
    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    said: list[str] = []
    write(planned, store, {}, tmp_path / "results", "", warn=said.append)
    table = pq.read_table(tmp_path / "results" / "trials.parquet")
    (row,) = table.to_pylist()
    own = {name: row[f"mine:{name}"] for name in ("broken", "share", "text", "ends")}
    assert own == {"broken": None, "share": 0.5, "text": None, "ends": None}
    assert (row["status"], row["noc_at_70"]) == ("done", 1.5)
    assert [text.partition("; ")[0] for text in said] == [
        f"metrics: mine:broken: {tmp_path}/mine.py:6: KeyError: 'iou'",
        f"metrics: mine:text: {tmp_path}/mine.py:9: ValueError: could not convert string to float: 'a'",
        f"metrics: mine:ends: {tmp_path}/mine.py:13: SystemExit: 3",
    ]
    assert all(text in table.schema.metadata[b"samref.sweep"].decode() for text in ("mine:broken: ", "mine:ends: "))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("noc_at_80@COIFT", ""),
        ("noc_at_80@coift", "no sample's key begins with coift/; there are: COIFT, HRSOD"),
        ("miou_at_20", ""),
        ("miou_at_21", "no evaluation has the clicks that it needs"),
        ("noc_at_80_in_21@coift", "no evaluation has the clicks that it needs"),
        ("iou_auc_1", "no evaluation has the clicks that it needs"),
    ],
)
def test_a_metric_that_no_evaluation_can_have_is_told_at_the_plan(tmp_path: Path, name: str, said: str) -> None:
    made = sweep(tmp_path, name)
    some, more = (EvaluateConfig(data="hqseg44k", max_clicks=clicks) for clicks in (3, 20))
    keys = ["COIFT/a", "COIFT/b", "HRSOD/c"]
    lines = list(unmeasured(made, [some, more], lambda config: keys))
    assert len(lines) == bool(said)
    assert all(line.startswith(f"metrics: {name} will be empty: {said}") for line in lines)
    assert not list(unmeasured(made, [some, more], lambda config: None if config is more else keys)), "it may be there"
    assert not list(unmeasured(made, [], lambda config: keys)), "a search that suggested nothing yet"
