"""Published numbers stand beside ours only where the protocols agree; claims pass, fail, or cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import published as paper
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import claims, published
from samref_dashboards.load import ResultsError, load
from samref_dashboards.report import main

SWEEPS = Path(__file__).parents[2] / "sweeps"
DAVIS = next(row.protocol["contents"] for row in published.read() if row.protocol.get("dataset") == "davis")
KEYS = {
    "dataset": "davis",
    "contents": DAVIS,
    "objects": 345,
    "clicker": "ritm",
    "most_clicks": 20,
    "resize": "stretch",
    "threshold": 0.5,
}


def protocol(**changed):
    """The columns of a trial that say how it was evaluated."""
    return {"protocol": "protocol-1", "protocol_keys": json.dumps({**KEYS, **changed})}


def table(folder):
    results = load([folder])
    return published.twins(results)


def verdicts(made):
    """Published row → what stands in `beside ours`."""
    return {row.cells[0].text + row.cells[-1].text: row.cells[-2].text for row in made.rows}


def test_every_published_row_names_known_keys_and_columns():
    from samref.protocol import MEANINGS
    from samref_sweep.record.schemas import SCHEMAS

    for row in published.read():
        assert set(row.protocol) <= set(MEANINGS), row
        assert set(row.numbers) <= {*SCHEMAS["trials"].names, *SCHEMAS["profile"].names}, row
        assert set(row.settings) <= set(SCHEMAS["trials"].names), row


def test_equal_protocols_stand_side_by_side(tmp_path, write_results):
    write_results(tmp_path, settings=protocol())
    made = verdicts(table(tmp_path))
    assert all(text == "yes" for name, text in made.items() if name.startswith(("SAM-REF", "RITM")))
    assert {text for name, text in made.items() if name.startswith("SegNext")} == {"no: threshold: 0.5, not 0.49"}


def test_what_differs_is_named(tmp_path, write_results):
    write_results(tmp_path, settings=protocol(objects=20, clicker="interformer"))
    made = verdicts(table(tmp_path))
    ritm = next(text for name, text in made.items() if name.startswith("RITM HRNet32"))
    assert ritm == "no: objects: 20, not 345; clicker: interformer, not ritm"


def test_another_packaging_is_another_protocol(tmp_path, write_results):
    write_results(tmp_path, settings=protocol(contents="0" * 64))
    assert f"no: contents: 000000000000…, not {DAVIS[:12]}…" in verdicts(table(tmp_path)).values()


def test_tables_of_an_older_version_have_no_block(tmp_path, write_results):
    write_results(tmp_path)
    assert table(tmp_path) is None


def test_a_users_file_adds_rows(tmp_path, write_results, capsys):
    more = tmp_path / "mine.yaml"
    more.write_text(
        "- method: Ours\n  backbone: X\n  source: a draft\n"
        "  protocol: {dataset: davis, objects: 345}\n  numbers: {noc_at_90: 3.5}\n"
    )
    write_results(tmp_path / "r", axes={"evaluate.theta": (1.1,)}, settings=protocol(), num_samples=2)
    out = tmp_path / "t"
    assert main([str(tmp_path / "r"), "--tables", str(out), "--published", str(more)]) == 0
    assert "Ours X" in (out / "published.md").read_text()


CLAIM = """
- claim: at 1.1
  where: {evaluate.theta: 1.1}
  column: noc_at_90
"""


def judged(folder, text, tmp_path, capsys, *options):
    """Exit code and output of the command on a claims file of this text."""
    file = tmp_path / "claims.yaml"
    file.write_text(text)
    code = main([str(folder), "--claims", str(file), *options])
    return code, capsys.readouterr()


@pytest.fixture
def folder(tmp_path, write_results):
    """Results of two θ × two seeds."""
    made = tmp_path / "results"
    write_results(made, axes={"evaluate.theta": (1.1, 1.2), "train.seed": (0, 1)}, settings=protocol())
    return made


def mean(folder):
    """What the claim is about: the mean over seeds of NoC90 at θ 1.1."""
    done = [trial for trial in load([folder]).trials if trial["evaluate.theta"] == 1.1]
    return sum(trial["noc_at_90"] for trial in done) / len(done)


def test_a_claim_is_about_the_mean_of_its_seeds(folder, tmp_path, capsys):
    within = f"{CLAIM}  expected: {mean(folder):.3f}\n  tolerance: 0.001\n"
    code, said = judged(folder, within, tmp_path, capsys)
    assert code == 0
    assert said.out.startswith("pass           at 1.1: noc_at_90 ")
    assert "(n 2)" in said.out
    code, said = judged(folder, f"{CLAIM}  interval: [0, {mean(folder) - 0.01}]\n", tmp_path, capsys)
    assert (code, said.out[:4]) == (1, "fail")


def test_the_tolerance_itself_passes(folder, tmp_path, capsys):
    text = f"{CLAIM}  expected: {mean(folder) - 0.05!r}\n  tolerance: 0.05\n"
    assert judged(folder, text, tmp_path, capsys)[0] == 0


def test_another_protocol_is_not_comparable_and_says_why(folder, tmp_path, capsys):
    text = f"{CLAIM}  interval: [0, 20]\n  protocol: {{objects: 50}}\n"
    code, said = judged(folder, text, tmp_path, capsys, "--json")
    (told,) = json.loads(said.out)
    assert (code, told["verdict"], told["because"]) == (3, "not comparable", "objects: 345, not 50")


def test_a_missing_seed_and_random_weights_are_not_comparable(tmp_path, write_results, capsys):
    text = f"{CLAIM}  interval: [0, 20]\n"
    lacking = {"axes": {"evaluate.theta": (1.1,), "train.seed": (0, 1)}, "settings": protocol()}
    write_results(tmp_path / "a", failed=[1], **lacking)
    code, said = judged(tmp_path / "a", text, tmp_path, capsys)
    assert code == 3
    assert "1 of its 2 seeds are done" in said.out
    write_results(tmp_path / "b", random_weights=True, **lacking)
    code, said = judged(tmp_path / "b", text, tmp_path, capsys)
    assert code == 3
    assert "its weights are random" in said.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- claim: x\n  where: {}\n", "line 1: lacks column"),
        ("a: 1\n", "is no list"),
        ("- 3\n", "line 1: is no mapping"),
        ("- [", "is no YAML"),
        (f"{CLAIM}  expectd: 3\n", "line 2: expectd is not known here"),
        (f"{CLAIM}  expected: 3\n", "give expected and tolerance, or interval"),
        (f"{CLAIM}  interval: [5, 4]\n", "interval is [5, 4], which is reversed"),
        (f"{CLAIM}  interval: 5\n", "write [LOW, HIGH]"),
        (f"{CLAIM}  expected: many\n  tolerance: 1\n", "expected is 'many', which is no number"),
        (f"{CLAIM}  expected: 1\n  tolerance: -1\n", "tolerance is -1, less than 0"),
        (CLAIM.replace("noc_at_90", "noc") + "  interval: [0, 1]\n", "column noc is not in these results"),
        (CLAIM.replace("1.1}", "1.7}") + "  interval: [0, 1]\n", "where fits 0 configurations"),
        (
            CLAIM.replace("evaluate.theta: 1.1", "evaluate.data: davis") + "  interval: [0, 1]\n",
            "fits 2 configurations",
        ),
        (CLAIM.replace("evaluate.theta", "theta") + "  interval: [0, 1]\n", "where names theta"),
        (CLAIM.replace("{evaluate.theta: 1.1}", "[1]") + "  interval: [0, 1]\n", "write {COLUMN: VALUE}"),
    ],
)
def test_a_wrong_claims_file_is_one_line_with_file_and_line(folder, tmp_path, capsys, text, told):
    code, said = judged(folder, text, tmp_path, capsys)
    assert code == 2
    assert told in said.err
    assert "claims.yaml" in said.err
    assert said.err.count("\n") == 1


def test_a_published_file_with_unknown_columns_is_one_line(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("- method: a\n  backbone: b\n  source: c\n  number: {}\n")
    with pytest.raises(ResultsError, match=r"wrong.yaml, line 1: lacks numbers"):
        published.read(file)


def test_the_claims_of_the_papers_table_pass_on_its_numbers(tmp_path):
    paper.write_table_1(tmp_path / "r")
    file = tmp_path / "r" / "trials.parquet"
    rows = pq.read_table(file)
    for name, value in protocol().items():
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    pq.write_table(rows, file)
    made = claims.judge(load([tmp_path / "r"]), [SWEEPS / "claims" / "table1.yaml"])
    assert [each.verdict for each in made] == ["pass"] * 15
