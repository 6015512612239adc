"""Official checkpoints in a sweep: planned for, downloaded before anything runs, and refused in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from web import Web, serving

import samref_sweep
from samref import backbones
from samref.backbones.checkpoints import PACKAGED
from samref.backbones.official import OFFICIAL, Official
from samref.download import Source
from samref_sweep.cli.commands import main, trial_main

SWEEP = """
purpose: weights that are not here yet
trial:
  model: {backbone: sam_vit_b, refiner: none}
  train: null
  evaluate: {data: shapes, samples: 2, max_clicks: 2}
  profile: null
"""
FILE = "tiny_official.pth"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the checkpoints, empty; beside it the sweep's file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMREF_CHECKPOINTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("sweep.yaml").write_text(SWEEP)
    return tmp_path / "weights"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Serves real weights of `tiny`, which is an official checkpoint like SAM's as long as the test runs."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    torch.save(backbones.build("tiny", seed=7).state_dict(), tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    with serving() as server:
        server.files[f"/{FILE}"] = content
        source = Source(address=server.at(f"/{FILE}"), size=len(content))
        official = Official(file=FILE, page="https://example.org", licence="Apache-2.0", source=source)
        monkeypatch.delitem(PACKAGED, "tiny")
        monkeypatch.setitem(OFFICIAL, "tiny", official)
        yield server


TINY = ("--set", "model.backbone=tiny")


def test_a_plan_tells_what_would_be_downloaded_and_downloads_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = "model.backbone=[sam_vit_b, sam_vit_h, segnext_vit_b_sax1, tiny]"
    assert main(["sweep.yaml", "--plan", "--set", several]) == 0
    told = capsys.readouterr().out
    assert f"a run downloads 2.94 GB to {folder} first: sam_vit_b_01ec64.pth, sam_vit_h_4b8939.pth\n" in told
    assert f"vitb_sa1_cocolvis_epoch_90.pth is not in {folder}; get it at https://github.com/uncbiag/SegNext\n" in told
    assert main(["sweep.yaml", "--plan", "--set", "model.checkpoint=none"]) == 0
    assert "downloads" not in capsys.readouterr().out
    assert not folder.exists()


def test_a_run_downloads_first(web: Web, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web.break_after = [1000]  # the connection drops
    assert trial_main(["sweep.yaml", *TINY]) == 0
    assert "noc_at_90" in capsys.readouterr().out
    assert (folder / FILE).read_bytes() == web.files[f"/{FILE}"]
    assert [entry.get("Range") for entry in web.asked] == [None, "bytes=1000-"]
    # Nothing is left to do: nothing is needed, though the file is gone.
    (folder / FILE).unlink()
    assert main(["sweep.yaml", *TINY, "--plan"]) == 0
    assert "downloads" not in capsys.readouterr().out
    assert len(web.asked) == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "the server answered 404 Not Found"),
        (b"<html>Sign in</html>", "bytes instead of"),
        (b"\0" * 20, "bytes instead of"),
    ],
)
def test_what_cannot_be_had_is_one_line_before_anything_runs(
    web: Web, folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, text: str
) -> None:
    if content is None:
        web.files.clear()
    else:
        web.files[f"/{FILE}"] = content
    assert main(["sweep.yaml", *TINY]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: tiny: {web.at(f'/{FILE}')}: ")
    assert text in line
    assert f"By hand: put {web.at(f'/{FILE}')} into {folder}" in line
    assert not list(Path("runs").glob("stages/*"))


def test_what_a_person_has_to_fetch_is_told_before_a_download(
    web: Web, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep.yaml", "--set", "model.backbone=[tiny, segnext_vit_b_sax2]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"vitb_sa2_cocolvis_epoch_90.pth is not in {folder}; get it at https://github.com/uncbiag/SegNext" in line
    assert web.asked == []


def test_without_a_network_it_is_one_line(folder: Path) -> None:
    """The real command and SAM's real address, behind a proxy that does not answer."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code = "import sys; from samref_sweep.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, "sweep.yaml"],
            env={**os.environ, "https_proxy": proxy, "no_proxy": ""},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    address = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: sam_vit_b: {address}: cannot be reached (Connection refused)")
    assert f"By hand: put {address} into {folder}, or set model.checkpoint to none for random weights" in line


def test_a_plan_says_what_is_taken_off_a_file_and_refuses_another(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is relative to where the sweep is planned; a stage runs with the file, wherever it runs."""
    state = backbones.build("tiny", seed=7).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, "own.pth")
    torch.save(backbones.build("tiny"), "whole.pth")
    own = (*TINY, "--set", "model.checkpoint=own.pth")
    assert main(["sweep.yaml", *own, "--plan"]) == 0
    said = f"{Path('own.pth').absolute()}: read from its entry state_dict; the prefix module. is taken off all names"
    assert said in " ".join(capsys.readouterr().out.split())
    assert main(["sweep.yaml", *TINY, "--set", "model.checkpoint=whole.pth", "--plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: {Path('whole.pth').absolute()} cannot be read as a checkpoint: it holds an object of"
    )
    assert line.endswith("save the weights alone: torch.save(model.state_dict(), 'weights.pth')")
    settings = ["model.backbone=tiny", "model.checkpoint=own.pth"]
    planned = samref_sweep.plan(samref_sweep.read("sweep.yaml", settings))
    monkeypatch.chdir(folder.parent.parent)
    assert {stage.config["model"]["checkpoint"] for stage in planned.plan.stages.values()} == {said.partition(":")[0]}
    assert planned.notes[-1] == said
