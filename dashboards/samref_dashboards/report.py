"""`samref-dashboard`: one self-contained HTML page from results folders.

The page works from `file://` with the network off: scripts are inlined, a content security policy forbids
every request, and all numbers stand in tables that need no script.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import duckdb
import jinja2
import vl_convert

from samref_dashboards import axes, figures, overview, paper, queries, tables, theme
from samref_dashboards.load import Results, ResultsError, load

HARDEST = 12
"""Objects in the table of the hardest."""


def build(results: Results) -> str:
    """The page as text."""
    design = axes.find(results)
    queries.prepare(results.sql, design.groups)
    drawn = [
        figures.click_curves(design, queries.miou_curves(results.sql)),
        *(figures.noc_by_axis(design, axis) for axis in design.axes if axis != axes.DATA),
        figures.training(design, queries.training_curves(results.sql)),
    ]
    shown = [figure for figure in drawn if figure is not None]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samref_dashboards", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        sweeps=results.sweeps,
        coverage=overview.coverage(results),
        best=overview.best(design),
        num_random=sum(bool(trial["random_weights"]) for trial in results.trials),
        num_trials=len(results.trials),
        design=design,
        theta=tables.theta(design),
        trials=tables.trials(results, design) if results.trials else None,
        cost=tables.cost(results),
        hardest=tables.hardest(queries.hardest(results.sql, HARDEST)),
        figures=shown,
        provenance=overview.provenance(results),
        specs=[panel.spec for figure in shown for panel in figure.panels],
        chart_config=theme.CHART_CONFIG,
        # One bundle draws all charts; it is left out of pages that have none.
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;") if shown else "",
        light=theme.LIGHT,
        dark=theme.DARK,
        random_mark=tables.RANDOM,
        paper_source=paper.THETA_SOURCE,
        sparkline=sparkline,
    )


def sparkline(curve: queries.Curve, width: int = 108, height: int = 22) -> str:
    """SVG path of IoU (0 to 1) over clicks."""
    last = max(x for x, _ in curve)
    scale = (width - 4) / max(1.0, last - 1)
    points = [f"{2 + (x - 1) * scale:.1f},{height - 2 - y * (height - 4):.1f}" for x, y in curve]
    return "M" + "L".join(points)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="samref-dashboard", description="One HTML page from results folders.")
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folder that samref-sweep wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write (default: RESULTS/dashboard.html)")
    parser.add_argument("--no-open", action="store_true", help="write the page, open no browser")
    options = parser.parse_args(arguments)
    try:
        if options.out is None and len(options.results) > 1:
            raise ResultsError(f"{len(options.results)} results folders are one page: say where with --out FILE")
        out: Path = options.out or options.results[0] / "dashboard.html"
        text = build(load(options.results))
        _write(out, text)
    except (ResultsError, OSError) as error:
        return _refuse(str(error))
    except (duckdb.InvalidInputException, duckdb.IOException) as error:
        # Its footer is whole, or load() would have named it; DuckDB says `clicks_0` for the first folder's.
        folders = ", ".join(map(str, options.results))
        return _refuse(f"{folders}: a Parquet file is damaged ({str(error).splitlines()[0]})")
    print(f"{out} ({len(text.encode()) / 1e6:.1f} MB)")
    if not options.no_open and _has_display():
        webbrowser.open(out.resolve().as_uri())
    return 0


def _refuse(reason: str) -> int:
    print(f"samref-dashboard: {reason}", file=sys.stderr)
    return 2


def _write(out: Path, text: str) -> None:
    if out.is_dir():
        raise ResultsError(f"{out}: is a folder; --out names the page")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(out)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
