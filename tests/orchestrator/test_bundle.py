"""A bundle opens anywhere as the folder it was made of, and not once it was changed; prune frees what nobody needs."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from samref_dashboards.load import load
from samref_dashboards.report import main as dashboard
from samref_sweep.cli import main
from samref_sweep.planning.plan import Plan
from samref_sweep.record import tables
from samref_sweep.store.folder import FolderStore

CLAIM = "- {claim: all, where: {train.gamma: 0.6, evaluate.theta: 1.1}, column: parameters, interval: [7, 7]}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle of a toy sweep, its page and tables made by the real dashboard."""
    from toys import toy_plan, write_toy_stage

    from samref.config import Runtime
    from samref_sweep.execution.unit import perform

    folder = tmp_path_factory.mktemp("bundle")
    store = FolderStore(folder / "store")
    planned: Plan = toy_plan(store)
    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    tables.write(planned, store, {}, folder / "toy", "samref-sweep toy.yaml")
    (folder / "claims.yaml").write_text(CLAIM)
    assert main(["bundle", str(folder / "toy"), "--claims", str(folder / "claims.yaml")]) == 0
    return folder / "toy.zip"


def changed(bundle: Path, tmp_path: Path, name: str, content: bytes | None) -> Path:
    """A copy of the bundle in which one file is another, or is not there."""
    copy = tmp_path / "changed.zip"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(copy, "w") as new:
        for each in {*old.namelist(), name}:
            text = content if each == name else old.read(each)
            if text is not None:
                new.writestr(each, text)
    return copy


def test_a_bundle_says_what_is_in_it_and_under_which_licence(bundle):
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("bundle.json"))
        crate = json.loads(archive.read("ro-crate-metadata.json"))
        names = archive.namelist()
        assert b"<html" in archive.read("page.html")[:200]
    assert {"results/trials.parquet", "claims/claims.yaml", "tables/trials.csv"} <= set(names)
    assert set(manifest["files"]) == set(names) - {"bundle.json", "ro-crate-metadata.json"}
    assert len(manifest["trials"]) == 4
    assert [keys["dataset"] for keys in manifest["protocols"].values()] == ["shapes"]
    (root,) = (each for each in crate["@graph"] if each["@id"] == "./")
    assert {part["@id"] for part in root["hasPart"]} == set(names) - {"ro-crate-metadata.json"}


def test_it_tells_the_bundle_and_no_folder_that_is_gone(bundle, tmp_path, capsys):
    assert main(["bundle", str(bundle.with_suffix("")), "--out", str(tmp_path / "again.zip")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"bundle:    {tmp_path / 'again.zip'} (")
    with zipfile.ZipFile(bundle) as first, zipfile.ZipFile(tmp_path / "again.zip") as again:
        assert {*again.namelist()} == {*first.namelist()} - {"claims/claims.yaml"}


def test_no_file_of_claims_takes_another_one_s_place(bundle, tmp_path, capsys):
    folder = bundle.parent
    other = shutil.copy(folder / "claims.yaml", tmp_path)
    out = str(tmp_path / "out.zip")
    command = ["bundle", str(folder / "toy"), "--out", out, "--claims", str(folder / "claims.yaml"), "--claims", other]
    assert main([str(each) for each in command]) == 2
    assert f"{other}: another file of claims for this bundle has its name" in capsys.readouterr().err


def test_it_opens_anywhere_as_the_folder_did(bundle, tmp_path, capsys):
    copy = shutil.copy(bundle, tmp_path / "elsewhere.zip")
    assert dashboard([str(copy), "--no-open"]) == 0
    assert (tmp_path / "elsewhere.html").stat().st_size > 10_000
    assert dashboard([str(copy), "--claims", str(bundle.with_name("claims.yaml"))]) == 0
    assert "pass" in capsys.readouterr().out


def test_two_bundles_compare_like_two_folders(bundle, tmp_path):
    other = shutil.copy(bundle, tmp_path / "other.zip")
    from samref_dashboards.bundles import opened

    both = load([opened(bundle, tmp_path / "a"), opened(Path(other), tmp_path / "a")])
    assert [sweep.place for sweep in both.sweeps] == [str(bundle), str(other)]
    assert len(both.trials) == 4


@pytest.mark.slow
def test_equal_results_make_an_equal_bundle(bundle, tmp_path, monkeypatch):
    again = tmp_path / "again.zip"
    assert main(["bundle", str(bundle.with_suffix("")), "--out", str(again)]) == 0
    with zipfile.ZipFile(bundle) as first, zipfile.ZipFile(again) as second:
        same = [name for name in second.namelist() if name.startswith(("results/", "tables/"))]
        assert len(same) > 10
        assert all(first.read(name) == second.read(name) for name in same if not name.endswith(".pdf"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("results/trials.parquet", b"PAR1", "results/trials.parquet was changed in the bundle after it was written"),
        ("tables/trials.csv", None, "tables/trials.csv is missing from the bundle after it was written"),
        ("results/more.parquet", b"x", "results/more.parquet was added to the bundle after it was written"),
        ("bundle.json", None, "is no bundle of samref-sweep"),
        ("bundle.json", b"[]", "is no bundle of samref-sweep"),
        ("bundle.json", b'{"samref.bundle": 2, "files": {}}', "is a bundle of version 2"),
    ],
)
def test_a_bundle_that_was_changed_is_one_line(bundle, tmp_path, capsys, name, content, told):
    assert dashboard([str(changed(bundle, tmp_path, name, content)), "--no-open"]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_what_is_no_whole_zip_is_one_line(tmp_path, capsys, content):
    (tmp_path / "cut.zip").write_bytes(content)
    assert dashboard([str(tmp_path / "cut.zip"), "--no-open"]) == 2
    assert "is no whole bundle" in capsys.readouterr().err


def test_a_store_without_the_weights_is_one_line(bundle, tmp_path, capsys):
    options = ["bundle", str(bundle.with_suffix("")), "--out", str(tmp_path / "x.zip"), "--weights", "--store"]
    assert main([*options, str(tmp_path / "no")]) == 2
    assert "there is no store, which has the weights" in capsys.readouterr().err
    assert main([*options, str(bundle.with_name("store"))]) == 2  # toys write no weights
    assert "has no weights of train-" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_what_is_no_folder_of_results_is_one_line(tmp_path, capsys):
    assert main(["bundle", str(tmp_path)]) == 2
    assert "no trials.parquet in it" in capsys.readouterr().err


def test_prune_shows_and_then_removes_what_no_sweep_needs(tmp_path, monkeypatch, capsys):
    from toys import write_toy_stage

    from samref.config import Runtime
    from samref_sweep import driver
    from samref_sweep.execution.unit import perform

    monkeypatch.chdir(tmp_path)
    text = (
        "trial: {model: {backbone: tiny, checkpoint: none}, train: null, profile: null, "
        "evaluate: {data: shapes, samples: 2, max_clicks: %d}}\n"
    )
    for name, clicks in (("a", 2), ("b", 3)):
        Path(f"{name}.yaml").write_text(text % clicks)
    store = FolderStore(Path("runs"))
    for name in "ab":
        for work in driver.plan(driver.read(f"{name}.yaml"), store=store).plan.works:
            perform(work, store, runtime=Runtime(), report=lambda *_: None, runner=write_toy_stage)
    before = store.done()
    assert len(before) == 3  # one embedding, two evaluations
    assert main(["prune", "a.yaml", "b.yaml", "--yes"]) == 0
    assert main(["prune", "a.yaml"]) == 0
    assert "1 of 3 finished stages" in capsys.readouterr().err
    assert store.done() == before
    assert main(["prune", "a.yaml", "--yes"]) == 0
    assert store.done() < before
    assert driver.plan(driver.read("a.yaml"), store=store).complete
