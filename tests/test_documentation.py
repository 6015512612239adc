"""The documentation agrees with the code."""

import argparse
import pydoc
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from samref.data.command import parser as data_parser
from samref.derived import measure
from samref_dashboards.report import parser as dashboard_parser
from samref_sweep.cli.bundle import bundle_parser, prune_parser
from samref_sweep.cli.options import sweep_parser, trial_parser
from samref_sweep.record.schemas import SCHEMAS
from samref_sweep.spec.file import SweepFile
from samref_sweep.spec.settings import model_in, setting
from samref_sweep.spec.sweep import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PARSERS = (sweep_parser(), trial_parser(), data_parser(), dashboard_parser())
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize(("page", "made_by"), [("settings.md", "page"), ("architecture.md", "architecture")])
def test_a_page_that_is_written_from_the_code_is_current(page, made_by, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert (ROOT / "docs" / page).read_text() == generate[made_by](), "run: just docs"


def test_what_the_architecture_names_exists():
    names = re.findall(r"`((?:samref|samref_sweep|samref_dashboards)(?:\.\w+)+)`", ARCHITECTURE)
    assert len(names) > 15
    for name in names:
        assert pydoc.locate(name), name


def test_a_docstring_can_be_understood_without_the_line_above():
    strings = [
        (path, string)
        for room in ("samref", "orchestrator", "dashboards")
        for path in (ROOT / room).rglob("*.py")
        for string in re.findall(r'^ *"""(.*)', path.read_text(), re.MULTILINE)
    ]
    assert len(strings) > 1500
    leans = re.compile(r"(Of|The same|Its|As (above|of|the)|Those|Likewise)\b|.*\b(hangs? on|method\.md §)")
    assert [each for each in strings if leans.match(each[1])] == []


def test_the_columns_of_the_results_page_are_the_codes():
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    text = (ROOT / "docs" / "results.md").read_text()
    assert text == generate["results"](text), "run: just docs"
    tables = re.findall(r"<!-- columns: (\w+) -->", text)
    assert sorted({*tables} - {"settings"}) == sorted(generate["SCHEMAS"])


def test_every_option_in_the_readme_exists():
    """The options of our four commands are looked up; those of other programs in the same lines are not."""
    for parser in PARSERS:
        lines = re.findall(rf"{parser.prog}(?: [^`\n#|]*)?", README)
        used = {option for line in lines for option in re.findall(r"(?<=\s)--[a-z-]+", line)}
        assert used or parser.prog == "samref-data" or parser.prog == "samref-trial", parser.prog
        assert used <= set(options_of(parser)), parser.prog


def options_of(parser):
    """The options of a command, and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options_of(below)


def test_commands_are_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    used = set(re.findall(r"uv run (samref-[a-z]+)", README))
    assert used <= scripts.keys()


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
            assert not anchor or anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    found, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in found:
            found.add(page)
            linked = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
            todo += [page.parent / each for each in linked if not each.startswith("http")]
    assert found == {page.resolve() for page in PAGES}


def commands():
    """Every line of a block of code in README and docs that calls one of our commands: (page, words)."""
    pages = {ROOT / "README.md", *ROOT.glob("docs/*.md")} - {ROOT / "docs" / "settings.md"}  # which has their usage
    for page in sorted(pages):
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for block in (text for language, text in blocks if language in ("", "bash")):
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(
                    r"^.*?(?=\bsamref-)|(\s#|\s*[>|&]).*$",
                    "",
                    re.sub(r"'[^']*'", lambda m: m[0].replace("&", "+"), line),
                )
                if re.match(r"samref-(sweep|trial|data|dashboard)\s", text):
                    yield page.name, shlex.split(text)


def test_every_command_in_the_documentation_can_be_parsed():
    parsers = {parser.prog: parser for parser in (*PARSERS, bundle_parser(), prune_parser())}
    seen = list(commands())
    assert len(seen) > 20
    for page, words in seen:
        name, rest = words[0], words[1:]
        if " ".join(words[:2]) in parsers:
            name, rest = " ".join(words[:2]), words[2:]
        if not {"--schema", "--print-completion"} & {*rest}:  # which end the command, as --help does
            assert parsers[name].parse_args(rest), f"{page}: {' '.join(words)}"


def test_what_a_shell_would_expand_is_quoted():
    """Zsh, macOS' shell, refuses `--set a=[1,2]`, and every shell may take `?` and `*` for names of files."""
    pages = (*PAGES, *ROOT.glob("sweeps/*.yaml"))
    for page in pages:
        assert not re.findall(r"--set[ =](?!KEY=)[^\s'\"`]*[][{}?*&<>|;$].*", page.read_text()), page.name


def test_every_option_stands_in_the_documentation():
    text = "".join(page.read_text() for page in PAGES)
    for parser in (*PARSERS, bundle_parser(), prune_parser()):
        missing = {option for option in options_of(parser) if option.startswith("--") and option not in text}
        assert missing <= {"--help"}, parser.prog


OTHERS = {
    "--gpus-per-task", "--signal", "--include-dashboard", "--dashboard-host", "--dashboard-agent-listen-port",
    "miou_at_click", "train.txt",
}  # fmt: skip
"""What the documentation names of Slurm, of Ray, of MLflow's charts and of datasets' files."""


def test_every_option_setting_and_metric_that_the_documentation_names_exists():
    options = {option for parser in (*PARSERS, bundle_parser(), prune_parser()) for option in options_of(parser)}
    columns = {name for schema in SCHEMAS.values() for name in schema.names}
    metric = re.compile(r"(noc|nof|miou|boundary_miou|success|iou_auc|seconds|clicks_on|train|sat|refiner)_[a-z0-9_]+")
    named = set()
    for page in (page for page in PAGES if page.name not in ("LOG.md", "CHANGELOG.md")):  # which tell of what was
        for code in set(re.findall(r"`([^`\n]+)`", page.read_text())) - OTHERS:
            for option in re.findall(r"^--[a-z][a-z-]+", code):
                assert option in options | OTHERS, f"{page.name}: {code}"
            for key in re.findall(r"(?<![\w/.])(?:model|train|evaluate|profile)\.[a-z_.]*\w", code):
                assert key.endswith((".json", ".py")) or setting(key, page.name), f"{page.name}: {code}"
                named.add(key)
            if metric.fullmatch(code):
                assert code in columns or measure(code), f"{page.name}: {code}"
                named.add(code)
    assert len(named) > 60


def test_every_key_of_a_sweep_file_stands_in_the_settings():
    text, todo, seen = (ROOT / "docs" / "settings.md").read_text(), [SweepFile], set()
    while todo:
        model = todo.pop()
        seen.add(model)
        for name, field in model.model_fields.items():
            assert re.search(rf"\| `{field.alias or name}` \|", text), f"{model.__name__}.{name}"
            todo += {
                below for each in get_args(field.annotation) or (field.annotation,) if (below := model_in(each))
            } - seen
    assert len(seen) > 5


def test_the_sweep_file_in_the_readme_is_valid(tmp_path):
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    path = tmp_path / "readme.yaml"
    path.write_text(block)
    assert len(read(path).configs) == 15


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_committed_sweeps_expand_and_are_listed(path):
    sweep = read(path)
    assert sweep.purpose
    assert path.read_text().startswith("# "), "a sweep opens with its purpose and command"
    assert f"samref-sweep sweeps/{path.name}" in path.read_text()
    assert f"(../sweeps/{path.name})" in (ROOT / "docs" / "sweeps.md").read_text()


MODULES = {
    "duckdb": "duckdb", "jinja2": "jinja2", "nvidia-ml-py": "pynvml", "opencv-python-headless": "cv2", "pillow": "PIL",
    "pyyaml": "yaml", "ray[tune]": "ray", "segment-anything": "segment_anything", "vl-convert-python": "vl_convert",
}  # fmt: skip
"""Dependency → what is imported of it, where that is not its name."""


def test_each_dependency_names_a_file_that_imports_it():
    """Or, where only another dependency imports it, that one."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = re.search(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)[1].splitlines()
    names = [re.match(r'\s*"([\w-]+(?:\[\w+\])?)', line)[1] for line in lines]
    for name, line in zip(names, lines, strict=True):
        why = line.partition("# ")[2]
        if by := re.match(r"imported by ([\w-]+)", why):
            assert by[1] in names, line
            continue
        where = [ROOT / each.strip() for each in why.partition(":")[0].split(",")]
        module = MODULES.get(name, name).replace("-", "_")
        for place in where:
            files = [place] if place.is_file() else sorted(place.rglob("*.py"))
            imports = re.compile(rf"\b(?:import|from|import_alone)\b.*\b{module}\b")
            assert any(imports.search(file.read_text()) for file in files), f"{line}: {place} does not import {module}"
