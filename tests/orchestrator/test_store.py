"""A store in a folder: what test_store_conformance.py does not say of all stores."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import finish
from toys import summary_text

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.failures import Failure
from samref_sweep.store import manifest
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.journal import Journal
from samref_sweep.store.node import caches
from samref_sweep.store.opening import existing_store, open_store


def test_a_store_of_version_1_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By hand, as the first release laid it out: people's stores must stay good."""
    assert existing_store(str(tmp_path)) is None
    weights = b"weights"
    entry = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    summary = summary_text("train-1", loss=0.5).encode()
    entries = {
        "model/weights": entry,
        "summary.json": {"bytes": len(summary), "sha256": hashlib.sha256(summary).hexdigest()},
    }
    written = {
        "samref-store.json": b'{"version": 1}\n',
        "stages/train-1/model/weights": weights,
        "stages/train-1/summary.json": summary,
        "stages/train-1/manifest.json": json.dumps({"version": 1, "commit": "abc", "files": entries}).encode(),
        "scratch/train-2/step-000000007/weights": b"seven",
        "failures/train-3.json": b'{"reason": "boom", "log": "logs/train-3.log", "kind": "error"}\n',
        "searches/a.jsonl": b'\n{"gamma": 0.5}\n',
    }
    for name, content in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    store = existing_store(str(tmp_path))
    assert store is not None
    assert store.done() == {"train-1"}
    assert (store.open("train-1") / "model" / "weights").read_bytes() == weights
    assert (store.summary("train-1").metrics, store.summary("train-1").commit) == ({"loss": 0.5}, "abc")
    with store.scratch("train-2") as folder:
        assert (folder / "step-000000007" / "weights").read_bytes() == b"seven"
    assert store.failures.all() == {"train-3": Failure("boom", "logs/train-3.log", "error")}
    assert store.journal("searches/a.jsonl").read() == [{"gamma": 0.5}]
    assert (store.node.logs, store.node.fingerprints) == (tmp_path / "logs", tmp_path / "fingerprints")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_text("hel"), "a.txt has 3 bytes, its manifest says 5; the folder was moved to "),
        (lambda file: (file.parents[1] / "manifest.json").write_text("{"), "manifest.json cannot be read: "),
        (lambda file: (file.parents[1] / "manifest.json").unlink(), "manifest.json is missing; the folder was moved"),
    ],
    ids=["truncated", "no manifest", "manifest gone"],
)
def test_a_damaged_folder_is_moved_away(store: FolderStore, damage: Callable[[Path], object], message: str) -> None:
    finish(store, "train-1")
    damage(store.folder("train-1") / "deep" / "a.txt")
    with pytest.raises(DamagedError, match=message):
        store.open("train-1")
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith("train-1.")


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"file/runs: cannot be used as a store: Not a directory; .*--store"):
        FolderStore(file / "runs")


def test_a_journal_that_a_kill_cut_anywhere_has_all_whole_entries_and_goes_on(tmp_path: Path) -> None:
    path, entries = tmp_path / "a.jsonl", [{"gamma": 0.5}, {"gamma": 0.25, "note": "θ"}]
    for entry in entries:
        Journal(path).append(entry)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        read = Journal(path).read()
        assert read == entries[: len(read)]
        Journal(path).append({"gamma": 0.125})
        assert Journal(path).read() == [*read, {"gamma": 0.125}]


def test_a_path_that_tables_could_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"caf\\udce9: this path is not UTF-8"):
        open_store(f"{tmp_path}/caf\udce9")
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_meant_where_no_shell_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/runs").where == str(tmp_path / "runs")
    assert existing_store("~/runs") is not None


def test_a_nodes_caches_are_in_the_home_folder_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAMREF_CACHE", "~/named")
    assert caches() == tmp_path / "named"
    monkeypatch.delenv("SAMREF_CACHE")
    assert caches() == tmp_path / ".cache" / "samref"


@pytest.mark.root
def test_a_node_whose_user_has_no_home_has_caches() -> None:
    """As in a container under a bare user number."""
    code = "import os; from samref_sweep.store.node import caches; os.setuid(54321); print(caches())"
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "SAMREF_CACHE")}
    said = subprocess.check_output([sys.executable, "-c", code], env=bare, text=True)
    assert said.strip() == f"{tempfile.gettempdir()}/.cache/samref"


def test_a_trials_leaf_is_noted_where_the_library_looks_for_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for _ in range(2):
        store.leaves.note({"trial-1": "evaluate-1", "trial-2": "evaluate-1"})
    (file,) = (tmp_path / "trials").iterdir()
    assert json.loads(file.read_text()) == {"trial-1": "evaluate-1", "trial-2": "evaluate-1"}


def test_files_that_were_hashed_when_they_were_written_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"features")
    entry = {"bytes": 8, "sha256": "as its writer found"}
    (tmp_path / "hashes.json").write_text(json.dumps({"a.npy": entry}))
    (tmp_path / "index.json").write_text("{}")
    manifest.write(tmp_path)
    files = manifest.read(tmp_path)["files"]
    assert files["a.npy"] == entry
    assert files["index.json"]["bytes"] == 2
    assert files.keys() == {"a.npy", "index.json"}
    assert "a.npy has other bytes" in str(manifest.difference(tmp_path))


@pytest.mark.parametrize("where", ["s3:/bucket/runs", "gs:/b", "file:/shared/runs"])
def test_a_uri_that_lacks_a_slash_is_no_folder(where: str) -> None:
    with pytest.raises(StoreError, match=f"^{where}: is neither a path nor a URI, which begins with [a-z0-9]+://$"):
        existing_store(where)
