"""Writes the page's tables and figures as files: Markdown, CSV and booktabs LaTeX, SVG and PDF.

Markdown and CSV hold everything, the published numbers too. LaTeX is for a paper of one's own: only what was measured
here, in the published layout. CSV holds numbers in their stored units, unrounded.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert
from pyarrow.csv import write_csv

from samref_dashboards import paper, theme
from samref_dashboards.content import Content
from samref_dashboards.figure_kit import Figure, Panel
from samref_dashboards.load import ResultsError
from samref_dashboards.tables import RANDOM, Cell, Column, Row, Table, overs

WIDTH_PX = 320
"""The width of a chart in a file: a column of a two-column paper."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "θ": r"$\theta$", "γ": r"$\gamma$", "Δ": r"$\Delta$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$",
    "≥": r"$\geq$", "−": "$-$", "–": "--", "’": "'", "η": r"$\eta$", "²": r"$^2$", "…": r"\dots{}",
}  # fmt: skip
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
"""A table that is wider than its column is made to fit; others keep their size."""
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋ₜ", "0123456789-t")


def write(content: Content, folder: Path) -> list[Path]:
    """Write every table and figure into the folder and give the files, in order; ResultsError if it cannot be one."""
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder}: is a file; --tables names a folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    formats: Mapping[str, Callable[[Table], str]] = {"md": markdown, "csv": comma_separated, "tex": latex}
    for table in content.tables:
        for suffix, text in formats.items():
            written.append(folder / f"{table.name}.{suffix}")
            written[-1].write_text(text(table), encoding="utf-8", newline="")
    over_theta = content.results.sql.sql("SELECT * EXCLUDE (folder) FROM curves ORDER BY ALL").to_arrow_table()
    if over_theta.num_rows:
        written.append(folder / "curves.csv")
        write_csv(over_theta, written[-1])
    for figure in content.figures:
        for index, panel in enumerate(figure.panels, start=1):
            spec = standalone(figure, panel)
            name = figure.name if len(figure.panels) == 1 else f"{figure.name}-{index}"
            written += [folder / f"{name}.svg", folder / f"{name}.pdf"]
            written[-2].write_bytes(vl_convert.vegalite_to_svg(spec).encode())
            written[-1].write_bytes(vl_convert.vegalite_to_pdf(spec))
    return written


def markdown(table: Table) -> str:
    """Write a table in GitHub's Markdown, with its caption above and its notes below."""
    above = ["paper: " if column.paper else f"{column.over} " if column.over else "" for column in table.columns]
    labels = [f"{over}{column.label}" for over, column in zip(above, table.columns, strict=True)]
    lines = [
        f"**{_md(table.caption)}**",
        "",
        _md_row(map(_md, labels)),
        _md_row("---:" if column.numeric else "---" for column in table.columns),
    ]
    for block in table.blocks:
        if block.caption or block.folded:
            caption = f"{block.caption} ({paper.ORIENTATION})" if block.folded else block.caption
            lines.append(_md_row([f"*{_md(caption)}*", *[""] * (len(labels) - 1)]))
        for row in block.rows:
            cells = [f"**{_md(cell.text)}**" if cell.best else _md(cell.text) for cell in row.cells]
            cells[0] += f" ({RANDOM})" if row.random_weights else ""
            lines.append(_md_row(cells))
    return "\n".join([*lines, *(["", _md(table.note)] if table.note else []), ""])


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    """Plain text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]~#&])", r"\\\1", " ".join(text.split()))


def comma_separated(table: Table) -> str:
    """Write CSV: numbers unrounded, standard deviations in columns of their own, `block` where rows are grouped."""
    spread = [any(row.cells[n].std is not None for row in table.rows) for n in range(len(table.columns))]
    grouped = any(block.caption for block in table.blocks)
    random = any(row.random_weights for row in table.rows)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    columns = zip(table.columns, spread, strict=True)
    header = [name for column, std in columns for name in (column.key, f"{column.key}_std")[: 1 + std]]
    writer.writerow([*(["block"] if grouped else []), *header, *(["random_weights"] if random else [])])
    for block in table.blocks:
        for row in block.rows:
            cells = [
                value
                for cell, std in zip(row.cells, spread, strict=True)
                for value in (_raw(cell), cell.std)[: 1 + std]
            ]
            mark = ["yes" if row.random_weights else "no"] if random else []
            writer.writerow([*([block.caption] if grouped else []), *cells, *mark])
    return out.getvalue()


def _raw(cell: Cell) -> float | str | None:
    if cell.curve is not None:
        return " ".join(f"{iou:.4f}" for _, iou in cell.curve)
    if cell.value is not None:
        return cell.value
    # Spreadsheets take a text that begins so for a formula.
    text = "" if cell.text == "–" else cell.text
    return f"'{text}" if text[:1] in "=+@" and text else text


def latex(table: Table) -> str:
    r"""Write a `table` environment for booktabs: best in bold, significance as a superscript, all text escaped."""
    ours = ((block.caption, [row for row in block.rows if not row.paper]) for block in table.blocks)
    blocks = [(caption, inside) for caption, inside in ours if inside]
    rows = [row for _, inside in blocks for row in inside]
    kept = [n for n, column in enumerate(table.columns) if not column.paper and _says_something(table, n, rows)]
    columns = [table.columns[n] for n in kept]
    only = f" {tex(blocks[0][0])}." if len(blocks) == 1 and blocks[0][0] else ""
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.caption)}{only}}}",
        rf"\label{{tab:{table.name}}}",
        _FITTED + rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
        r"\toprule",
        *_tex_overs(columns),
        " & ".join(tex(column.label) for column in columns) + r" \\",
    ]
    for caption, inside in blocks:
        lines.append(r"\midrule")
        if caption and len(blocks) > 1:
            lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{tex(caption)}}}}} \\")
        for row in inside:
            cells = [_tex_cell(row.cells[n]) for n in kept]
            if row.random_weights:
                cells[0] += f" ({tex(RANDOM)})"
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [r"\par\smallskip\footnotesize", tex(table.note)] if table.note else []
    return "\n".join([*lines, r"\end{table}", ""])


def _tex_overs(columns: Sequence[Column]) -> list[str]:
    """The row above the headings, with a rule under each group; nothing where there are no groups."""
    groups = overs(columns)
    if not any(group.text for group in groups):
        return []
    spans, rules, end = [], [], 0
    for each in groups:
        end += each.span
        spans.append(rf"\multicolumn{{{each.span}}}{{c}}{{{tex(each.text)}}}" if each.text else " & " * (each.span - 1))
        rules += [rf"\cmidrule(lr){{{end - each.span + 1}-{end}}}"] if each.text else []
    return [" & ".join(spans) + r" \\", " ".join(rules)]


def _says_something(table: Table, n: int, rows: list[Row]) -> bool:
    """Small curves are not text; n says nothing where every number is of one seed."""
    if any(row.cells[n].curve is not None for row in rows):
        return False
    return table.columns[n].key != "n" or any(row.cells[n].text not in ("1", "") for row in rows)


def _tex_cell(cell: Cell) -> str:
    text = tex(cell.text.removesuffix(cell.mark) if cell.mark else cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + (rf"$^{{{cell.mark}}}$" if cell.mark else "")


def tex(text: str) -> str:
    """Escape text so that LaTeX shows it as it is; the subscripts of Gₜ and Mₜ₋₁ in mathematics."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"([GM]?)([₀-₉₋ₜ]+)", lambda found: f"${found[1]}_{{{found[2].translate(_SUBSCRIPTS)}}}$", escaped)


def standalone(figure: Figure, panel: Panel) -> dict[str, Any]:
    """Make a chart that needs no page around it: colours as values, its own legend, its own title."""
    spec: dict[str, Any] = _resolve(panel.spec, figure)
    return {
        **spec,
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH_PX,
        "title": {"text": panel.title, "fontSize": 12, "anchor": "start"},
        "background": "white",
        "config": _resolve(theme.CHART_CONFIG, figure) | {"background": "white", "font": "Arial, sans-serif"},
    }


def _resolve(part: Any, figure: Figure) -> Any:
    if isinstance(part, dict):
        made = {key: _resolve(value, figure) for key, value in part.items()}
        if made.get("field") == "line" and made.get("legend", "") is None:
            made["legend"] = {"title": figure.legend_title or None}
        return made
    if isinstance(part, list):
        return [_resolve(item, figure) for item in part]
    if isinstance(part, str):
        return re.sub(r"var\(--([\w-]+)\)", lambda found: theme.LIGHT[found[1]], part)
    return part
