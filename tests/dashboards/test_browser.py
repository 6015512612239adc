"""The page in a real browser: headless Chromium, from file://, wide and narrow, light and dark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samref_dashboards.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1280,900",
    "--virtual-time-budget=20000",
    "--dump-dom",
]
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed"),
    pytest.mark.timeout(120),
]

# Runs after the page's own modules, in a copy of the page: sorts a table twice by its NoC90, then reports.
PROBE = """<script type="module">
const buttons = [...document.querySelectorAll("#trials-table th button")];
const heading = buttons.find((button) => button.textContent === "NoC90");
const column = heading.closest("th").cellIndex;
const rows = () => [...document.querySelectorAll("#trials-table tbody tr")];
const read = () => rows().map((row) => row.cells[column].firstChild.data);
heading.click(); const up = read();
heading.click(); const down = read();
const root = document.documentElement;
const probe = { up, down, sort: heading.closest("th").ariaSort,
  inner: innerWidth, scroll: root.scrollWidth,
  charts: document.querySelectorAll(".chart svg.marks").length, places: document.querySelectorAll(".chart").length,
  ground: getComputedStyle(document.body).backgroundColor };
root.dataset.probe = Object.entries(probe).map(([k, v]) => `${k}=${v}`).join(";");
parent.postMessage(root.dataset.probe, "*");
</script>"""

# Chromium's windows are at least 500 px wide, a frame is not.
NARROW = """<!DOCTYPE html><body><iframe src="{name}" width="390" height="844"></iframe>
<script>addEventListener("message", (event) => {{ document.body.dataset.probe = event.data; }});</script>"""


def open_page(page: Path, profile: Path, *flags: str) -> tuple[str, str]:
    """(DOM, log) after the page has run."""
    assert CHROMIUM, "chromium is not installed, and CI is set"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout, done.stderr


def probe(dom: str) -> dict[str, str]:
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page's scripts did not finish"
    return dict(item.split("=", 1) for item in found[1].split(";"))


@pytest.fixture(scope="module")
def probed(write_results: Callable[..., list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    grid = {"evaluate.theta": (1.05, 1.1, 1.2), "evaluate.data": ("davis", "berkeley"), "train.seed": (0, 1)}
    write_results(folder, axes=grid, failed=[3])
    assert main([str(folder), "--no-open"]) == 0
    copy = folder / "probed.html"
    copy.write_text((folder / "dashboard.html").read_text("utf-8") + PROBE, "utf-8")
    (folder / "narrow.html").write_text(NARROW.format(name=copy.name), "utf-8")
    return folder


@pytest.mark.parametrize(("scheme", "ground"), [((), "rgb(253, 253, 251)"), ((DARK,), "rgb(20, 22, 24)")])
def test_wide_page_draws_sorts_and_logs_nothing(
    scheme: tuple[str, ...], ground: str, probed: Path, tmp_path: Path
) -> None:
    dom, log = open_page(probed / "probed.html", tmp_path, *scheme)
    seen = probe(dom)
    assert "CONSOLE" not in log, log
    assert seen["ground"] == ground
    assert int(seen["charts"]) == int(seen["places"]) >= 4
    assert int(seen["scroll"]) <= int(seen["inner"])
    up, down = seen["up"].split(","), seen["down"].split(",")
    numbers = [float(text) for text in up[:-1]]
    assert len(up) == 12
    assert numbers == sorted(numbers)
    assert up[-1] == down[-1] == "–"
    assert down[:-1] == [f"{number:.2f}" for number in sorted(numbers, reverse=True)]
    assert seen["sort"] == "descending"


def test_narrow_page_scrolls_only_inside_its_tables(probed: Path, tmp_path: Path) -> None:
    dom, log = open_page(probed / "narrow.html", tmp_path)
    seen = probe(dom)
    assert "CONSOLE" not in log, log
    assert int(seen["inner"]) == 390
    assert int(seen["scroll"]) <= 390
    assert seen["charts"] == seen["places"]


def test_tables_can_be_read_without_scripts(probed: Path) -> None:
    html = (probed / "dashboard.html").read_text("utf-8")
    bare = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert bare.count("<tr") > 20
    assert "Charts need JavaScript" in bare
