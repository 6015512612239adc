"""Official checkpoints: the table, the download, and what is found wrong with a file ever after."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from web import Web, serving

from samref import backbones
from samref.backbones import checkpoints
from samref.backbones.checkpoints import CheckpointError
from samref.backbones.official import OFFICIAL, Official
from samref.config import ModelConfig, Runtime
from samref.download import Source

MODEL = ModelConfig(backbone="tiny")
FILE = "tiny_official.pth"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server that has real weights of `tiny`, which is an official checkpoint like SAM's as long as the test runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("samref.download.PAUSE_SECONDS", 0.0)
    file = tmp_path / "published.pth"
    torch.save(backbones.build("tiny", seed=7).state_dict(), file)
    with serving() as server:
        server.files[f"/{FILE}"] = file.read_bytes()
        publish(monkeypatch, Source(address=server.at(f"/{FILE}"), size=file.stat().st_size, sha256=sha256(file)))
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def publish(monkeypatch: pytest.MonkeyPatch, source: Source | None) -> None:
    official = Official(file=FILE, page="https://example.org/tiny", licence="Apache-2.0", source=source)
    monkeypatch.delitem(checkpoints.PACKAGED, "tiny", raising=False)
    monkeypatch.setitem(OFFICIAL, "tiny", official)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.obtain(MODEL, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_table() -> None:
    assert set(OFFICIAL) == set(backbones.names()) - {"tiny"}
    for name, official in OFFICIAL.items():
        assert official.page.startswith("https://")
        assert official.licence in ("Apache-2.0", "MIT")
        source = official.source
        assert (source is None) == name.startswith("segnext")
        if source is not None:
            assert source.name == official.file
            assert source.address.startswith("https://")
            assert re.fullmatch("[0-9a-f]{64}", source.sha256 or "")
    with torch.device("meta"):
        for name in ("sam_vit_b", "sam_vit_l", "sam_vit_h"):
            source = OFFICIAL[name].source
            assert source is not None
            assert source.size is not None
            weights = sum(value.numel() * value.element_size() for value in backbones.build(name).state_dict().values())
            assert weights < source.size < weights * 1.001


def test_downloaded_once_and_loaded(web: Web, folder: Path) -> None:
    web.break_after = [1000]  # the connection drops in the middle
    assert checkpoints.missing(MODEL, folder) == OFFICIAL["tiny"]
    told: list[int] = []
    path = checkpoints.obtain(MODEL, folder, lambda done, total: told.append(done))
    assert path == folder / FILE
    assert told[-1] == path.stat().st_size
    expected = backbones.build("tiny", seed=7).state_dict()
    loaded = backbones.build("tiny", checkpoint=path).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())
    assert (folder / f"{FILE}.sha256").read_text() == f"{sha256(path)}  {FILE}\n"
    assert checkpoints.missing(MODEL, folder) is None
    assert checkpoints.obtain(MODEL, folder) == checkpoints.locate(MODEL, folder) == path
    assert len(web.asked) == 2


def test_locating_and_fingerprints_download_nothing(web: Web, folder: Path) -> None:
    assert checkpoints.fingerprint(MODEL, folder) == FILE
    with pytest.raises(CheckpointError, match=rf"{FILE} is not in .*samref-data download tiny fetches it"):
        checkpoints.locate(MODEL, folder)
    for model in (MODEL.model_copy(update={"checkpoint": "none"}), ModelConfig(backbone="tiny", checkpoint="x.pth")):
        assert checkpoints.missing(model, folder) is None
    assert web.asked == []
    assert not folder.exists()


def test_a_file_brought_by_hand_must_be_the_official_one(web: Web, folder: Path) -> None:
    folder.mkdir()
    path, body = folder / FILE, web.files[f"/{FILE}"]
    for content, text in (
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page; it is not the official file"),
        (body[:-1], f"has {len(body) - 1} bytes instead of {len(body)}"),
        (bytes(len(body)), "is not the official file, or damaged: its SHA-256 is"),
    ):
        path.write_bytes(content)
        said = refused(folder)
        assert said.startswith(str(path))
        assert text in said
    path.write_bytes(body)
    assert checkpoints.obtain(MODEL, folder) == path
    assert web.asked == []


def test_without_a_published_hash_the_first_sight_counts(
    web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, None)
    assert "is not in" in (said := refused(folder))
    assert "get it at https://example.org/tiny (SAMREF_CHECKPOINTS names another folder)" in said
    folder.mkdir()
    path = folder / FILE
    path.write_bytes(web.files[f"/{FILE}"])
    assert checkpoints.obtain(MODEL, folder) == path
    path.write_bytes(bytes(len(web.files[f"/{FILE}"])))
    assert "has changed: its SHA-256 is" in refused(folder)
    (folder / f"{FILE}.sha256").unlink()
    assert checkpoints.obtain(MODEL, folder) == path


def test_a_file_is_hashed_again_only_when_size_or_time_changed(web: Web, folder: Path) -> None:
    path = checkpoints.obtain(MODEL, folder)
    assert path is not None
    status = path.stat()
    body = path.read_bytes()
    path.write_bytes(bytes(len(body)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert checkpoints.locate(MODEL, folder) == path  # nothing tells it: this is the price of not reading gigabytes
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(CheckpointError, match="not the official file, or damaged"):
        checkpoints.locate(MODEL, folder)


def test_what_goes_wrong_on_the_way_is_one_line(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OFFICIAL["tiny"].source
    assert source is not None
    web.content_type = "text/html"
    assert "answered with a web page instead of the file" in refused(folder)
    web.content_type = "application/octet-stream"
    publish(monkeypatch, dataclasses.replace(source, address=web.at("/gone.pth")))
    assert "the server answered 404" in refused(folder)
    publish(monkeypatch, dataclasses.replace(source, sha256="0" * 64))
    assert "0000000000000000…; removed: it was changed on its way, or at its place" in refused(folder)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/{FILE}"
        publish(monkeypatch, dataclasses.replace(source, address=address))
        said = refused(folder)
    assert said.startswith(f"tiny: {address}: cannot be reached")
    assert f"By hand: put {address} into {folder}, or set model.checkpoint to none" in said
    assert list(folder.iterdir()) == []


def test_published_weights_of_another_shape_are_refused(web: Web, folder: Path) -> None:
    path = checkpoints.obtain(MODEL, folder)
    state = backbones.build("tiny").state_dict()
    assert path is not None
    torch.save({**state, "mask_decoder.iou_token.weight": torch.zeros(1, 7)}, path)
    with pytest.raises(CheckpointError, match="has shape"):
        backbones.build("tiny", checkpoint=path)


def test_relative_paths_are_those_of_the_process_that_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAMREF_CHECKPOINTS", "weights")
    assert Runtime().checkpoints == tmp_path / "weights"
    monkeypatch.setenv("SAMREF_CHECKPOINTS", "~/weights")
    assert Runtime().checkpoints == tmp_path / "home" / "weights"
    monkeypatch.delenv("SAMREF_CHECKPOINTS")
    assert Runtime().checkpoints == tmp_path / "home" / ".cache" / "samref" / "checkpoints"
    for name, found in (("a.pth", tmp_path / "a.pth"), ("~/a.pth", tmp_path / "home" / "a.pth")):
        assert checkpoints.given(ModelConfig(checkpoint=name)) == found
    for name in ("nowhere.pth", ".", "~nobody-known/a.pth", "a" * 600, "a/" * 3000, "nul\0"):
        with pytest.raises(CheckpointError, match="is not a file; give a file, auto, or none"):
            checkpoints.fingerprint(ModelConfig(checkpoint=name), tmp_path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"model": Attack()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        backbones.build("tiny", checkpoint=tmp_path / "weights.pth")
    assert not (tmp_path / "attacked").exists()


def test_a_web_page_given_as_a_path_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("\n <!doctype html><title>Too many requests</title>")
    with pytest.raises(CheckpointError, match="it is a web page, not a checkpoint; fetch it again"):
        backbones.build("tiny", checkpoint=path)
