"""Writes from the code docs/settings.md, the columns in docs/results.md and the list of files in docs/architecture.md.

uv run python docs/generate.py
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from samref import backbones, data
from samref.config import EvaluateConfig, ModelConfig, ProfileConfig, TrainConfig
from samref.data.command import parser as data_parser
from samref_dashboards.report import parser as dashboard_parser
from samref_sweep.cli.options import sweep_parser, trial_parser
from samref_sweep.record.schemas import SCHEMAS
from samref_sweep.spec.axes import Axis, Parameters
from samref_sweep.spec.file import SweepFile
from samref_sweep.spec.objective import Objective
from samref_sweep.spec.policy import Budget, Resources, Retry, Scheduler, SeedsUntil, Until

PAGE = Path(__file__).with_name("settings.md")
ARCHITECTURE = Path(__file__).with_name("architecture.md")
GENERATED = "<!-- The rest is written by docs/generate.py. -->\n"
PLACES = ("samref", "orchestrator/samref_sweep", "dashboards/samref_dashboards", "benchmarks", "docs", "tests")
RESULTS = Path(__file__).with_name("results.md")

PRECISIONS = """\
`fp32` is float32 throughout, on CUDA as well, where torch by default rounds the factors of convolutions. `tf32` lets
CUDA round the factors of convolutions and of products of matrices to ten bits of mantissa, as many as fp16 has; on a
CPU it is `fp32`. `bf16` is torch's autocast: seven bits in products, float32 where more is needed. Evaluations in fp32
have the ids that they had before there was a choice.

What bf16 changes in NoC90, measured with `tiny` on a CPU (100 objects of each set; fp32, then the difference):

| | shapes | ECSSD |
|---|---|---|
| decoder alone, `evaluate.precision: bf16` | 13.56 +0.06 | 19.21 +0.00 |
| decoder alone, `model.precision: bf16` | 13.56 -0.17 | 19.21 +0.00 |
| with GFR+LFR, `evaluate.precision: bf16` | 12.04 +0.01 | 18.69 -0.05 |
| with GFR+LFR, `model.precision: bf16`, also in its training of 150 steps | 12.04 +0.28 | 18.69 -0.10 |

Neither better nor worse, but not the same clicks: compare rows of one precision. `tf32`, whose rounding is eight times
finer, was not measured by itself. The sweeps of the paper's tables and of γ take `tf32` for encoder and clicks and
`bf16` for training; `compute.yaml` is fp32."""


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Settings",
        "Written by `docs/generate.py` from the code; a test compares them. Any setting can stand under `trial:` of a "
        "sweep file, be an axis under `parameters:`, or be given with `--set KEY=VALUE`.",
        "What a change of it reruns: `evaluate.*` evaluations; `train.*` trainings and their evaluations; `model.*` "
        "all that use it. What a dataset's name may be: [data.md](data.md).",
    ]
    for name, part in [
        ("model", ModelConfig),
        ("train", TrainConfig),
        ("evaluate", EvaluateConfig),
        ("profile", ProfileConfig),
    ]:
        parts += [f"## `{name}`", first_line(part), *table(part, f"{name}.")]
    parts += ["## Precisions", PRECISIONS]
    parts += ["## Keys of a sweep file", *table(SweepFile, "")]
    parts += ["### `resources.KIND`", first_line(Resources), *table(Resources, "")]
    for key, model in [
        ("parameters.SETTING", Axis),
        ("parameters", Parameters),
        ("seeds", SeedsUntil),
        ("seeds.until", Until),
        ("metric", Objective),
        ("scheduler", Scheduler),
        ("budget", Budget),
        ("retry", Retry),
    ]:
        parts += [f"### `{key}`", first_line(model), *table(model, "")]
    parts += ["## Names", f"Backbones: {', '.join(f'`{name}`' for name in backbones.names())}."]
    parts += [f"Datasets: {', '.join(f'`{name}`' for name in data.names())}."]
    parts += ["## Commands"]
    for parser in (sweep_parser(), trial_parser(), data_parser(), dashboard_parser()):
        parts += [f"```\n{parser.format_help().strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def results(text: str) -> str:
    """The page on the results, with its tables of columns as the files' schemas have them."""
    return re.sub(
        r"(<!-- columns: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{columns(found[2])}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def columns(name: str) -> str:
    """One table of the columns of a file; a trial's settings have a table of their own."""
    rows = [("column", "type", "unit", "better", "meaning")]
    for field in SCHEMAS["trials" if name == "settings" else name]:
        if ("." in field.name) == (name == "settings"):
            about = {key.decode(): text.decode().replace("|", "\\|") for key, text in field.metadata.items()}
            kind = re.sub(r"dictionary<values=(\w+).*", r"\1", str(field.type))
            kind = re.sub(r"list<item: (\w+)>", r"list of \1", kind)
            rows.append((f"`{field.name}`", kind, about.get("unit", ""), about.get("better", ""), about["meaning"]))
    filled = [cells for cells in zip(*rows, strict=True) if any(cells[1:])]
    head, *rest = (f"| {' | '.join(cells)} |" for cells in zip(*filled, strict=True))
    return "\n".join([head, "|" + "---|" * len(filled), *rest])


def table(part: type[BaseModel], prefix: str) -> Iterator[str]:
    """One table of a part's fields."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in part.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        key = f"{prefix}{field.alias or name}"
        rows.append(f"| `{key}` | {type_name(field.annotation)} | {default(field)} | {meaning} |")
    yield "\n".join(rows)


def first_line(part: type[BaseModel]) -> str:
    """The summary of a part's docstring."""
    return (part.__doc__ or "").strip().splitlines()[0]


def default(field: FieldInfo) -> str:
    """A field's default as YAML would have it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    plain = {None: "null", True: "true", False: "false"}
    text = plain.get(value, value) if isinstance(value, bool | None) else value
    return f"`{text}`" if text != "" else ""


def type_name(annotation: Any) -> str:
    """A type in a reader's words."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return " or ".join(type_name(each) for each in get_args(annotation))
    if origin is Literal:
        return " \\| ".join(f"`{each}`" for each in get_args(annotation))
    if origin in (tuple, list):
        return f"list of {type_name(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return type_name(get_args(annotation)[0])
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "anything"}
    return names.get(annotation, "mapping")


def architecture() -> str:
    """The page of the architecture: as it is written, with the list of files made anew below its mark."""
    written, mark, _ = ARCHITECTURE.read_text().partition(GENERATED)
    return "\n".join([written + mark, *(line for place in PLACES for line in files_of(place))])


def files_of(place: str) -> Iterator[str]:
    """A folder's Python files as a Markdown table, each with what it holds; those of its subfolders follow."""
    root = ARCHITECTURE.parents[1]
    yield from (f"### `{place}/`", "", "| file | what it holds |", "|---|---|")
    folder = root / place
    for path in sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path.stem != "__init__", path.name)):
        if held := first_sentence(path):
            yield f"| `{path.relative_to(folder)}` | {held.replace('|', chr(92) + '|')} |"
    yield ""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring; empty for an empty file.

    Raises:
        ValueError: a file with code in it does not say what it holds.
    """
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree) or ""
    if tree.body and not docstring:
        raise ValueError(f"{path}: has no docstring, whose first sentence says what it holds")
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(docstring.partition("\n\n")[0].split()))[0]


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    PAGE.write_text(page())
    ARCHITECTURE.write_text(architecture())
    RESULTS.write_text(results(RESULTS.read_text()))
