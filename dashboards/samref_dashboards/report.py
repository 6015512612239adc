"""`samref-dashboard`: one self-contained HTML page from results folders, or their tables and figures as files.

The page works from `file://` with the network off: scripts are inlined, a content security policy forbids
every request, and all numbers stand in tables that need no script.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from samref.command_line import Parser, command
from samref.errors import UserError
from samref.user_paths import expanded
from samref_dashboards import bundles, claims, explore, exports, html
from samref_dashboards.content import Content, gather
from samref_dashboards.fetch import fetch
from samref_dashboards.figure_kit import Figure
from samref_dashboards.load import ResultsError, load

MAX_BLOCK_ROWS = 400
"""Rows of a table of several blocks in a page; --tables writes all."""
WATCH_SECONDS = 5.0
"""Between two looks at the files; the page looks for itself as often."""
_BUNDLE = "import sys, vl_convert; text = vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'); "
_BUNDLE += "sys.stdout.buffer.write(text.encode())"  # whatever the terminal's encoding is


def build(content: Content, *, refresh_seconds: float | None = None) -> str:
    """Make the page as text; with `refresh_seconds` it loads itself again as often."""
    return html.render(
        content=content,
        sections=[each if isinstance(each, Figure) else each.limited(MAX_BLOCK_ROWS) for each in content.sections],
        specs=[panel.spec for figure in content.figures for panel in figure.panels],
        # One bundle draws all charts; it is left out of pages that have none.
        bundle=_bundle() if content.figures else "",
        refresh_seconds=refresh_seconds,
    )


@functools.cache
def _bundling() -> subprocess.Popen[str]:
    """Vega as one script takes seconds to make and holds Python's lock: another process does it meanwhile."""
    # Should this process stop before the script is needed, the other one's complaint is nobody's business.
    command, quiet = [sys.executable, "-c", _BUNDLE], subprocess.DEVNULL
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True, encoding="utf-8")


@functools.cache
def _bundle() -> str:
    text, _ = _bundling().communicate()
    if not text:
        raise RuntimeError("vl_convert made no script; run it by hand: python -c " + repr(_BUNDLE))
    return text


def parser() -> argparse.ArgumentParser:
    """Declare the command's options."""
    made = Parser(prog="samref-dashboard", description="One HTML page from results folders; several are compared.")
    made.add_argument("--version", action="version", version=f"%(prog)s {version('samref-sweep')}")
    made.add_argument("results", nargs="+", metavar="RESULTS", help="folder that samref-sweep wrote, or s3://…")
    file: dict[str, Any] = {"type": expanded, "metavar": "FILE"}
    several: dict[str, Any] = {"action": "append", "default": []}
    made.add_argument("--out", **file, help="page to write (default: RESULTS/dashboard.html)")
    made.add_argument("--no-open", action="store_true", help="write the page, open no browser")
    what = made.add_mutually_exclusive_group()
    tables = "write Markdown, CSV, LaTeX, SVG and PDF there instead of a page"
    what.add_argument("--tables", type=expanded, metavar="DIR", help=tables)
    baseline = "what differences are to: a value of an axis (repeatable), or a trial's id "
    baseline += "(default: the first axis' first value)"
    made.add_argument("--baseline", **several, metavar="KEY=VALUE", help=baseline)
    made.add_argument("--published", **file, **several, help="more published rows (docs/citing.md)")
    made.add_argument("--json", action="store_true", help="with --claims: say it as JSON")
    judging = "judge the claims of a YAML file: exit code 0 all pass, 1 one fails, 3 not all could be compared"
    what.add_argument("--claims", **file, action="append", help=judging)
    what.add_argument("--watch", action="store_true", help="write the page again whenever the tables change")
    what.add_argument("--explore", action="store_true", help="open a marimo notebook on the tables instead")
    return made


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as copies:
            wants_page = not options.tables or options.out is not None
            options.results = _here(options, Path(copies))
            if options.explore:
                return explore.open_notebook(options.results)
            if options.claims:
                judgements = claims.judge(load(options.results), options.claims)
                print(claims.to_json(judgements) if options.json else "\n".join(each.text for each in judgements))
                return claims.exit_code(judgements)
            if options.tables:
                content = gather(load(options.results), baseline=options.baseline, more_published=options.published)
                print(f"{options.tables}: {len(exports.write(content, options.tables))} files")
            return _write_page(options) if wants_page else 0
    except (ResultsError, OSError) as error:
        reason = str(error)
    except (duckdb.InvalidInputException, duckdb.IOException) as error:
        # Its footer is whole, or load() would have named it; DuckDB says `clicks_0` for the first folder's.
        folders = ", ".join(map(str, options.results))
        reason = f"{folders}: a Parquet file is damaged ({str(error).splitlines()[0]})"
    print(f"samref-dashboard: {UserError(reason)}", file=sys.stderr)
    return 2


def _here(options: argparse.Namespace, copies: Path) -> list[Path]:
    """The results folders; those at URIs are copied."""
    for uri in (where for where in options.results if "://" in where):
        if options.watch:
            raise ResultsError(f"{uri}: --watch looks at folders of this machine")
        if not (options.out or options.tables or options.explore or options.claims):
            raise ResultsError(f"{uri}: say where the page goes with --out FILE")
    if len(options.results) == 1 and options.results[0].endswith(".zip"):
        options.out = options.out or Path(options.results[0]).with_suffix(".html")
    return [_one_here(where, copies) for where in options.results]


def _one_here(where: str, copies: Path) -> Path:
    if "://" in where:
        return fetch(where, copies)
    return bundles.opened(Path(where), copies) if Path(where).suffix == ".zip" else expanded(where)


def _write_page(options: argparse.Namespace) -> int:
    if options.out is None and len(options.results) > 1:
        raise ResultsError(f"{len(options.results)} results folders are one page: say where with --out FILE")
    out: Path = options.out or options.results[0] / "dashboard.html"
    if out.is_dir():
        raise ResultsError(f"{out}: is a folder; --out names the page")
    if options.watch:
        return _watch(options, out)
    _write(options, out, None)
    if not options.no_open and _has_display():
        webbrowser.open(out.resolve().as_uri())
    return 0


def _write(options: argparse.Namespace, out: Path, refresh_seconds: float | None) -> None:
    results = load(options.results)
    _bundling()
    content = gather(results, baseline=options.baseline, more_published=options.published)
    text = build(content, refresh_seconds=refresh_seconds)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(out)
    print(f"{out} ({len(text.encode()) / 1e6:.1f} MB)", flush=True)


def _watch(options: argparse.Namespace, out: Path) -> int:
    """Write the page whenever a table changes, until Ctrl-C; what cannot be read yet is said and tried again."""
    seen, said, opened = None, "", options.no_open or not _has_display()
    try:
        while True:
            now = _state(options.results)
            if now != seen:
                # Read before the tables are: what changes meanwhile is another change.
                seen = now
                try:
                    _write(options, out, WATCH_SECONDS)
                    said = ""
                except (ResultsError, duckdb.Error) as error:
                    if str(error) != said:
                        said = str(error)
                        print(f"samref-dashboard: {said}; waiting", file=sys.stderr, flush=True)
                else:
                    if not opened:
                        opened = webbrowser.open(out.resolve().as_uri())
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _state(folders: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Name, time and size of every table."""
    files = [file for folder in folders for place in ("", "*/") for file in sorted(folder.glob(f"{place}*.parquet"))]
    return [(str(file), about.st_mtime_ns, about.st_size) for file in files for about in [file.stat()]]


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
