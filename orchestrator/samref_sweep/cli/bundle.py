"""The commands `samref-sweep bundle` (results in one file) and `samref-sweep prune` (what nobody needs, removed)."""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from samref.command_line import Parser
from samref.progress import readable_size
from samref.user_paths import expanded
from samref_sweep import driver
from samref_sweep.cli.options import add_data_root, add_version_and_completion
from samref_sweep.errors import SpecError, StoreError
from samref_sweep.store.opening import existing_store


def bundle_parser() -> argparse.ArgumentParser:
    """The options of `samref-sweep bundle`."""
    parser = Parser(
        prog="samref-sweep bundle", description="Results, page, sweep file, claims and licences in one file."
    )
    parser.add_argument("results", metavar="RESULTS", type=expanded, help="folder that samref-sweep wrote")
    parser.add_argument("--out", metavar="FILE.zip", type=expanded, help="the bundle (RESULTS.zip)")
    parser.add_argument("--claims", metavar="FILE", type=expanded, action="append", default=[], help="claims to put in")
    parser.add_argument("--weights", action="store_true", help="put the trained weights in, from the store")
    parser.add_argument("--store", metavar="DIR|URI", default="runs", help="finished stages (runs)")
    add_version_and_completion(parser)
    return parser


def prune_parser() -> argparse.ArgumentParser:
    """The options of `samref-sweep prune`."""
    parser = Parser(
        prog="samref-sweep prune", description="Show, then remove, finished stages that none of the sweeps needs."
    )
    parser.add_argument(
        "sweeps", metavar="SWEEP.yaml", type=expanded, nargs="+", help="the sweeps whose stages are kept"
    )
    parser.add_argument("--store", metavar="DIR", default="runs", help="finished stages (runs)")
    add_data_root(parser)
    parser.add_argument(
        "--yes", action="store_true", help="remove them; without it they are shown, and nothing is done"
    )
    add_version_and_completion(parser)
    return parser


def bundle(arguments: Sequence[str]) -> int:
    """Carry out `samref-sweep bundle`."""
    options = bundle_parser().parse_args(arguments)
    from samref_dashboards import report  # imports duckdb
    from samref_sweep.record.bundle import write

    out: Path = options.out or options.results.with_name(f"{options.results.absolute().name}.zip")
    if out.is_dir():
        raise SpecError(f"{out}: is a folder; --out names the bundle")
    store = existing_store(options.store) if options.weights else None
    if options.weights and store is None:
        raise StoreError(f"{options.store}: there is no store, which has the weights; name it with --store")
    with tempfile.TemporaryDirectory() as folder:
        made, where = Path(folder), str(options.results)
        with contextlib.redirect_stdout(io.StringIO()):  # where it wrote them is no place to look
            code = report.main([where, "--out", str(made / "page.html"), "--tables", str(made / "tables"), "--no-open"])
        if code:
            return code
        number = write(options.results, made, out, claims=options.claims, store=store)
    print(f"bundle:    {out} ({number} files, {readable_size(out.stat().st_size)}); samref-dashboard {out} opens it")
    return 0


def prune(arguments: Sequence[str]) -> int:
    """Carry out `samref-sweep prune`."""
    options = prune_parser().parse_args(arguments)
    store = existing_store(options.store)
    if store is None or store.shared is None:
        raise StoreError(f"{options.store}: is no store in a folder; prune removes folders")
    needed: set[str] = set()
    for file in options.sweeps:
        planned = driver.plan(driver.read(file, ()), store=store, data_root=options.data_root)
        if planned.contents.missing:
            raise SpecError(
                f"{file}: {next(iter(planned.contents.missing.values()))}; without it nobody knows its stages"
            )
        needed |= planned.plan.stages.keys()
    unneeded = sorted(store.done() - needed)
    sizes = {
        stage: sum(file.stat().st_size for file in (store.shared / "stages" / stage).iterdir()) for stage in unneeded
    }
    for stage in unneeded:
        print(f"{stage:<24} {readable_size(sizes[stage])}")
    what = f"{len(unneeded)} of {len(store.done())} finished stages, {readable_size(sum(sizes.values()))}"
    sweeps = f"needed by none of {len(options.sweeps)} sweeps"
    if not options.yes:
        print(f"{what}, {sweeps}; --yes removes them", file=sys.stderr)
        return 0
    store.supersede(unneeded)  # at once for whoever looks; then the bytes
    for stage in unneeded:
        shutil.rmtree(store.shared / "replaced" / stage, ignore_errors=True)
    print(f"removed: {what}, {sweeps}")
    return 0
