"""What a store on object storage notes beside its stages: why some failed, and which code made them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from samref.stage import digest
from samref_sweep.errors import StoreError
from samref_sweep.failures import Failure
from samref_sweep.store.bucket import Bucket
from samref_sweep.store.codes import Code


class BucketFailures:
    """The `Failures` of a store on object storage, an object each."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def remember(self, stage_id: str, failure: Failure) -> None:
        self._bucket.write(f"failures/{stage_id}.json", json.dumps(asdict(failure)).encode())

    def all(self) -> dict[str, Failure]:
        done, remembered = self._bucket.list("done"), {}
        for name in self._bucket.list("failures").keys() - done.keys():
            with suppress(FileNotFoundError):  # another driver forgot it meanwhile
                told = json.loads(self._bucket.read(f"failures/{name}"))
                remembered[name.removesuffix(".json")] = Failure(**told)
        return remembered

    def forget(self, stage_ids: Iterable[str]) -> None:
        for name in self._bucket.list("failures").keys() & {f"{stage_id}.json" for stage_id in stage_ids}:
            self._bucket.remove(f"failures/{name}")

    def keep_log(self, path: Path) -> str:
        """Upload the log of work that failed; it stays on its node if it cannot be uploaded."""
        name = f"logs/{path.name}"
        try:
            self._bucket.put(path, name)
        except (FileNotFoundError, StoreError):
            return str(path)
        return f"{self._bucket.where}/{name}"


class BucketCodes:
    """The `Codes` of a store on object storage, in objects of the same names."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def note(self, stage_id: str, code: Code) -> None:
        name = f"code/{digest('code', code)}"
        if not self._bucket.has(f"{name}.json"):
            self._bucket.write(f"{name}.json", json.dumps(code).encode())
        self._bucket.write(f"{name}/{stage_id}", b"")

    def all(self) -> dict[str, Code]:
        notes = []
        for about in self._bucket.list("code"):
            with suppress(FileNotFoundError, ValueError):
                code = json.loads(self._bucket.read(f"code/{about}"))
                made = self._bucket.list(f"code/{about.removesuffix('.json')}")
                notes += [(when, stage_id, code) for stage_id, when in made.items()]
        return {stage_id: code for _, stage_id, code in sorted(notes, key=lambda note: note[0])}
