"""The documentation agrees with the code."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

from samref_sweep.cli.options import sweep_parser, trial_parser
from samref_sweep.spec.sweep import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_settings_page_is_the_codes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert (ROOT / "docs" / "settings.md").read_text() == generate["page"](), "run: just docs"


def test_the_columns_of_the_results_page_are_the_codes():
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    text = (ROOT / "docs" / "results.md").read_text()
    assert text == generate["results"](text), "run: just docs"
    tables = re.findall(r"<!-- columns: (\w+) -->", text)
    assert sorted({*tables} - {"settings"}) == sorted(generate["SCHEMAS"])


def test_every_option_in_the_readme_exists():
    options = {
        option
        for parser in (sweep_parser(), trial_parser())
        for action in parser._actions
        for option in action.option_strings
    }
    lines = [line for line in README.splitlines() if "samref-sweep " in line or "samref-trial " in line]
    used = {option for line in lines for option in re.findall(r"(?<=\s)--[a-z-]+", line)}
    assert used
    assert used - {"--backend-store-uri"} <= options


def test_commands_are_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    used = set(re.findall(r"uv run (samref-[a-z]+)", README))
    assert used <= scripts.keys()


def test_links_lead_to_files():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{page}: {target}"


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
    assert f"(sweeps/{path.name})" in README


def test_dependencies_say_which_file_needs_them():
    text = (ROOT / "pyproject.toml").read_text()
    for line in re.search(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)[1].splitlines():
        named = re.findall(r"[\w/]+\.py", line.partition("#")[2])
        for name in named:
            assert (ROOT / name).exists(), line
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
