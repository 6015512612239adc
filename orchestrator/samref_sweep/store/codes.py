"""Which code made which stage, noted beside the stages so that ten thousand are looked up without opening one.

STORE/code/<digest>.json          the modules of one state of the code, each with its digest
STORE/code/<digest>/<stage id>    empty: this code set out to make this stage; of several, the newest counts
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from samref.stage import digest

Code = Mapping[str, str]
"""Module → its digest (`samref.source.code_of`)."""


class Codes(Protocol):
    """The notes of a store on the code that made its stages."""

    def note(self, stage_id: str, code: Code) -> None:
        """Write down that this code is about to make a stage, which is not done."""

    def all(self) -> dict[str, Code]:
        """Stage id → the code that made it, or was to; nothing of stages from before notes were taken."""


class FolderCodes:
    """The `Codes` of a store in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, stage_id: str, code: Code) -> None:
        about = self._folder / f"{digest('code', code)}.json"
        about.with_suffix("").mkdir(parents=True, exist_ok=True)
        if not about.exists():
            aside = about.with_suffix(f".{os.getpid()}")
            aside.write_text(json.dumps(code, indent=1) + "\n")
            aside.replace(about)
        (about.with_suffix("") / stage_id).touch()

    def all(self) -> dict[str, Code]:
        notes = []
        for about in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                code = json.loads(about.read_text())
                with os.scandir(about.with_suffix("")) as entries:
                    notes += [(entry.stat().st_mtime_ns, entry.name, code) for entry in entries]
        return {stage_id: code for _, stage_id, code in sorted(notes, key=lambda note: note[0])}
