"""The page in a real browser, from file://: wide and narrow, light and dark, with a mouse and a keyboard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest

from samref_dashboards.report import main

READY = "document.documentElement.dataset.ready === 'yes'"
SIZES = [(1280, 900), (390, 844)]

pytestmark = [
    pytest.mark.skipif(chromium.PROGRAM is None and not os.environ.get("CI"), reason="chromium is not installed"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def tab() -> Iterator[chromium.Tab]:
    with chromium.tab() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(write_results: Callable[..., list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of chart and table: axes of numbers and of names, seeds, two datasets, a failure, two models."""
    folder = tmp_path_factory.mktemp("page")
    grid = {"evaluate.theta": (1.05, 1.1, 1.2), "evaluate.data": ("davis", "grabcut"), "train.seed": (0, 1)}
    write_results(folder / "theta", axes=grid, failed=[3])
    more = {"model.backbone": ("sam_vit_b", "sam_vit_h"), "evaluate.data": ("davis", "grabcut")}
    write_results(folder / "backbones", axes=more, name="backbones")
    out = folder / "dashboard.html"
    assert main([str(folder), "--out", str(out), "--no-open"]) == 0
    return out


def open_page(tab: chromium.Tab, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
    """The page, with nothing noted of the one before."""
    tab.requests.clear()
    tab.problems.clear()
    tab.size(width, height, dark=dark)
    tab.open(page.as_uri(), READY)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("dark", "ground"), [(False, "rgb(253, 253, 251)"), (True, "rgb(20, 22, 24)")])
def test_draws_everything_and_asks_nobody(
    width: int, height: int, dark: bool, ground: str, tab: chromium.Tab, page: Path
) -> None:
    open_page(tab, page, width, height, dark=dark)
    assert tab.problems == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [page.as_uri()]
    assert tab.run("getComputedStyle(document.body).backgroundColor") == ground
    masks = tab.run(
        """[...document.querySelectorAll(".pictures .prediction")].map((mask) => {
          const [inner, outer] = [mask, mask.ownerSVGElement].map((e) => e.getBoundingClientRect());
          return inner.width > 20 && inner.left >= outer.left && inner.right <= outer.right;
        })"""
    )
    assert masks == [True] * 16
    places, drawn = tab.run("['.chart', '.chart svg.marks'].map((s) => document.querySelectorAll(s).length)")
    assert drawn == places > 10
    assert tab.run("innerWidth") == width
    # What is wide scrolls in itself, never the page.
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_a_heading_sorts(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    read = """(() => {
      const button = [...document.querySelectorAll("#trials th button")].find((b) => b.textContent === "NoC90");
      button.focus(); button.click();
      const column = button.closest("th").cellIndex;
      const rows = [...document.querySelectorAll("#trials tbody tr")];
      return [button.closest("th").ariaSort, rows.map((row) => row.cells[column].firstChild.data)];
    })()"""
    up, down = tab.run(read), tab.run(read)
    assert (up[0], down[0]) == ("ascending", "descending")
    numbers = [float(text) for text in up[1][:-1]]
    assert len(numbers) == 15
    assert numbers == sorted(numbers)
    assert up[1][-1] == down[1][-1] == "–"
    assert [float(text) for text in down[1][:-1]] == numbers[::-1]


def test_differences_sort_by_number_and_not_by_sign(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    shown = tab.run(
        """(() => {
      const heading = [...document.querySelectorAll("#differences th")].find((th) => th.textContent === "Δ NoC90");
      heading.querySelector("button").click();
      const rows = [...document.querySelectorAll("#differences tbody tr")];
      return rows.map((row) => row.cells[heading.cellIndex].textContent);
    })()"""
    )
    numbers = [float(text.rstrip("*").replace("−", "-")) for text in shown]
    assert len(numbers) >= 4
    assert numbers == sorted(numbers)


def test_a_dataset_filters_tables_and_charts(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    seen = """((name) => {
      const filter = document.getElementById("data-filter");
      filter.value = name; filter.dispatchEvent(new Event("change"));
      const shown = (e) => e.checkVisibility();
      const column = document.querySelector("#trials th[data-names]").cellIndex;
      const rows = [...document.querySelectorAll("#trials tbody tr")].filter(shown);
      const captions = [...document.querySelectorAll(".charts figcaption")].filter(shown).map((c) => c.textContent);
      return [rows.map((row) => row.cells[column].textContent), captions];
    })"""
    every, only, again = (tab.run(f"{seen}('{name}')") for name in ("", "grabcut", ""))
    assert set(every[0]) == {"davis", "grabcut"}
    assert set(only[0]) == {"grabcut"}
    assert any("davis" in caption for caption in every[1])
    assert only[1]
    assert not any("davis" in caption for caption in only[1])
    assert again == every
    assert tab.problems == []


def test_the_mouse_over_a_chart_tells_its_numbers(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    place = tab.run(
        """(() => {
      const point = document.querySelector("#figure-noc-by-evaluate-theta .mark-symbol path");
      point.scrollIntoView({ block: "center", behavior: "instant" });
      const box = point.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    })()"""
    )
    tab.hover(place[0] - 2, place[1])
    tab.hover(*place)
    text = tab.wait("document.querySelector('#vg-tooltip-element.visible')?.textContent")
    assert "NoC90" in text
    assert re.search(r"n[12]", text)


def test_a_picture_is_enlarged_by_the_mouse_and_by_the_keyboard(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    wide = "document.querySelector('#enlarged[open] image')?.getBoundingClientRect().width ?? 0"
    assert tab.run(wide) == 0
    small = tab.run("document.querySelector('.pictures image').getBoundingClientRect().width")
    tab.run("document.querySelector('.pictures figure').click()")
    assert tab.wait(wide) > 1.5 * small
    assert tab.run("document.querySelectorAll('#photograph-1').length") == 1  # the copy draws the same one
    tab.run("document.getElementById('enlarged').click()")
    assert tab.run(wide) == 0
    tab.run("""document.querySelector('.pictures figure').focus();
      document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))""")
    assert tab.wait(wide) > 1.5 * small
    assert tab.problems == []


def test_every_section_is_reached_by_its_link(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page)
    links = tab.run("[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href').slice(1))")
    assert links == tab.run("[...document.querySelectorAll('main section[id]')].map((section) => section.id)")
    assert "pictures" in links
    # What a screen reader needs: one h1, tables with captions, pictures with names, headings of rows and columns.
    assert tab.run("document.querySelectorAll('h1').length") == 1
    assert tab.run("[...document.querySelectorAll('table')].every((t) => t.caption?.textContent)")
    assert tab.run("[...document.querySelectorAll('[role=img]')].every((e) => e.getAttribute('aria-label'))")
    assert tab.run("[...document.querySelectorAll('.chart')].every((e) => e.getAttribute('aria-label'))")


def test_a_wide_table_scrolls_under_its_rows_names(tab: chromium.Tab, page: Path) -> None:
    open_page(tab, page, 390, 844)
    left = """((distance) => {
      const table = document.getElementById("trials");
      table.parentElement.scrollLeft = distance;
      const cells = [...table.tBodies[0].rows[0].cells].slice(0, 2);
      return [...cells, table.tHead.rows[0].cells[0]].map((cell) => Math.round(cell.getBoundingClientRect().left));
    })"""
    before, after = tab.run(f"{left}(0)"), tab.run(f"{left}(150)")
    assert (after[0], after[1], after[2]) == (before[0], before[1] - 150, before[2])


def test_paper_holds_whole_charts_and_tables(tab: chromium.Tab, page: Path) -> None:
    """Charts keep the size that they were drawn at: on paper, which is narrower, they once lay over each other."""
    open_page(tab, page)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.run("document.body.style.width = '688px'")  # A4 between its margins; a window's new size would redraw
    try:
        wide = """((what) => [...document.querySelectorAll(what)].filter((inside) =>
          inside.getBoundingClientRect().right > inside.parentElement.getBoundingClientRect().right + 1).length)"""
        assert tab.run(f"{wide}('.chart svg')") == 0
        assert tab.run("document.querySelectorAll('.chart svg').length") > 10
        assert tab.run("getComputedStyle(document.querySelector('.scroll.tall, .scroll')).overflow") == "visible"
        assert not tab.run("document.querySelector('nav').checkVisibility()")
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


def test_tables_can_be_read_without_scripts(tab: chromium.Tab, page: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.size(1280, 900)
        tab.open(page.as_uri(), "document.querySelectorAll('#trials tbody tr').length === 16")
        assert tab.run("document.querySelector('.chart noscript').checkVisibility()")
        assert not tab.run("document.querySelector('.filter').checkVisibility()")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
