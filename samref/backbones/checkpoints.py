"""Where a backbone's first weights come from: an official checkpoint, a file, or a seed."""

import contextlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from samref.backbones.official import OFFICIAL, Official
from samref.config import ModelConfig
from samref.download import DownloadError, download
from samref.errors import UserError
from samref.plugins import is_hugging_face, is_plugin
from samref.progress import OnProgress, silent
from samref.sha256 import sha256_of
from samref.user_paths import absolute, home

# Weights that come with this package, made by this project (sweeps/tiny.yaml, pack_tiny.py).
PACKAGED = {"tiny": Path(__file__).with_name("tiny.safetensors")}


class CheckpointError(UserError, ValueError):
    """A checkpoint is missing or broken; one line that names the file and says what to do."""


def given(model: ModelConfig) -> Path | None:
    """The file that `model.checkpoint` names, by its absolute path; None: it names none."""
    return None if model.checkpoint in ("auto", "none") else absolute(model.checkpoint)


def locate(model: ModelConfig, folder: Path) -> Path | None:
    """The file of a model's first weights; None: random weights, or those with which a plug-in builds itself.

    Raises CheckpointError: the file is not there, or not the one that its name promises.
    """
    if model.checkpoint == "none":
        return None
    if (path := given(model)) is not None:
        if not os.path.isfile(path):  # noqa: PTH113 (unlike Path's own, it is of names that are too long, too)
            raise CheckpointError(
                f"model.checkpoint: {path} is not a file; give a file, auto, or none (random weights)"
            )
        return path
    if model.backbone in PACKAGED:
        return PACKAGED[model.backbone]
    if is_plugin(model.backbone):
        return None
    official = OFFICIAL.get(model.backbone)
    if official is None:
        raise CheckpointError(
            f"{model.backbone} has no official weights: set model.checkpoint to a file, or to none for random weights"
        )
    path = folder / official.file
    if not path.is_file():
        get = f"samref-data download {model.backbone} fetches it" if official.source else f"get it at {official.page}"
        raise CheckpointError(
            f"{model.backbone}: its checkpoint {path.name} is not in {folder}; {get} (SAMREF_CHECKPOINTS names another "
            "folder), or set model.checkpoint to none for random weights"
        )
    _verify(official, path)
    return path


def missing(model: ModelConfig, folder: Path) -> Official | None:
    """The official checkpoint that a model needs and `folder` has not; None: nothing is missing."""
    official = OFFICIAL.get(model.backbone) if model.checkpoint == "auto" else None
    return None if official is None or (folder / official.file).is_file() else official


def downloadable(model: ModelConfig, folder: Path) -> bool:
    """Whether `obtain` would download."""
    lacking = missing(model, folder)
    return lacking is not None and lacking.source is not None


def obtain(model: ModelConfig, folder: Path, progress: OnProgress = silent) -> Path | None:
    """`locate`, after an official checkpoint that is not here yet was downloaded.

    progress: told bytes so far, of how many. Raises CheckpointError: as `locate`, or it cannot be downloaded.
    """
    lacking = missing(model, folder)
    if lacking and lacking.source:
        path = folder / lacking.file
        try:
            _remember(path, download(lacking.source, path, progress))
        except DownloadError as error:
            raise CheckpointError(
                f"{model.backbone}: {error}. By hand: put {lacking.source.address} into {folder}, or set "
                "model.checkpoint to none for random weights"
            ) from error
    return locate(model, folder)


def fingerprint(model: ModelConfig, folder: Path) -> str:
    """What a model's first weights are: `random:SEED`, an official file's name, a file's SHA-256, or of a plug-in those
    with which its `build` returns, `built:SEED`. Raises CheckpointError: `model.checkpoint` names a file that is not
    there, or cannot be read; or a network of Hugging Face's is to have other weights than its folder's.
    """
    if is_hugging_face(model.backbone) and model.checkpoint != "auto":
        raise CheckpointError(
            f"model.checkpoint: {model.backbone} has its weights in its folder; leave checkpoint at auto, or save "
            "other weights to another folder with save_pretrained"
        )
    if model.checkpoint == "auto" and model.backbone in OFFICIAL:
        return OFFICIAL[model.backbone].file  # the same whether it is here yet or not
    path = locate(model, folder)
    try:
        how = "random" if model.checkpoint == "none" else "built"
        return f"{how}:{model.seed}" if path is None else f"sha256:{file_digest(path)}"
    except OSError as error:
        raise CheckpointError(
            f"model.checkpoint: {path} cannot be read ({error.strerror}); make it readable"
        ) from error


def _verify(official: Official, path: Path) -> None:
    """Compare an official file with what was published, or else with what it was when it was first seen."""
    known, size = official.source, path.stat().st_size
    if known and known.size not in (None, size):
        what = "is a web page" if is_page(path) else f"has {size} bytes instead of {known.size}"
        raise CheckpointError(f"{path} {what}; it is not the official file: remove it, and the next run fetches it")
    digest = file_digest(path)
    if known and known.sha256 not in (None, digest):
        raise CheckpointError(
            f"{path} is not the official file, or damaged: its SHA-256 is {digest[:16]}… instead of "
            f"{known.sha256[:16]}…; remove it, and the next run fetches it"
        )
    note = path.with_name(f"{path.name}.sha256")
    try:
        seen = note.read_text().partition(" ")[0].strip()
    except OSError:
        _write(note, f"{digest}  {path.name}\n")  # as sha256sum -c reads it
        return
    if seen != digest:
        raise CheckpointError(
            f"{path} has changed: its SHA-256 is {digest[:16]}…, and was {seen[:16]}… when it was first seen; bring "
            f"the old file back, or remove {note.name} if the new one is right (and use another --store: results of "
            "the old one would be taken for its own)"
        )


def is_page(path: Path) -> bool:
    """Whether a file is a web page: what a proxy or a login gave in place of a checkpoint."""
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, computed only where its place, size or time is new; so are its own checksums compared."""
    known, key = _hashes(path)
    if key not in known:
        if damaged := _damaged_entry(path):
            raise CheckpointError(f"{path} is damaged: the checksum of its entry {damaged} is wrong; fetch it again")
        known[key] = sha256_of(path)
        _write(_cache(), json.dumps(known))
    return str(known[key])


def _damaged_entry(path: Path) -> str | None:
    """An entry of a torch.save file whose bytes are not those that were saved; torch.load does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            first = archive.namelist()[0]
            archive.read(first)  # fails where none are right: torch.serialization.set_crc32_options(False)
            return archive.testzip()
    except (zipfile.BadZipFile, IndexError, RuntimeError):  # none that can be read so
        return None


def _remember(path: Path, digest: str) -> None:
    known, key = _hashes(path)
    _write(_cache(), json.dumps({**known, key: digest}))


def _hashes(path: Path) -> tuple[dict[str, Any], str]:
    stat = path.stat()
    try:
        known = json.loads(_cache().read_text())
    except (OSError, ValueError):
        known = {}
    return known, f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "samref" / "checkpoint-hashes.json"


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # where nothing can be written it only costs hashing again
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text)
        aside.replace(path)
