"""A bundle: a sweep's results with all that it takes to read, check and repeat them, in one file that opens anywhere.

results/            the Parquet tables
page.html, tables/  what samref-dashboard makes of them
sweep/              the sweep file, and the files that it extends
claims/             the files of claims
weights/            the trained weights, where they are asked for
bundle.json         the hash of every other file; protocols, versions, ids, licences
ro-crate-metadata.json  the same for programs that read RO-Crates (https://www.researchobject.org/ro-crate)
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from samref.backbones.official import OFFICIAL
from samref.data.archives import ARCHIVES
from samref.sha256 import sha256_of
from samref.stage import WEIGHTS_FILE
from samref_sweep.errors import SpecError
from samref_sweep.record import tables
from samref_sweep.spec.file import read_layers
from samref_sweep.store.store import Store

FORMAT = 1
"""The version of a bundle's format; samref-dashboard refuses a newer one by name."""
MANIFEST, CRATE = "bundle.json", "ro-crate-metadata.json"
_FIXED = (1980, 1, 1, 0, 0, 0)
"""The time of every file: equal contents make an equal bundle."""


def write(results: Path, made: Path, out: Path, *, claims: Sequence[Path] = (), store: Store | None = None) -> int:
    """Write the bundle `out` of a folder of tables aside and rename it; gives the number of its files.

    `made` is a folder with what samref-dashboard made of them, `page.html` and `tables/`; without a store the trained
    weights are left out. Raises SpecError: the results are not a sweep's, or something that is to be in the bundle is
    not there.
    """
    try:
        trials = tables.read(str(results), "trials")
        about = json.loads((trials.schema.metadata or {})[b"samref.sweep"])
    except (OSError, KeyError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it was not written by samref-sweep"
        raise SpecError(f"{results}: is no folder of results ({reason}); name one that samref-sweep wrote") from None
    rows = trials.to_pylist()
    files = {f"results/{file.name}": file for file in sorted(results.glob("*.parquet"))}
    files |= {file.relative_to(made).as_posix(): file for file in sorted(made.rglob("*")) if file.is_file()}
    files |= {f"sweep/{number}-{file.name}": file for number, file in enumerate(_sweep_files(about["file"]))}
    files |= {f"claims/{file.name}": file for file in _present(claims)}
    if store is not None:
        stages = sorted({row["stage_train"] for row in rows if row["status"] == "done" and row["stage_train"]})
        files |= {f"weights/{stage}.safetensors": _weights(store, stage) for stage in stages}
    manifest = _manifest(about, rows, {name: sha256_of(file) for name, file in files.items()})
    texts = {MANIFEST: manifest, CRATE: _crate(manifest, {name: file.stat().st_size for name, file in files.items()})}
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in texts.items():
                text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
                archive.writestr(zipfile.ZipInfo(name, _FIXED), text, zipfile.ZIP_DEFLATED)
            for name, file in files.items():
                with (
                    archive.open(zipfile.ZipInfo(name, _FIXED), "w", force_zip64=True) as to,
                    file.open("rb") as source,
                ):
                    while block := source.read(1 << 20):
                        to.write(block)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return len(files) + len(texts)


def _sweep_files(named: str) -> list[Path]:
    """The sweep file that made results, after the files that it extends; none where it is not there any more."""
    try:
        return [Path(place.rpartition("extends ")[2]) for place, _ in read_layers(Path(named))] if named else []
    except SpecError:
        return []


def _present(files: Sequence[Path]) -> Sequence[Path]:
    for number, file in enumerate(files):
        if not file.is_file():
            raise SpecError(f"{file}: there is no such file of claims")
        if file.name in [other.name for other in files[:number]]:
            raise SpecError(f"{file}: another file of claims for this bundle has its name; rename one of them")
    return files


def _weights(store: Store, stage: str) -> Path:
    try:
        return store.file(stage, WEIGHTS_FILE)
    except FileNotFoundError:
        raise SpecError(
            f"{store.where}: has no weights of {stage}, which these results name; name their store with --store"
        ) from None


def _manifest(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What bundle.json says."""
    stages = {row[key] for row in rows for key in ("stage_train", "stage_evaluate", "stage_profile")} - {None}
    known = {row["protocol"]: json.loads(row["protocol_keys"]) for row in rows if row.get("protocol_keys")}
    return {
        "samref.bundle": FORMAT,
        "name": about["name"],
        "purpose": about.get("purpose", ""),
        "command": about.get("command", ""),
        "written": max((row["started"] for row in rows if row["started"]), default=datetime.now(UTC)).isoformat(),
        "program": f"samref-sweep {version('samref-sweep')}",
        "commits": sorted({row["commit"] for row in rows} - {None}),
        "versions": [json.loads(text) for text in sorted({row["versions"] for row in rows} - {None})],
        "protocols": known,
        "trials": [row["trial"] for row in rows],
        "stages": sorted(stages),
        "licences": _licences(rows),
        "files": dict(hashes),
    }


def _licences(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Dataset or checkpoint → its licence and page, of all that are published."""
    data = {row[key] for row in rows for key in ("train.data", "evaluate.data")} & ARCHIVES.keys()
    weights = {row["model.backbone"] for row in rows if row["model.checkpoint"] == "auto"} & OFFICIAL.keys()
    found = {name: ARCHIVES[name] for name in sorted(data)} | {name: OFFICIAL[name] for name in sorted(weights)}
    return {name: {"licence": each.licence, "page": each.page} for name, each in found.items()}


def _crate(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Describe a bundle as an RO-Crate 1.1."""
    names = [*sizes, MANIFEST]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": manifest["name"],
        "description": manifest["purpose"] or manifest["name"],
        "datePublished": manifest["written"],
        "license": "; ".join(f"{name}: {each['licence']}" for name, each in manifest["licences"].items())
        or "not stated",
        "hasPart": [{"@id": name} for name in names],
    }
    about = {"@id": CRATE, "@type": "CreativeWork", "about": {"@id": "./"}}
    conforms = {"conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}}
    parts = [
        {"@id": name, "@type": "File", "sha256": manifest["files"][name], "contentSize": str(size)}
        for name, size in sizes.items()
    ]
    graph = [about | conforms, root, *parts, {"@id": MANIFEST, "@type": "File"}]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
